"""FroSSL's loss (Skean et al., 2024): views agree, and the entropy of their features' covariance is large."""

from collections.abc import Sequence

import torch
from torch import Tensor

from solo import distributed
from solo.losses.numerics import full_precision
from solo.losses.pairs import unit

_TINY = 1e-12  # of a trace of up to D: an embedding that is zero has the logarithm of 1


@full_precision
def frossl_loss_func(z: Sequence[Tensor] | Tensor, invariance_weight: float = 1.0) -> Tensor:
    """``sum_v [ log ||C_v||_F^2 + invariance_weight * V * D * mean (u_v - u)^2 ]``.

    ``u_v`` are the embeddings of a view with columns of unit length, ``u`` their mean over the views, and ``C_v`` is
    ``u_v^T u_v`` divided by its trace. The logarithm is minus the matrix-based Renyi entropy of order 2: no eigenvalue
    is computed, and ``u_v u_v^T``, which has the same norm, is taken where there are fewer rows than columns.

    Args:
        z: embeddings (N, D) of V >= 2 views; gathered over processes with gradient.
        invariance_weight: of the distance of the views, >= 0.
    """
    u = torch.stack([unit(view.T) for view in distributed.gather_each(*z)])  # (V, D, N)
    views, width, rows = u.shape
    gram = u @ u.mT if width <= rows else u.mT @ u
    traces = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    entropy = (gram.square().sum(dim=(1, 2)) + _TINY).log() - (traces.square() + _TINY).log()
    return entropy.sum() + invariance_weight * views * width * (u - u.mean(dim=0)).square().mean(dim=(1, 2)).sum()
