"""InfoNCE and SimCLR's loss against loops, other libraries and their limits."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import NTXentLoss

from solo.losses import Pairs, info_nce, simclr_loss_func
from solo.losses import pairs as pairs_module
from tests.losses import reference


def batch(n=12, d=5, classes=4, seed=0):
    torch.manual_seed(seed)
    return torch.randn(n, d, dtype=torch.float64, requires_grad=True), torch.arange(n) % classes


def grad_of(loss, z):
    return torch.autograd.grad(loss, z, retain_graph=True)[0]


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("classes", [2, 4, 6])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equals_the_loops(joint, classes, temperature):
    z, ids = batch(classes=classes)
    loss = info_nce(Pairs.from_ids(z, ids), temperature, "inside" if joint else "outside")
    expected = reference.info_nce(z, ids, temperature, joint)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad_of(loss, z), grad_of(expected, z), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("positives", ["outside", "inside"])
def test_gradcheck(positives):
    z, ids = batch(n=9, classes=3)
    assert torch.autograd.gradcheck(lambda z: info_nce(Pairs.from_ids(z, ids), 0.3, positives), z)


def test_blocks_change_nothing(monkeypatch):
    z, ids = batch(n=40, classes=20)
    whole = simclr_loss_func(z, ids)
    whole_grad = grad_of(whole, z)
    monkeypatch.setitem(pairs_module.BLOCK_ELEMENTS, "cpu", 120)
    blocks = simclr_loss_func(z, ids)
    torch.testing.assert_close(blocks, whole, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(grad_of(blocks, z), whole_grad, rtol=1e-12, atol=1e-14)


def test_equals_lightly():
    torch.manual_seed(1)
    a, b = torch.randn(16, 8), torch.randn(16, 8)
    expected = NTXentLoss(temperature=0.2)(a, b)
    torch.testing.assert_close(info_nce(Pairs.from_views((a, b)), 0.2), expected)
    torch.testing.assert_close(simclr_loss_func(torch.cat((a, b)), torch.arange(16).repeat(2), 0.2), expected)


def test_one_positive_is_the_same_either_way_to_the_last_bit():
    torch.manual_seed(2)
    pairs = Pairs.from_views((torch.randn(16, 8), torch.randn(16, 8)))
    assert torch.equal(info_nce(pairs, 0.1, "outside"), info_nce(pairs, 0.1, "inside"))


def test_anchors_without_a_positive_are_left_out():
    z, _ = batch(n=6)
    ids = torch.tensor([0, 0, 1, 1, 2, 3])
    torch.testing.assert_close(info_nce(Pairs.from_ids(z, ids), 0.2), reference.info_nce(z, ids, 0.2))


def test_no_positive_at_all_is_zero_with_zero_gradient():
    z, _ = batch(n=4)
    loss = info_nce(Pairs.from_ids(z, torch.arange(4)), 0.2)
    assert loss == 0
    assert torch.equal(grad_of(loss, z), torch.zeros_like(z))


def edge_cases():
    torch.manual_seed(3)
    usual = torch.randn(8, 4)
    return {
        "identical rows": torch.ones(8, 4),
        "zero rows": torch.zeros(8, 4),
        "one zero row": usual * (torch.arange(8) > 0)[:, None],
        "opposite rows": torch.cat((usual[:4], -usual[:4])),
        "huge": usual * 1e30,
        "tiny": usual * 1e-30,
    }


@pytest.mark.parametrize("name", edge_cases())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.01, 1.0])
@pytest.mark.parametrize("ids", [[0, 1, 2, 3] * 2, [0] * 8], ids=["pairs", "one class"])
def test_finite_everywhere(name, dtype, temperature, ids):
    z = edge_cases()[name].to(dtype).requires_grad_()
    loss = simclr_loss_func(z, torch.tensor(ids), temperature)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_autocast_does_not_lower_the_precision():
    torch.manual_seed(4)
    z, ids = torch.randn(32, 16), torch.arange(16).repeat(2)
    plain = simclr_loss_func(z, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(simclr_loss_func(z, ids), plain)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature"):
        simclr_loss_func(torch.ones(2, 2), torch.zeros(2), temperature)


def test_gradient_steps_lower_it():
    torch.manual_seed(5)
    z, ids = torch.randn(32, 16, requires_grad=True), torch.arange(16).repeat(2)
    first = loss = simclr_loss_func(z, ids)
    for _ in range(20):
        (grad,) = torch.autograd.grad(loss, z)
        z = (z - 0.5 * grad).detach().requires_grad_()
        loss = simclr_loss_func(z, ids)
    assert 0 < loss < first


@pytest.mark.parametrize("rows", [slice(None), slice(0, 1)], ids=["all", "one"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("positives", ["outside", "inside"])
def test_what_is_not_finite_comes_through(rows, value, positives):
    torch.manual_seed(6)
    z = torch.randn(8, 4)
    z[rows] = value
    assert info_nce(Pairs.from_ids(z, torch.arange(4).repeat(2)), 0.1, positives).isnan()


def test_queue_is_cross_entropy_with_the_key_first():
    torch.manual_seed(7)
    q, k, queue = (torch.nn.functional.normalize(torch.randn(n, 5, dtype=torch.float64)) for n in (6, 6, 20))
    q.requires_grad_()
    logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.T], dim=1) / 0.2
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(6, dtype=torch.long))
    loss = info_nce(Pairs.with_queue(q, k, queue), 0.2)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_between_is_cross_entropy_over_the_keys():
    torch.manual_seed(8)
    p, nn = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    s = torch.nn.functional.normalize(nn) @ torch.nn.functional.normalize(p).T
    expected = torch.nn.functional.cross_entropy(s / 0.2, torch.arange(6))
    torch.testing.assert_close(info_nce(Pairs.between(nn, p, torch.arange(6)), 0.2), expected, rtol=1e-12, atol=0)
