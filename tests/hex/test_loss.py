"""The HEX loss: loops in float64, the identities of the formulas, gradients, limits."""

from __future__ import annotations

import pytest
import torch

from solo.hex import (
    AdaptivePercentile,
    Constant,
    EveryNegative,
    FixedThreshold,
    HEXLoss,
    NoNegative,
    Superclass,
    hex_nce,
)
from solo.losses import Pairs, info_nce
from solo.losses import pairs as pairs_module
from tests.losses import reference
from tests.losses.test_info_nce import edge_cases

EVERYBODY, NOBODY = EveryNegative(), NoNegative()  # H(i) = N(i), H(i) empty
SOME = {
    "adaptive": AdaptivePercentile(quantile=0.6, warm_epoch=0),
    "fixed": FixedThreshold(Constant(0.6)),
    "superclass": Superclass(),
    "everybody": EVERYBODY,
    "nobody": NOBODY,
}


def batch(n=16, d=4, classes=8, seed=0):
    torch.manual_seed(seed)
    z = torch.randn(n, d, dtype=torch.float64, requires_grad=True)
    ids = torch.arange(n) % classes
    return z, ids, Pairs.from_ids(z, ids, groups=ids % 3)


def chosen(policy, pairs):
    selector = policy.selector(pairs, 0, 1)
    rows = slice(0, len(pairs.anchors))
    return selector(pairs.similarity(rows), rows) & pairs.masks(rows)[1]


def close(a, b, z, value=1e-10, gradient=1e-10):
    torch.testing.assert_close(a, b, rtol=value, atol=value)
    grad_a, grad_b = (torch.autograd.grad(x, z, retain_graph=True)[0] for x in (a, b))
    torch.testing.assert_close(grad_a, grad_b, rtol=gradient, atol=gradient)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("classes", [4, 8])
@pytest.mark.parametrize(
    ("temperature", "beta", "tau_plus"), [(0.1, 1.0, 0.1), (0.5, 1.0, 0.1), (1.0, 0.5, 0.3), (0.5, 3.0, 0.0)]
)
def test_equals_the_loops(name, classes, temperature, beta, tau_plus):
    z, ids, pairs = batch(classes=classes)
    loss, _ = hex_nce(pairs, SOME[name], temperature=temperature, beta=beta, tau_plus=tau_plus)
    expected = reference.hex_loss(z, ids, chosen(SOME[name], pairs), temperature, beta, tau_plus)
    close(loss, expected, z)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_identity_beta_0_tau_0_is_info_nce(name, temperature):
    z, _, pairs = batch()
    loss, _ = hex_nce(pairs, SOME[name], temperature=temperature, beta=0.0, tau_plus=0.0)
    close(loss, info_nce(pairs, temperature), z)


@pytest.mark.parametrize("tau_plus", [0.0, 0.1])
def test_identity_empty_set_is_info_nce_to_the_last_bit(tau_plus):
    z, _, pairs = batch()
    plain = info_nce(pairs, 0.1)
    for policy in (NOBODY, AdaptivePercentile(warm_epoch=10)):
        loss, stats = hex_nce(pairs, policy, temperature=0.1, tau_plus=tau_plus)
        assert torch.equal(loss, plain)
        assert torch.equal(*(torch.autograd.grad(x, z, retain_graph=True)[0] for x in (loss, plain)))
        assert stats["hierarchy_negatives"] == 0


@pytest.mark.parametrize(("beta", "tau_plus"), [(1.0, 0.1), (0.5, 0.0), (2.0, 0.3)])
@pytest.mark.parametrize("temperature", [0.2, 0.5])
def test_identity_all_negatives_is_hcl(beta, tau_plus, temperature):
    z, ids, pairs = batch()
    loss, _ = hex_nce(pairs, EVERYBODY, temperature=temperature, beta=beta, tau_plus=tau_plus)
    close(loss, reference.hcl(z, ids, temperature, beta, tau_plus), z)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_release_with_an_empty_set_is_dcl(temperature):
    z, ids, pairs = batch()
    loss, stats = hex_nce(pairs, NOBODY, temperature=temperature, variant="release")
    close(loss, reference.dcl(z, ids, temperature), z)
    assert stats["hierarchy_negatives"] == 0


@pytest.mark.parametrize("name", ["adaptive", "fixed"])
def test_release_is_decoupled_with_the_hierarchy_removed(name):
    z, ids, pairs = batch(n=32, classes=16)
    hierarchy = chosen(SOME[name], pairs)
    assert hierarchy.any()
    loss, _ = hex_nce(pairs, SOME[name], temperature=0.1, variant="release")
    close(loss, reference.hex_loss(z, ids, hierarchy, 0.1, 1.0, 0.1, release=True), z, gradient=1e-8)
    other, _ = hex_nce(pairs, SOME[name], temperature=0.1, beta=5.0, tau_plus=0.5, variant="release")
    assert torch.equal(loss, other)


