from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solo.errors import UserError
from solo.nn.networks import IterNorm, Whitening2d


def rows(n: int = 40, d: int = 6) -> Tensor:
    """Correlated rows in float64."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.eye(d, dtype=torch.float64) + 0.3 * torch.randn(d, d, dtype=torch.float64, generator=generator)
    return torch.randn(n, d, dtype=torch.float64, generator=generator) @ mixing + 3


def covariance(x: Tensor, minus: int) -> Tensor:
    means = [sum(column) / len(x) for column in x.T]
    entries = [
        [sum((row[i] - means[i]) * (row[j] - means[j]) for row in x) / (len(x) - minus) for j in range(len(means))]
        for i in range(len(means))
    ]
    return torch.tensor(entries, dtype=x.dtype)


def test_cholesky_whitens_and_is_triangular() -> None:
    x = rows()
    white = Whitening2d(6)(x)
    torch.testing.assert_close(covariance(white, 1), torch.eye(6, dtype=x.dtype))
    expected = (x[:, 0] - x[:, 0].mean()) / x[:, 0].std()  # the first one depends on the first one only
    torch.testing.assert_close(white[:, 0], expected)


def test_eps_shrinks_the_covariance_to_the_identity() -> None:
    x = rows(4)  # fewer rows than features
    with pytest.raises(UserError, match="4 rows of 6 features.*whitening_eps"):
        Whitening2d(6)(x)
    shrunk = 0.8 * covariance(x, 1) + 0.2 * torch.eye(6, dtype=x.dtype)
    factor = torch.linalg.cholesky(shrunk)
    torch.testing.assert_close(Whitening2d(6, eps=0.2)(x) @ factor.T, x - x.mean(dim=0))
    torch.testing.assert_close(Whitening2d(6, eps=1.0)(x), x - x.mean(dim=0))


def test_iterations_converge_to_the_inverse_root_within_groups() -> None:
    x = rows(200)
    norm = IterNorm(6, num_groups=2, T=14, eps=0.0).double()
    white = norm(x)
    for group in (slice(0, 3), slice(3, 6)):
        values, vectors = torch.linalg.eigh(covariance(x[:, group], 0))
        root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        torch.testing.assert_close(white[:, group], (x[:, group] - x[:, group].mean(dim=0)) @ root, atol=1e-6, rtol=0)


def test_few_iterations_against_a_loop_and_the_running_statistics() -> None:
    x = rows(50, 4)
    norm = IterNorm(4, num_groups=1, T=3, momentum=0.25).double()
    sigma = covariance(x, 0) + 1e-5 * torch.eye(4)
    trace = sum(sigma[i, i] for i in range(4))
    p = torch.eye(4, dtype=x.dtype)
    for _ in range(3):
        p = (3 * p - p @ p @ p @ sigma / trace) / 2
    wm, mean = p / trace**0.5, x.mean(dim=0)
    torch.testing.assert_close(norm(x), (x - mean) @ wm.T)
    torch.testing.assert_close(norm.running_mean[0, :, 0], 0.25 * mean)
    torch.testing.assert_close(norm.running_wm[0], 0.75 * torch.eye(4, dtype=x.dtype) + 0.25 * wm)
    torch.testing.assert_close(norm.eval()(x), (x - norm.running_mean[0, :, 0]) @ norm.running_wm[0].T)


def test_shapes() -> None:
    norm = IterNorm(6, num_channels=4, dim=4)  # 4 doesn't divide 6, 2 does
    assert (norm.num_groups, norm.num_channels, norm.weight.shape) == (3, 2, (1, 6, 1, 1))
    assert IterNorm(256).running_wm.shape == (64, 4, 4) and IterNorm(6, affine=False).weight is None
    images = torch.randn(5, 6, 3, 2)
    flat = IterNorm(6, num_channels=2)(images.permute(0, 2, 3, 1).reshape(-1, 6))
    torch.testing.assert_close(norm(images), flat.reshape(5, 3, 2, 6).permute(0, 3, 1, 2))
