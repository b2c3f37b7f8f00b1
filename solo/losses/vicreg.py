"""VICReg's loss (Bardes et al., 2022): invariance, and the variance and covariance of the features."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from solo import distributed
from solo.losses.numerics import full_precision, off_diagonal


@full_precision
def invariance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean squared difference of the two views, (N, D) each."""
    return F.mse_loss(z1, z2)


@full_precision
def variance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Sum over the two views of ``mean_d relu(1 - sqrt(var_d + 1e-4))``, with the unbiased variance of N >= 2 rows."""
    std1, std2 = ((z.var(dim=0) + 1e-4).sqrt() for z in (z1, z2))
    return F.relu(1 - std1).mean() + F.relu(1 - std2).mean()


@full_precision
def covariance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Sum over the two views of ``1/D * sum_{i != j} Cov_ij^2``, with the unbiased covariance of N >= 2 rows."""
    centred1, centred2 = (z - z.mean(dim=0) for z in (z1, z2))
    cov1, cov2 = (z.T @ z / (len(z) - 1) for z in (centred1, centred2))  # (D, D)
    return (off_diagonal(cov1).square().sum() + off_diagonal(cov2).square().sum()) / z1.shape[1]


def weigh(
    z1: Tensor,
    z2: Tensor,
    weights: Sequence[float],
    covariance: Callable[[Tensor, Tensor], Tensor],
    whiten: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``sim * invariance + var * variance + cov * covariance`` of the rows of all processes, whitened if wanted."""
    z1, z2 = distributed.gather_each(z1, z2)
    if len(z1) < 2:
        raise ValueError("a batch of 1 row has no variance: use 2 at least")
    if whiten is not None:
        z1, z2 = whiten(z1), whiten(z2)
    return weights[0] * invariance_loss(z1, z2) + weights[1] * variance_loss(z1, z2) + weights[2] * covariance(z1, z2)


def vicreg_loss_func(
    z1: Tensor, z2: Tensor, sim_loss_weight: float = 25.0, var_loss_weight: float = 25.0, cov_loss_weight: float = 1.0
) -> Tensor:
    """Weighted sum of the three terms for the views ``z1`` and ``z2``, (N, D) each, gathered with gradient.

    Raises:
        ValueError: if the batch of all processes is one row.
    """
    return weigh(z1, z2, (sim_loss_weight, var_loss_weight, cov_loss_weight), covariance_loss)
