"""Rank measures against direct float64 computations, and on features whose rank is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from solo.eval import embedding
from solo.eval.embedding import effective_rank, entropy_rank, lidar, power_law, rankme, spectrum

SHAPES = [(50, 7), (7, 50), (1, 4), (12, 12)]


def alpha_req(features: Tensor) -> float:
    return power_law(spectrum(features, center=True).square())


def _features(rows: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -2, width, dtype=torch.float64)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) * scales + 0.3


def _singular(features: Tensor, center: bool) -> np.ndarray:
    z = features.numpy()
    return np.linalg.svd(z - z.mean(axis=0) if center else z, compute_uv=False)


def _exp_entropy(weights: np.ndarray, epsilon: float = 0.0) -> float:
    entropy = 0.0
    for weight in weights:
        share = weight / weights.sum() + epsilon
        entropy -= share * math.log(share) if share > 0 else 0.0
    return math.exp(entropy)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk", [3, 4096])
def test_spectrum_is_that_of_a_decomposition(
    shape: tuple[int, int], center: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "CHUNK", chunk)
    features = _features(*shape)
    np.testing.assert_allclose(spectrum(features, center).numpy(), _singular(features, center), atol=1e-6)


@pytest.mark.parametrize("shape", [(50, 7), (7, 50)])
def test_measures_are_their_formulas(shape: tuple[int, int]) -> None:
    features = _features(*shape)
    plain, centred = _singular(features, False), _singular(features, True)
    centred = centred[centred > 1e-9 * centred[0]]
    assert rankme(features) == pytest.approx(_exp_entropy(plain, 1e-7), rel=1e-5)
    assert effective_rank(features, center=False) == pytest.approx(_exp_entropy(plain), rel=1e-5)
    assert effective_rank(features) == pytest.approx(_exp_entropy(centred), rel=1e-5)


def test_alpha_is_a_weighted_least_squares_line() -> None:
    features = _features(60, 9)
    values = _singular(features, True) ** 2
    j = np.arange(1, 10)
    slope, _ = np.polyfit(np.log(j), np.log(values), 1, w=np.sqrt(1 / j))
    assert alpha_req(features) == pytest.approx(-slope, rel=1e-6)


def test_alpha_of_a_known_power_law() -> None:
    basis, _ = torch.linalg.qr(torch.randn(400, 40, dtype=torch.float64))
    basis, _ = torch.linalg.qr(basis - basis.mean(dim=0))
    features = basis * torch.arange(1, 41, dtype=torch.float64).pow(-0.6)
    assert alpha_req(features) == pytest.approx(1.2, rel=1e-6)


def test_known_ranks() -> None:
    basis, _ = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64))
    features = torch.cat([basis[:5], -basis[:5]])  # five directions, equally strong, mean 0
    for dtype in (torch.float64, torch.float32):
        assert effective_rank(features.to(dtype)) == pytest.approx(5, rel=1e-4)
    assert rankme(features) == pytest.approx(5, rel=1e-3)
    shifted = features + 100.0  # an offset that all share is no direction of the centred ones
    assert effective_rank(shifted) == pytest.approx(5, rel=1e-3) and rankme(shifted) < 1.2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_one_point_has_no_rank_even_up_to_rounding(dtype: torch.dtype) -> None:
    point = torch.randn(1, 32, dtype=torch.float64)
    equal = point.repeat(100, 1)
    wobble = (equal * (1 + 0.2 * torch.finfo(dtype).eps * torch.randn(100, 32))).to(dtype)
    for features in (equal.to(dtype), wobble):
        assert effective_rank(features) <= 1.0
        assert rankme(features) == pytest.approx(1, abs=0.01 if dtype.itemsize > 2 else 0.1)  # rounding is in it
        assert lidar(features.view(50, 2, 32)) <= 1.0
    assert effective_rank(torch.zeros(5, 3)) == rankme(torch.zeros(5, 3)) == 0.0


@pytest.mark.fault(6, "effective rank of bf16 features", "that of float32")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weak_directions_count_in_half_precision_too(dtype: torch.dtype) -> None:
    basis, _ = torch.linalg.qr(torch.randn(400, 64))
    features = (basis * torch.arange(1, 65) ** -1.5).to(dtype)
    for measure in (effective_rank, rankme, alpha_req):
        assert measure(features) == measure(features.float())
    views = features.view(200, 2, 64)
    assert lidar(views) == lidar(views.float())


def test_half_precision_is_close_to_full() -> None:
    features = torch.randn(300, 16)
    for dtype in (torch.bfloat16, torch.float16):
        assert effective_rank(features.to(dtype)) == pytest.approx(effective_rank(features), rel=1e-2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_gives_nan(value: float) -> None:
    features = torch.randn(20, 4)
    features[3, 2] = value
    for measure in (rankme, effective_rank, alpha_req):
        assert math.isnan(measure(features))
    assert math.isnan(lidar(features.view(10, 2, 4)))


def test_huge_and_tiny_features_keep_their_rank() -> None:
    features = torch.randn(40, 6, dtype=torch.float64)
    for scale in (1e120, 1e-120):
        assert effective_rank(features * scale) == pytest.approx(effective_rank(features), rel=1e-6)


def _lidar_reference(features: Tensor, delta: float, epsilon: float) -> float:
    z = features.double().numpy()
    n, q, width = z.shape
    between, within = np.zeros((width, width)), np.zeros((width, width))
    for i in range(n):
        away = z[i].mean(axis=0) - z.mean(axis=(0, 1))
        between += np.outer(away, away) / (n - 1)
        for v in range(q):
            spread = z[i, v] - z[i].mean(axis=0)
            within += np.outer(spread, spread) / (n * (q - 1))
    within += delta * np.eye(width)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    eigenvalues = np.clip(np.linalg.eigvalsh(root @ between @ root), 0, None)
    return _exp_entropy(eigenvalues, epsilon)


@pytest.mark.parametrize(("n", "q", "width"), [(30, 2, 6), (4, 5, 9), (2, 2, 3)])
@pytest.mark.parametrize("chunk", [4, 4096])
def test_lidar_is_its_formula(n: int, q: int, width: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "CHUNK", chunk)
    views = _features(n, width)[:, None] + 0.1 * torch.randn(n, q, width, dtype=torch.float64)
    for delta in (1e-4, 1e-2):
        assert lidar(views, delta) == pytest.approx(_lidar_reference(views, delta, 1e-7), rel=1e-4)


def test_lidar_counts_what_tells_images_apart() -> None:
    images = torch.zeros(200, 1, 10, dtype=torch.float64)
    images[:, 0, :3] = torch.randn(200, 3, dtype=torch.float64)
    views = images + torch.randn(200, 40, 10, dtype=torch.float64) * torch.tensor([0.1] * 3 + [5.0] * 7).double()
    assert 2 < lidar(views) < 3.5 < effective_rank(views.flatten(end_dim=1))  # loud noise is no information


def test_shapes_that_mean_nothing_are_refused() -> None:
    for features in (torch.zeros(0, 3), torch.zeros(3), torch.zeros(3, 0)):
        with pytest.raises(ValueError, match=r"expected features \(N, D\)"):
            spectrum(features)
    for views in (torch.zeros(1, 2, 3), torch.zeros(4, 1, 3), torch.zeros(4, 3)):
        with pytest.raises(ValueError, match="LiDAR compares views"):
            lidar(views)
    assert math.isnan(alpha_req(torch.randn(2, 3)))  # one eigenvalue makes no line


def test_entropy_rank_bounds() -> None:
    assert entropy_rank(torch.ones(7)) == pytest.approx(7)
    assert entropy_rank(torch.tensor([3.0, 0, 0])) == 1.0 and entropy_rank(torch.zeros(3)) == 0.0
