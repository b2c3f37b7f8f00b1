"""LeJEPA's loss (Balestriero and LeCun, 2025): views agree, and their embeddings look Gaussian from every side."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from solo import distributed
from solo.losses.numerics import full_precision


@full_precision
def sigreg(z: Tensor, directions: Tensor, t_max: float = 3.0, points: int = 17) -> Tensor:
    """Sketched isotropic Gaussian regularization: mean over views and slices of Epps and Pulley's statistic.

    ``n * integral_{-t_max}^{t_max} |mean_j exp(i t x_j) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt``, by the trapezoidal rule,
    where ``x`` are the ``n`` embeddings of all processes along a slice.

    Args:
        z: (V, N, D) embeddings of V views.
        directions: (D, K) of the slices, of any length; the same on all processes.
        t_max: where the integral ends, > 0.
        points: of the rule, for the half that starts at 0, >= 2; the other half is the same.
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
    """``(1 - lamb) * mean (z_v - c)^2 + lamb * SIGReg(z)``, where ``c`` is an image's mean over its large views.

    Args:
        z: embeddings (N, D) of V views, large ones first.
        directions: (D, K), see `sigreg`.
        lamb: weight of SIGReg, 0 to 1.
        num_large_crops: how many of the views are large.
    """
    views = z if isinstance(z, Tensor) else torch.stack(tuple(z))
    centre = views[:num_large_crops].mean(dim=0)
    return (1 - lamb) * (views - centre).square().mean() + lamb * sigreg(views, directions)
