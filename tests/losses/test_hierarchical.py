"""The hierarchical losses by pairs: against loops on random trees, their identities, limits and errors."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import NTXentLoss

from solo.losses import HierarchicalContrastiveLoss, simclr_loss_func
from solo.losses import pairs as pairs_module
from tests.losses import hierarchical_reference as reference

KINDS = ["himulcon", "hicone", "himulcone"]


def batch(rows=7, views=2, dim=4, seed=0):
    torch.manual_seed(seed)
    return torch.randn(rows, views, dim, dtype=torch.float64, requires_grad=True)


def grad_of(loss, z):
    return torch.autograd.grad(loss, z, retain_graph=True)[0]


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("pairs", ["lca", "cumulative"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_loops_on_random_trees(kind, pairs, levels):
    penalties = [*reference.PENALTIES, [0.5 * level + 0.1 for level in range(levels)]]
    for seed, penalty in enumerate(penalties):
        z = batch(rows=5, views=1 + seed % 3, seed=seed)
        labels = reference.random_labels(len(z), levels, missing=0.3, seed=seed)
        loss = HierarchicalContrastiveLoss(kind, 0.3, penalty, pairs)(z, labels)
        expected = reference.hierarchical(z, labels, kind, 0.3, penalty, pairs == "cumulative")
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(grad_of(loss, z), grad_of(expected, z), rtol=1e-9, atol=1e-12)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("pairs", ["lca", "cumulative"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, pairs):
    labels = reference.random_labels(7, 3)
    loss = HierarchicalContrastiveLoss(kind, 0.3, pairs=pairs)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), batch())


@pytest.mark.parametrize("granularity", ["pair", "layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_change_nothing(kind, granularity, monkeypatch):
    z, labels = batch(20), torch.cat((reference.random_labels(20, 3), torch.arange(20)[:, None]), dim=1)
    loss = HierarchicalContrastiveLoss(kind, granularity=granularity)
    whole = loss(z, labels)
    whole_grad = grad_of(whole, z)
    monkeypatch.setitem(pairs_module.BLOCK_ELEMENTS, "cpu", 120)
    blocks = loss(z, labels)
    torch.testing.assert_close(blocks, whole, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(grad_of(blocks, z), whole_grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("penalty", ["released", "exp2", "linear", "constant"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_level_is_supcon_and_without_labels_simclr(kind, penalty):
    z, labels = batch(), torch.tensor([0, 1, 0, 2, 1, 0, 3])
    loss = HierarchicalContrastiveLoss(kind, 0.2, penalty)
    same = (labels[:, None] == labels).tolist()
    torch.testing.assert_close(loss(z, labels[:, None]), reference.supcon(z, same, 0.2), rtol=1e-12, atol=0)
    unknown = torch.full((len(z), 1), -1)
    simclr = simclr_loss_func(torch.cat(z.unbind(1)), torch.arange(len(z)).repeat(2), 0.2)
    torch.testing.assert_close(loss(z, unknown), simclr, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(z, unknown), NTXentLoss(0.2)(*z.unbind(1)), rtol=1e-12, atol=0)
    torch.testing.assert_close(grad_of(loss(z, unknown), z), grad_of(simclr, z), rtol=1e-10, atol=1e-13)


def test_a_level_without_partners_adds_nothing():
    z = batch()
    labels = torch.stack((torch.zeros(7), torch.arange(7)), dim=1).long()
    both = HierarchicalContrastiveLoss("himulcon", level_penalty=[0, 3])(z[:, :1], labels)
    assert both == 0  # single views of different images: nobody meets below the coarse level
    assert torch.equal(grad_of(both, z), torch.zeros_like(z))


def test_the_constraint_moves_the_weight_of_close_coarse_pairs_to_the_worst_fine_pair():
    angle = torch.tensor([0.0, 0.6, 0.1, 2.0], dtype=torch.float64)  # images 0 and 1 are one class, 0 and 2 one group
    z = torch.stack((angle.cos(), angle.sin()), dim=1)[:, None].requires_grad_()
    labels = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 2]])
    free = HierarchicalContrastiveLoss("himulcon", level_penalty="constant")(z, labels)
    bound = HierarchicalContrastiveLoss("hicone")(z, labels)
    assert bound > free  # the coarse pair (0, 2) is closer than the fine pair (0, 1)
    fine = HierarchicalContrastiveLoss("himulcon", level_penalty=[0, 1])(z, labels)
    toward = (grad_of(fine, z)[1] * grad_of(bound, z)[1]).sum()
    assert toward > 0 and grad_of(bound, z)[1].norm() > grad_of(fine, z)[1].norm()


def test_unknown_below_a_level_hides_what_is_given_there():
    z = batch()
    labels = torch.tensor([[0, 1, 2], [0, -1, 2], [0, 1, 2], [-1, 1, 2], [1, 0, 0], [1, 0, -1], [0, -1, 2]])
    hidden = labels.clone()
    hidden[[1, 6], 2] = -1
    hidden[3] = -1
    loss = HierarchicalContrastiveLoss()
    assert torch.equal(loss(z, labels), loss(z, hidden))
    assert loss(z, labels) != loss(z, torch.where(labels < 0, 0, labels))


@pytest.mark.parametrize("granularity", ["pair", "layer"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["identical", "zero", "opposite", "huge", "tiny", "one image", "one class"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_finite_everywhere(name, kind, granularity, dtype):
    usual = batch(8).detach().float()
    z = {
        "identical": torch.ones_like(usual),
        "zero": torch.zeros_like(usual),
        "opposite": torch.cat((usual[:4], -usual[:4])),
        "huge": usual * 1e30,
        "tiny": usual * 1e-30,
        "one image": usual[:1],
        "one class": usual,
    }[name]
    labels = torch.cat((reference.random_labels(len(z), 3), torch.arange(len(z))[:, None]), dim=1)
    labels = torch.zeros_like(labels) if name == "one class" else labels
    z = z.to(dtype).requires_grad_()
    for temperature in (0.01, 1.0):
        for rows in (z, z[:, :1]):
            loss = HierarchicalContrastiveLoss(kind, temperature, granularity=granularity)(rows, labels)
            assert loss.isfinite() and loss.dtype == torch.float32
            assert grad_of(loss, z).isfinite().all()


@pytest.mark.parametrize("granularity", ["pair", "layer"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_comes_through(kind, granularity):
    z, labels = batch().detach(), reference.random_labels(7, 3, missing=0)
    z[0] = torch.nan
    assert HierarchicalContrastiveLoss(kind, granularity=granularity)(z, labels).isnan()


def test_autocast_does_not_lower_the_precision():
    z, labels = batch(32).float(), reference.random_labels(32, 3)
    loss = HierarchicalContrastiveLoss()
    plain = loss(z, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(z, labels), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_steps_lower_it(kind):
    z, labels = batch(16), reference.random_labels(16, 3)
    loss_fn = HierarchicalContrastiveLoss(kind)
    first = loss_fn(z, labels)
    for _ in range(30):
        z = (z - 0.3 * grad_of(loss_fn(z, labels), z)).detach().requires_grad_()
    assert loss_fn(z, labels) < first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "himul"}, "kind='himul' is unknown; choose himulcon, hicone, himulcone"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"level_penalty": "pow2"}, "level_penalty='pow2' is unknown; choose released, exp2, linear, constant"),
        ({"level_penalty": [1.0]}, "must be 2 numbers of at least 0, one a level, coarse first"),
        ({"level_penalty": [1.0, -1.0]}, "must be 2 numbers"),
        ({"pairs": "all"}, "pairs='all' is unknown; choose lca, cumulative"),
        ({"granularity": "row"}, "granularity='row' is unknown; choose pair, layer"),
        ({"granularity": "layer", "pairs": "cumulative"}, "goes with pairs='lca'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalContrastiveLoss(**settings)(batch(), torch.zeros(7, 2, dtype=torch.long))


def test_wrong_shapes():
    loss = HierarchicalContrastiveLoss()
    for z, labels in (((7, 4), (7, 2)), ((7, 2, 4), (7,)), ((7, 2, 4), (6, 2)), ((7, 2, 4), (7, 0))):
        with pytest.raises(ValueError, match="expected"):
            loss(torch.ones(z), torch.zeros(labels, dtype=torch.long))
    with pytest.raises(ValueError, match="whose last column is the instance"):
        HierarchicalContrastiveLoss(granularity="layer")(torch.ones(7, 2, 4), torch.zeros(7, 1, dtype=torch.long))
