"""Losses that make views of an image agree, and need no other image to push away. Each is a scalar.

Features are kept apart by a target without gradient (BYOL, SimSiam), by whitened rows (W-MSE), or by a term on those of
all processes (the others).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from solo import distributed
from solo.losses.pairs import off_diagonal, unit
from solo.precision import full_precision


def mean_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the rows of the cosine of ``a`` and ``b``, (..., D) each; a zero row has cosine 0."""
    return (unit(a) * unit(b)).sum(dim=-1).mean()


def byol_loss_func(p: Tensor, z: Tensor, simplified: bool = True) -> Tensor:
    """BYOL's loss (Grill et al., 2020), in [0, 4]: ``2 - 2 * mean cos(p, sg(z))``.

    Of predictions ``p`` (N, D) of the online network and projections ``z`` (N, D) of the momentum network.
    ``simplified`` has no effect: both of solo-learn's ways to compute it give this value.
    """
    return 2 - 2 * mean_cosine(p, z.detach())


def simsiam_loss_func(p: Tensor, z: Tensor, simplified: bool = True) -> Tensor:
    """SimSiam's loss (Chen and He, 2021), in [-1, 1]: ``-mean cos(p, sg(z))``; arguments as in `byol_loss_func`."""
    return -mean_cosine(p, z.detach())


def wmse_loss_func(z1: Tensor, z2: Tensor, simplified: bool = True) -> Tensor:
    """W-MSE's loss (Ermolov et al., 2021), in [0, 4]: ``2 - 2 * mean cos(z1, z2)`` of whitened features (N, D).

    ``simplified``: ``z2`` gets no gradient, as in solo-learn; False: both do.
    """
    return 2 - 2 * mean_cosine(z1, z2.detach() if simplified else z2)


@full_precision
def barlow_loss_func(z1: Tensor, z2: Tensor, lamb: float = 5e-3, scale_loss: float = 0.025) -> Tensor:
    """Barlow Twins' loss (Zbontar et al., 2021): the cross-correlation of two views should be the identity.

    ``scale_loss * ( sum_i (C_ii - 1)^2 + lamb * sum_{i != j} C_ij^2 )`` with ``C = z1^T z2 / N``, standardised, of the
    projections (N, D), gathered over processes with gradient; a ``ValueError`` if they are one row.
    """
    z1, z2 = distributed.gather_each(z1, z2)
    standard1, standard2 = (F.batch_norm(z, None, None, training=True, eps=1e-5) for z in (z1, z2))
    correlation = standard1.T @ standard2 / len(z1)  # (D, D)
    on = (correlation.diagonal() - 1).square().sum()
    return scale_loss * (on + lamb * off_diagonal(correlation).square().sum())


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


@full_precision
def correlation_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Sum over the two views of the squared correlations of different features, divided by ``D^2``."""
    # Columns of length 1, (D, N); a constant feature is zero and correlates with nothing.
    unit1, unit2 = (unit((z - z.mean(dim=0)).T) for z in (z1, z2))
    r1, r2 = unit1 @ unit1.T, unit2 @ unit2.T  # (D, D)
    return (off_diagonal(r1).square().sum() + off_diagonal(r2).square().sum()) / z1.shape[1] ** 2


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
    """VICReg's loss (Bardes et al., 2022): invariance, and the variance and covariance of the features, weighted.

    The views ``z1`` and ``z2``, (N, D) each, are gathered with gradient; a ``ValueError`` if that makes one row.
    """
    return weigh(z1, z2, (sim_loss_weight, var_loss_weight, cov_loss_weight), covariance_loss)


def vibcreg_loss_func(
    z1: Tensor, z2: Tensor, sim_loss_weight: float = 25.0, var_loss_weight: float = 25.0, cov_loss_weight: float = 200.0
) -> Tensor:
    """VIbCReg's loss (Lee and Aune, 2021): `vicreg_loss_func` with correlations in the place of covariances."""
    return weigh(z1, z2, (sim_loss_weight, var_loss_weight, cov_loss_weight), correlation_loss)


@full_precision
def frossl_loss_func(z: Sequence[Tensor] | Tensor, invariance_weight: float = 1.0) -> Tensor:
    """FroSSL's loss (Skean et al., 2024): views agree, and the entropy of their features' covariance is large.

    ``sum_v [ log ||C_v||_F^2 + invariance_weight * V * D * mean (u_v - u)^2 ]``: ``u_v`` are a view's embeddings with
    columns of unit length, ``u`` their mean over the views, and ``C_v`` is ``u_v^T u_v`` divided by its trace. The
    logarithm is minus the matrix-based Renyi entropy of order 2. Embeddings ``z`` (N, D) of V >= 2 views are gathered
    over processes with gradient; ``invariance_weight`` >= 0.
    """
    u = torch.stack([unit(view.T) for view in distributed.gather_each(*z)])  # (V, D, N)
    views, width, rows = u.shape
    gram = u @ u.mT if width <= rows else u.mT @ u  # both have the same norm
    traces = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    tiny = 1e-12  # of a trace of up to D: an embedding that is zero has the logarithm of 1
    entropy = (gram.square().sum(dim=(1, 2)) + tiny).log() - (traces.square() + tiny).log()
    return entropy.sum() + invariance_weight * views * width * (u - u.mean(dim=0)).square().mean(dim=(1, 2)).sum()


@full_precision
def sigreg(z: Tensor, directions: Tensor, t_max: float = 3.0, points: int = 17) -> Tensor:
    """Sketched isotropic Gaussian regularization: mean over views and slices of Epps and Pulley's statistic.

    ``n * integral_{-t_max}^{t_max} |mean_j exp(i t x_j) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt``, by the trapezoidal rule
    of ``points`` for the half that starts at 0, where ``x`` are the ``n`` embeddings of all processes along a slice.
    ``z`` is (V, N, D) of V views, ``directions`` (D, K) of any length, the same on all processes.
    """
    x = z @ F.normalize(directions, dim=0)  # (V, N, K)
    count = distributed.world_size() * x.shape[1]
    t = torch.linspace(0, t_max, points, dtype=x.dtype, device=x.device)
    angles = x[..., None] * t  # (V, N, K, points)
    sums = torch.stack((angles.cos().sum(dim=1), angles.sin().sum(dim=1)))
    real, imaginary = distributed.sum_with_grad(sums) / count
    gaussian = (-(t**2) / 2).exp()
    error = ((real - gaussian).square() + imaginary.square()) * gaussian
    return 2 * count * torch.trapezoid(error, t).mean()


@full_precision
def lejepa_loss_func(
    z: Sequence[Tensor] | Tensor, directions: Tensor, lamb: float = 0.05, num_large_crops: int = 2
) -> Tensor:
    """LeJEPA's loss (Balestriero and LeCun, 2025): views agree, and embeddings look Gaussian from every side.

    ``(1 - lamb) * mean (z_v - c)^2 + lamb * SIGReg(z)``, where ``c`` is an image's mean over its large views, the first
    ``num_large_crops`` of the embeddings ``z`` (N, D) of V views; ``directions`` are those of `sigreg`, lamb is 0 to 1.
    """
    views = z if isinstance(z, Tensor) else torch.stack(tuple(z))
    centre = views[:num_large_crops].mean(dim=0)
    return (1 - lamb) * (views - centre).square().mean() + lamb * sigreg(views, directions)
