"""Metric-guided prototypes and flat cross-entropy: against loops, their gradients, limits and errors."""

from __future__ import annotations

import pytest
import torch

from solo.losses import GuidedLoss, cross_entropy_loss_func, distortion_loss_func

# Two groups of two classes.
TREE = torch.tensor([[0.0, 2, 4, 4], [2, 0, 4, 4], [4, 4, 0, 2], [4, 4, 2, 0]], dtype=torch.float64)


def prototypes(seed=0):
    torch.manual_seed(seed)
    return torch.randn(4, 3, dtype=torch.float64, requires_grad=True)


def distortion_by_loops(points, tree):
    pairs = [(k, c) for k in range(len(points)) for c in range(len(points)) if k != c]
    ratio = [(points[k] - points[c]).pow(2).sum().sqrt() / tree[k, c] for k, c in pairs]
    scale = sum(ratio) / sum(r**2 for r in ratio)
    return sum((scale * r - 1) ** 2 for r in ratio) / len(ratio)


def test_distortion_equals_the_loops():
    points = prototypes()
    ours, expected = distortion_loss_func(points, TREE), distortion_by_loops(points, TREE)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    grads = (torch.autograd.grad(loss, points)[0] for loss in (ours, expected))
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda p: distortion_loss_func(p, TREE), points)


def test_the_scale_is_the_best_one():
    points = prototypes()
    best = distortion_loss_func(points, TREE)
    assert distortion_loss_func(3 * points, TREE).item() == pytest.approx(best.item(), rel=1e-12)
    ratio = torch.cdist(points, points)[TREE > 0] / TREE[TREE > 0]
    for scale in torch.linspace(0.1, 3, 30):
        assert ((scale * ratio - 1) ** 2).mean() >= best


def test_distances_of_the_tree_have_no_distortion():
    corner = torch.tensor([[1.0, 0, 0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0]])  # sqrt(2) between groups
    tree = torch.cdist(corner, corner)
    assert distortion_loss_func(corner, tree) == pytest.approx(0, abs=1e-6)


def test_loss_by_loops_leaves_unknown_rows_out():
    torch.manual_seed(1)
    module = GuidedLoss(TREE, 3, weight=0.5).double()
    z, targets = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), torch.tensor([0, 3, -1, 1, -1])
    terms = []
    for row, target in zip(z, targets, strict=True):
        near = torch.stack([-(row - p).pow(2).sum().sqrt() for p in module.prototypes])
        terms += [torch.logsumexp(near, 0) - near[target]] if target >= 0 else []
    expected = sum(terms) / len(terms) + 0.5 * distortion_by_loops(module.prototypes, TREE)
    torch.testing.assert_close(module(z, targets), expected, rtol=1e-12, atol=0)
    (grad,) = torch.autograd.grad(module(z, targets), z)
    assert (grad[targets < 0] == 0).all() and (grad[targets >= 0].norm(dim=1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_finite_everywhere(dtype):
    module = GuidedLoss(TREE.float(), 3)
    for z in (torch.zeros(4, 3), module.prototypes.detach().clone(), torch.randn(4, 3) * 1e4):
        x = z.to(dtype).requires_grad_()
        loss = module(x, torch.arange(4))
        loss.backward()
        assert loss.isfinite() and x.grad.isfinite().all()
    same = torch.ones(4, 3, requires_grad=True)
    distortion_loss_func(same, TREE).backward()
    assert same.grad.isfinite().all()


def test_no_label_at_all_is_zero():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = cross_entropy_loss_func(logits, torch.full((3,), -1))
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"expected distances \(C, C\)"):
        GuidedLoss(torch.zeros(3, 3), 2)
    with pytest.raises(ValueError, match=r"expected distances \(C, C\)"):
        GuidedLoss(torch.ones(3, 2), 2)
    with pytest.raises(ValueError, match="weight must be at least 0"):
        GuidedLoss(TREE, 2, weight=-1)