def release_as_written(z, temperature, beta, tau_plus, local):
    """The public loss step by step: shifted logits, re-weighting of logits, clamp; value without its constant."""
    n = len(z)
    logits = reference.cosines(z) / temperature
    logits = logits - logits.max(dim=1, keepdim=True).values.detach()
    eye = torch.eye(n, dtype=torch.bool)
    partner = torch.roll(torch.arange(n), n // 2)
    positive = torch.zeros(n, n, dtype=torch.bool).scatter_(1, partner[:, None], True)
    local = (local | positive) & ~eye
    outside = ~local & ~eye
    negative = (logits * local).sum(dim=1)
    constant = (n - 2) * torch.exp(torch.tensor(-1 / temperature, dtype=z.dtype))
    debiased = (-tau_plus * (n - 2) * torch.exp((logits * positive).sum()) + negative) / (1 - tau_plus)
    debiased = torch.maximum(debiased, constant)
    log_outside = torch.log((torch.exp(logits) * outside).sum(dim=1))
    return -((logits * positive).sum(dim=1) - debiased - log_outside).mean() - constant


@pytest.mark.parametrize("name", ["adaptive", "fixed"])
def test_release_equals_the_public_loss(name):
    z, _, pairs = batch(n=32, classes=16)
    expected = release_as_written(z, 0.1, 1.0, 0.1, chosen(SOME[name], pairs))
    loss, _ = hex_nce(pairs, SOME[name], temperature=0.1, variant="release")
    close(loss, expected, z, gradient=1e-8)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("variant", ["reweight", "release"])
@pytest.mark.parametrize("tau_plus", [0.0, 0.05])
def test_gradcheck(name, variant, tau_plus):
    z, ids, pairs = batch(n=12, classes=6)
    hierarchy = chosen(SOME[name], pairs)

    class Frozen:  # the choice has no gradient: hold it while z is nudged
        def selector(self, pairs, epoch, max_epochs):
            return self

        threshold = None

        def __call__(self, similarity, rows):
            return hierarchy[rows].clone()

    def loss(z):
        return hex_nce(Pairs.from_ids(z, ids), Frozen(), temperature=0.7, beta=1.5, tau_plus=tau_plus, variant=variant)[
            0
        ]

    assert torch.autograd.gradcheck(loss, z)


def test_blocks_change_nothing(monkeypatch):
    z, _, pairs = batch(n=40, classes=20)
    policy = AdaptivePercentile(quantile=0.8, warm_epoch=0)
    whole, whole_stats = hex_nce(pairs, policy, temperature=0.5, tau_plus=0.02)
    monkeypatch.setitem(pairs_module.BLOCK_ELEMENTS, "cpu", 120)
    blocks, stats = hex_nce(pairs, policy, temperature=0.5, tau_plus=0.02)
    close(blocks, whole, z, value=1e-13, gradient=1e-12)
    assert stats.keys() == whole_stats.keys()
    for key, value in stats.items():
        torch.testing.assert_close(value, whole_stats[key])


def test_positives_are_never_selected():
    torch.manual_seed(0)
    z = torch.randn(6, 4).repeat(2, 1)  # each view equals the other: the positives have the largest cosine
    pairs = Pairs.from_views((z[:6], z[6:]))
    _, stats = hex_nce(pairs, EVERYBODY, temperature=0.1)
    assert stats["hierarchy_negatives"] == 10


def test_beta_and_tau_plus_change_the_loss_and_selected_negatives_get_gradient():
    z, _, pairs = batch()
    losses = {
        (beta, tau_plus): hex_nce(pairs, EVERYBODY, temperature=1.0, beta=beta, tau_plus=tau_plus)[0]
        for beta in (0.0, 1.0)
        for tau_plus in (0.0, 0.1)
    }
    assert len({round(float(x.detach()), 9) for x in losses.values()}) == 4
    (grad,) = torch.autograd.grad(losses[1.0, 0.1], z)
    assert (grad.abs().sum(dim=1) > 0).all()


def test_stats():
    z, _, pairs = batch(n=32, classes=16)
    policy = AdaptivePercentile(quantile=0.7, warm_epoch=0)
    hierarchy = chosen(policy, pairs)
    _, stats = hex_nce(pairs, policy, temperature=0.5, tau_plus=0.0)
    s = reference.cosines(z).detach()
    negative = pairs.masks(slice(0, 32))[1]
    torch.testing.assert_close(stats["hierarchy_negatives"], hierarchy.sum(dim=1).double().mean())
    rest = torch.where(negative & ~hierarchy, s / 0.5, -torch.inf).logsumexp(dim=1)
    torch.testing.assert_close(stats["log_global"], rest.mean())
    assert stats["threshold"] == policy.selector(pairs, 0, 1).threshold
    assert 0 < stats["local_share"] < 1
    assert stats["bounded"] == 0
    assert not any(value.requires_grad for value in stats.values())


@pytest.mark.parametrize("variant", ["reweight", "release"])
def test_stats_tell_how_many_hierarchy_negatives_share_the_group(variant):
    z, ids, _ = batch(n=32, classes=16)
    groups = torch.arange(32) % 3 - (torch.arange(32) == 4).long() * 9  # one is unknown
    pairs = Pairs.from_ids(z, ids, groups)
    policy = AdaptivePercentile(quantile=0.7, warm_epoch=0)
    hierarchy = chosen(policy, pairs)
    alike = judged = 0
    for i in range(32):
        for j in range(32):
            if hierarchy[i, j] and groups[i] >= 0 and groups[j] >= 0:
                judged, alike = judged + 1, alike + int(groups[i] == groups[j])
    _, stats = hex_nce(pairs, policy, temperature=0.5, variant=variant)
    assert 0 < alike < judged and stats["superclass_share"] == pytest.approx(alike / judged)
    assert "superclass_share" not in hex_nce(Pairs.from_ids(z, ids), policy)[1]


def test_stats_tell_how_often_the_lower_bound_holds():
    torch.manual_seed(0)
    z = torch.randn(6, 4).repeat(2, 1)  # positives at cosine 1 outweigh what tau_plus = 0.9 takes off
    pairs = Pairs.from_views((z[:6], z[6:]))
    assert hex_nce(pairs, EVERYBODY, temperature=0.1, tau_plus=0.9)[1]["bounded"] == 1
    assert hex_nce(pairs, EVERYBODY, temperature=0.1, tau_plus=0.0)[1]["bounded"] == 0


@pytest.mark.parametrize("name", edge_cases())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.01, 1.0])
@pytest.mark.parametrize("ids", [[0, 1, 2, 3] * 2, [0] * 8], ids=["pairs", "one class"])
@pytest.mark.parametrize("policy", SOME)
@pytest.mark.parametrize("variant", ["reweight", "release"])
def test_finite_everywhere(name, dtype, temperature, ids, policy, variant):
    z = edge_cases()[name].to(dtype).requires_grad_()
    pairs = Pairs.from_ids(z, torch.tensor(ids), groups=torch.zeros(8, dtype=torch.long))
    for tau_plus in (0.0, 0.1, 0.99):
        loss, stats = hex_nce(pairs, SOME[policy], temperature=temperature, tau_plus=tau_plus, variant=variant)
        (grad,) = torch.autograd.grad(loss, z, retain_graph=True)
        assert loss.isfinite()
        assert grad.isfinite().all()
        assert all(value.isfinite() for value in stats.values())


