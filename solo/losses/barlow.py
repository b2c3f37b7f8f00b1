"""Barlow Twins' loss (Zbontar et al., 2021): the cross-correlation of two views should be the identity."""

import torch.nn.functional as F
from torch import Tensor

from solo import distributed
from solo.losses.numerics import full_precision, off_diagonal


@full_precision
def barlow_loss_func(z1: Tensor, z2: Tensor, lamb: float = 5e-3, scale_loss: float = 0.025) -> Tensor:
    """``scale_loss * ( sum_i (C_ii - 1)^2 + lamb * sum_{i != j} C_ij^2 )`` with ``C = z1^T z2 / N``, standardised.

    Args:
        z1: (N, D) projections of the first view; gathered over processes with gradient, so that the statistics and
            the correlation are those of the whole batch.
        z2: (N, D) projections of the second view.
        lamb: weight of the redundancy term.
        scale_loss: factor on the whole loss.

    Returns:
        Scalar.

    Raises:
        ValueError: if the batch of all processes is one row: it has no variance.
    """
    z1, z2 = distributed.gather_each(z1, z2)
    standard1, standard2 = (F.batch_norm(z, None, None, training=True, eps=1e-5) for z in (z1, z2))
    correlation = standard1.T @ standard2 / len(z1)  # (D, D)
    on = (correlation.diagonal() - 1).square().sum()
    return scale_loss * (on + lamb * off_diagonal(correlation).square().sum())
