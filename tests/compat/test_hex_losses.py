"""The HEX fork's function names, against loops over pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from solo.losses.nnclr import nnclr_loss_func
from solo.losses.simclr import simclr_loss_func
from torch import Tensor
from torch.nn import functional as F

from solo import losses

N, TAU = 6, 0.3
TOP = 0.9  # share of the way from a row's lowest cosine to 1


def hex_by_loops(s: Tensor, positive: list[int], chosen: Tensor, beta: float, tau_plus: float, diagonal: bool) -> float:
    """The loss of rows of cosines; `chosen` are candidates for hierarchy negatives."""
    total = 0.0
    for i in range(len(s)):
        p = positive[i]
        negatives = [j for j in range(s.shape[1]) if j != p and not (diagonal and j == i)]
        local = [j for j in negatives if chosen[i, j]]
        x = [float(value) / TAU for value in s[i]]
        far = sum(math.exp(x[j]) for j in negatives if j not in local)
        near = 0.0
        if local:
            mean = sum(math.exp(beta * x[j]) for j in local) / len(local)
            near = sum(math.exp(beta * x[j]) / mean * math.exp(x[j]) for j in local)
            near = (near - tau_plus * len(local) * math.exp(x[p])) / (1 - tau_plus)
            near = max(near, len(local) * math.exp(-1 / TAU))
        total -= math.log(math.exp(x[p]) / (math.exp(x[p]) + far + near))
    return total / len(s)


def scaled(s: Tensor) -> Tensor:
    lowest = s.amin(dim=1, keepdim=True)
    return (s - lowest) / (1 - lowest)


def above_quantile(s: Tensor) -> Tensor:
    return s > torch.quantile(s, 0.99, dim=1, interpolation="nearest").mean()


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    a, b = torch.randn(2, N, 3, dtype=torch.float64)
    return a, b


def test_two_views(rows: tuple[Tensor, Tensor]) -> None:
    z = torch.cat(rows)
    s = F.normalize(z, dim=1) @ F.normalize(z, dim=1).T
    positive = [(i + N) % (2 * N) for i in range(2 * N)]
    groups = torch.tensor([0, 0, 1, 1, -1, -1])
    same = (groups[:, None] == groups) & (groups[:, None] >= 0)
    cases: list[tuple[str, Tensor, dict[str, Any], float, float]] = [
        ("hex_fixed", scaled(s) > TOP, {"distance_thresh": TOP, "beta": 2, "tau_plus": 0.05}, 2, 0.05),
        ("hex_adaptive", above_quantile(s), {"beta": 0.5, "tau_plus": 0.0}, 0.5, 0.0),
        ("superclass", same.repeat(2, 2), {"indexes_super": groups}, 1, 0.1),
    ]
    for name, chosen, kwargs, beta, tau_plus in cases:
        loss = getattr(losses, f"simclr_loss_func_{name}")(z, torch.arange(N), temperature=TAU, **kwargs)
        assert float(loss) == pytest.approx(hex_by_loops(s, positive, chosen, beta, tau_plus, True)), name
    repeated = losses.simclr_loss_func_superclass(z, None, groups.repeat(2), TAU)
    torch.testing.assert_close(loss, repeated)
    nothing = losses.simclr_loss_func_hex_fixed(z, temperature=TAU, distance_thresh=1.0)
    torch.testing.assert_close(nothing, simclr_loss_func(z, torch.arange(N).repeat(2), TAU))


def test_neighbours_and_predictions(rows: tuple[Tensor, Tensor]) -> None:
    nn, p = rows
    s = F.normalize(nn, dim=1) @ F.normalize(p, dim=1).T
    groups = torch.tensor([0, 0, 1, 1, -1, -1])
    same = (groups[:, None] == groups) & (groups[:, None] >= 0)
    cases: list[tuple[str, Tensor, dict[str, Any]]] = [
        ("hard_decompose", scaled(s) > 0.7, {"distance_thresh": 0.7}),
        ("decompose_adaptive", s > 0.9, {"current_epoch": 10}),
        ("decompose_adaptive", above_quantile(s), {"current_epoch": 11}),
        ("superclass", same, {"indexes_super": groups}),
    ]
    for name, chosen, kwargs in cases:
        loss = getattr(losses, f"nnclr_loss_func_{name}")(nn, p, temperature=TAU, **kwargs)
        assert float(loss) == pytest.approx(hex_by_loops(s, list(range(N)), chosen, 1, 0.1, False)), (name, kwargs)
    nothing = losses.nnclr_loss_func_hard_decompose(nn, p, TAU, distance_thresh=1.0)
    torch.testing.assert_close(nothing, nnclr_loss_func(nn, p, TAU))


def test_the_variant_can_be_chosen_and_other_names_are_unknown(rows: tuple[Tensor, Tensor]) -> None:
    z = torch.cat(rows)
    both = [
        losses.simclr_loss_func_hex_fixed(z, temperature=TAU, distance_thresh=0.5, variant=v)
        for v in ("reweight", "release")
    ]
    assert not torch.allclose(*both)
    with pytest.raises(AttributeError, match="simclr_loss_func_decompose"):
        losses.simclr_loss_func_decompose  # noqa: B018