def test_module_takes_two_views():
    torch.manual_seed(0)
    z0, z1 = torch.randn(16, 8, requires_grad=True), torch.randn(16, 8, requires_grad=True)
    loss_fn = HEXLoss(temperature=0.1, policy=AdaptivePercentile(quantile=0.9, warm_epoch=10))
    warm = loss_fn(z0, z1)
    torch.testing.assert_close(warm, info_nce(Pairs.from_views((z0, z1)), 0.1), rtol=0, atol=0)
    loss = loss_fn(z0, z1, epoch=10, max_epochs=20)
    loss.backward()
    assert loss != warm
    assert loss_fn.stats["hierarchy_negatives"] > 0
    assert z0.grad.abs().sum() > 0
    assert z1.grad.abs().sum() > 0


def test_module_reads_groups():
    torch.manual_seed(0)
    z0, z1 = torch.randn(8, 4), torch.randn(8, 4)
    loss_fn = HEXLoss(policy=Superclass())
    loss_fn(z0, z1, groups=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]))
    assert loss_fn.stats["hierarchy_negatives"] == 6
    with pytest.raises(ValueError, match="coarse labels"):
        loss_fn(z0, z1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"tau_plus": 1.0}, "tau_plus"), ({"beta": -1.0}, "beta"), ({"variant": "paper"}, "variant")],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        HEXLoss(**settings)(torch.ones(2, 2), torch.ones(2, 2))


@pytest.mark.parametrize("rows", [slice(None), slice(0, 1)], ids=["all", "one"])
@pytest.mark.parametrize("policy", SOME)
@pytest.mark.parametrize("variant", ["reweight", "release"])
def test_what_is_not_finite_comes_through(rows, policy, variant):
    torch.manual_seed(6)
    z = torch.randn(8, 4)
    z[rows] = float("nan")
    pairs = Pairs.from_ids(z, torch.arange(4).repeat(2), groups=torch.zeros(8, dtype=torch.long))
    assert hex_nce(pairs, SOME[policy], variant=variant)[0].isnan()
