"""How evenly unit features fill the sphere, how close the views of one image are, and whether anything varies at all.

Wang, Isola: Understanding contrastive representation learning through alignment and uniformity on the hypersphere
(ICML 2020), https://arxiv.org/abs/2005.10242. Rows are scaled to length 1 here; a zero row stays zero.
"""

import math

import torch
from torch import Tensor

from solo.eval.rows import draw, unit_rows

BLOCK = 2048  # rows and columns of the similarities held at once


@torch.no_grad()
def uniformity(features: Tensor, t: float = 2.0, *, max_anchors: int = 10_000, seed: int = 0) -> float:
    """Uniformity: log of the mean Gaussian potential exp(-t |x - y|^2) over pairs of different rows (equation 4).

    Of rows (N, D), N >= 2: 0 (all point the same way) down to about -2 t (evenly spread in many dimensions). With more
    rows, `max_anchors` of them are drawn; each is still compared with all others.

    Raises:
        ValueError: if there are fewer than two rows.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"uniformity compares at least two rows (N, D), got {tuple(features.shape)}")
    z = unit_rows(features)
    anchors = draw(len(z), max_anchors, seed).to(z.device)
    total = torch.zeros((), dtype=torch.float64)
    for rows in torch.split(anchors, BLOCK):
        for column in range(0, len(z), BLOCK):
            # |x - y|^2 = 2 - 2 cos; from the cosines, so that no difference is stored.
            potential = (z[rows] @ z[column : column + BLOCK].T).sub_(1).mul_(2 * t).exp_()
            total += potential.sum(dim=1).sum(dtype=torch.float64).cpu()
    # A row meets itself once, with the potential of its own length: 1, or exp(-2 t) for a zero row.
    own = (z[anchors].square().sum(dim=1) - 1).mul(2 * t).exp().sum(dtype=torch.float64)
    mean = (total - own.cpu()) / (len(anchors) * (len(z) - 1))
    return math.log(float(mean)) if bool(mean > 0) else math.nan


@torch.no_grad()
def alignment(a: Tensor, b: Tensor, power: float = 2.0) -> float:
    """Alignment: mean of |x - y|^2 over the views (N, D) of each image (equation 3), 0 (they coincide) to 4.

    Raises:
        ValueError: if the shapes differ or there is no row.
    """
    if a.shape != b.shape or a.ndim != 2 or len(a) == 0:
        raise ValueError(f"alignment needs two views (N, D) of the same images, got {tuple(a.shape)}, {tuple(b.shape)}")
    return float((unit_rows(a) - unit_rows(b)).norm(dim=1).double().pow(power).mean())


@torch.no_grad()
def embedding_std(features: Tensor) -> float:
    """Mean over the dimensions of the standard deviation of unit rows, times sqrt(D).

    Chen, He: Exploring simple Siamese representation learning (CVPR 2021), section 4.1 and figure 2, where 1 / sqrt(D)
    is the value of rows spread evenly: the factor makes that 1 for every width.

    Raises:
        ValueError: if there is no row.
    """
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"expected features (N, D) with at least one row, got {tuple(features.shape)}")
    sums = torch.zeros(2, features.shape[1], dtype=torch.float64)
    for part in torch.split(unit_rows(features), BLOCK):
        rows = part.cpu().double()
        sums += torch.stack([rows.sum(dim=0), rows.square().sum(dim=0)])
    mean, square = sums / len(features)
    return float((square - mean.square()).clamp(min=0).sqrt().mean() * math.sqrt(features.shape[1]))
