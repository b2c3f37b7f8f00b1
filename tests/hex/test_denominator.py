"""HEX as the denominator of the multi-label losses, and hierarchy negatives named by labels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from solo.args.schema import HexCfg
from solo.hex import AdaptivePercentile, FixedThreshold, HEXLoss, Superclass, WithNamed
from solo.hex.objective import Hex, Step
from solo.hex.policy import Constant
from solo.losses import HierarchicalContrastiveLoss, Pairs, hierarchical_contrastive_loss
from solo.losses import pairs as pairs_module
from tests.losses import hierarchical_reference as reference

IMAGES = 8
LABELS = torch.tensor([[0, 0], [0, 0], [0, 1], [0, -1], [1, 2], [1, 2], [-1, -1], [-1, -1]])
NOTHING = torch.full((IMAGES, 2), -1)
POLICY = AdaptivePercentile(0.7, warm_epoch=0)


def views(seed=0):
    torch.manual_seed(seed)
    return torch.randn(2 * IMAGES, 4, dtype=torch.float64, requires_grad=True)


def loss_of(z, labels, policy=POLICY, beta=1.0, tau_plus=0.1, kind="himulcone", epoch=0):
    plug = Hex(HexCfg(policy="adaptive", beta=beta, tau_plus=tau_plus), 0.3)
    plug.policy = policy
    pairs = Pairs.from_views(z.chunk(2), groups=labels[:, 0])
    denominator = plug.denominator(pairs, Step(epoch, 1))
    loss = hierarchical_contrastive_loss(pairs, labels.repeat(2, 1), kind, 0.3, denominator=denominator)
    return SimpleNamespace(loss=loss, stats=plug.stats)


def grad_of(loss, z):
    return torch.autograd.grad(loss, z, retain_graph=True)[0]


@pytest.mark.parametrize("tau_plus", [0.0, 0.1])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_rows_without_labels_have_the_hex_loss(beta, tau_plus):
    z = views()
    ours = loss_of(z, NOTHING[:, :1], beta=beta, tau_plus=tau_plus).loss
    hex_loss = HEXLoss(0.3, POLICY, beta, tau_plus)(*z.chunk(2))
    torch.testing.assert_close(ours, hex_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(grad_of(ours, z), grad_of(hex_loss, z), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["himulcon", "hicone", "himulcone"])
def test_without_weights_it_is_the_multi_label_loss(kind):
    z = views()
    plain = HierarchicalContrastiveLoss(kind, 0.3)(torch.stack(z.chunk(2), dim=1), LABELS)
    for ours in (
        loss_of(z, LABELS, beta=0.0, tau_plus=0.0, kind=kind),
        loss_of(z, LABELS, policy=AdaptivePercentile(0.7, warm_epoch=1), kind=kind),  # warm-up
        loss_of(z, LABELS, policy=FixedThreshold(Constant(1.0), "cosine"), kind=kind),  # nobody is above
    ):
        torch.testing.assert_close(ours.loss, plain, rtol=1e-12, atol=0)
        torch.testing.assert_close(grad_of(ours.loss, z), grad_of(plain, z), rtol=1e-9, atol=1e-12)


def test_equals_the_loops():
    z = views()
    ours = loss_of(z, LABELS, WithNamed(POLICY), kind="himulcon").loss
    expected = reference.hex_himulcon(torch.stack(z.chunk(2), dim=1), LABELS, 0.3, 0.7, beta=1.0, tau_plus=0.1)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(grad_of(ours, z), grad_of(expected, z), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["himulcon", "himulcone"])
def test_gradcheck(kind):
    assert torch.autograd.gradcheck(lambda z: loss_of(z, LABELS, kind=kind).loss, views())


def test_blocks_change_nothing(monkeypatch):
    z = views()
    whole = loss_of(z, LABELS, WithNamed(POLICY))
    monkeypatch.setitem(pairs_module.BLOCK_ELEMENTS, "cpu", 48)
    blocks = loss_of(z, LABELS, WithNamed(POLICY))
    torch.testing.assert_close(blocks.loss, whole.loss, rtol=1e-13, atol=0)
    torch.testing.assert_close(grad_of(blocks.loss, z), grad_of(whole.loss, z), rtol=1e-10, atol=1e-13)
    for name, value in whole.stats.items():
        torch.testing.assert_close(blocks.stats[name], value, msg=name)


@pytest.mark.parametrize("rows", ["identical", "zero", "opposite"])
def test_finite_everywhere(rows):
    usual = views().detach()
    z = {"identical": torch.ones_like(usual), "zero": 0 * usual, "opposite": torch.cat((usual[:8], -usual[:8]))}[rows]
    for policy in (WithNamed(POLICY), FixedThreshold(Constant(0.5)), Superclass()):
        for dtype in (torch.bfloat16, torch.float32):
            x = z.to(dtype).requires_grad_()
            loss = loss_of(x, LABELS, policy).loss
            assert loss.isfinite() and grad_of(loss, x).isfinite().all()


def test_named_is_the_union_of_labels_and_emergence():
    z = views().detach()
    pairs = Pairs.from_views(z.chunk(2), groups=LABELS[:, 0])
    similarity, rows = pairs.similarity(slice(None)), slice(0, len(z))
    chosen = {
        policy: policy.selector(pairs, 0, 1)(similarity, rows) for policy in (POLICY, Superclass(), WithNamed(POLICY))
    }
    emergent, named, both = chosen.values()
    assert torch.equal(both, emergent | named) and emergent.any() and (named & ~emergent).any()
    assert torch.equal(both[6], emergent[6])  # an image without labels has what emerges
    assert WithNamed(AdaptivePercentile(warm_epoch=3)).selector(pairs, 2, 9) is None
    assert WithNamed(POLICY).selector(pairs, 0, 1).threshold == POLICY.selector(pairs, 0, 1).threshold
