"""Uniformity, alignment and spread against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from solo.eval import embedding as module
from solo.eval.embedding import alignment, embedding_std, uniformity


def _unit(features: Tensor) -> np.ndarray:
    z = features.double().numpy()
    return z / np.linalg.norm(z, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 4, 2048])
@pytest.mark.parametrize("t", [2.0, 0.5])
def test_uniformity_is_its_formula(block: int, t: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    features = torch.randn(11, 5, dtype=torch.float64)
    z = _unit(features)
    potentials = [
        math.exp(-t * float(((z[i] - z[j]) ** 2).sum())) for i in range(len(z)) for j in range(len(z)) if i != j
    ]
    assert uniformity(features, t) == pytest.approx(math.log(sum(potentials) / len(potentials)), rel=1e-9)


@pytest.mark.parametrize("power", [2.0, 1.0])
def test_alignment_is_its_formula(power: float) -> None:
    a, b = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    distances = np.linalg.norm(_unit(a) - _unit(b), axis=1) ** power
    assert alignment(a, b, power) == pytest.approx(distances.mean(), rel=1e-9)
    assert alignment(a, a) == 0.0 and alignment(a, -a) == pytest.approx(4.0)


def test_std_is_its_formula_and_one_for_even_rows() -> None:
    features = torch.randn(13, 6, dtype=torch.float64)
    assert embedding_std(features) == pytest.approx(_unit(features).std(axis=0).mean() * math.sqrt(6), rel=1e-9)
    assert embedding_std(torch.randn(4000, 64)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_collapsed_model(dtype: torch.dtype) -> None:
    rows = torch.randn(1, 16).repeat(50, 1).to(dtype)
    assert uniformity(rows) == pytest.approx(0, abs=1e-5) and embedding_std(rows) == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.randn(300, 64)) < -3.5


def test_what_is_not_finite_gives_nan() -> None:
    rows = torch.randn(5, 3)
    rows[1, 1] = math.nan
    assert all(math.isnan(value) for value in (uniformity(rows), alignment(rows, rows), embedding_std(rows)))


def test_shapes_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two rows"):
        uniformity(torch.randn(1, 3))
    with pytest.raises(ValueError, match="two views"):
        alignment(torch.randn(4, 3), torch.randn(5, 3))
    with pytest.raises(ValueError, match="at least one row"):
        embedding_std(torch.zeros(0, 3))
