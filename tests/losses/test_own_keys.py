"""Multi-label losses of several processes, each of which compares its own rows only, as many as it has."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from solo import distributed
from solo.doctor.parity import on_processes
from solo.losses import HierarchicalContrastiveLoss

STEP = 1e-6


def derivative(kind: Any) -> list[float]:
    """Of all processes' losses together along a direction: by the gradients, and by a small step to both sides."""
    rank = distributed.rank()
    generator = torch.Generator().manual_seed(rank)
    rows = (12, 8)[rank]
    z = torch.randn(rows, 2, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (rows, 2), generator=generator)
    way = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    loss = HierarchicalContrastiveLoss(kind=kind, gather_distributed=False)
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf, labels), leaf)
    ahead, behind = (loss(z + step * way, labels) for step in (STEP, -STEP))
    return distributed.all_reduce_sum(torch.stack([(gradient * way).sum(), (ahead - behind) / (2 * STEP)])).tolist()


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["hicone", "himulcone"])
def test_the_gradient_is_that_of_all_losses(kind: str) -> None:
    for by_gradient, by_steps in on_processes(derivative, 2, kind):
        assert abs(by_steps) > 0.1
        assert by_gradient == pytest.approx(by_steps, rel=1e-4)
