"""NNCLR's loss (Dwibedi et al., 2021): InfoNCE between nearest neighbours and predictions."""

import torch
from torch import Tensor

from solo import distributed
from solo.losses.info_nce import info_nce
from solo.losses.pairs import Pairs


def nnclr_loss_func(nn: Tensor, p: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of ``cos(nn_i, p_j) / temperature`` over all j, with target i.

    Args:
        nn: (N, D) nearest neighbours, any length.
        p: (N, D) predictions of the other view, any length; gathered over processes with gradient.
        temperature: > 0.

    Returns:
        Scalar.
    """
    ids = torch.arange(len(p), device=p.device) + distributed.rank() * len(p)
    return info_nce(Pairs.between(nn, p, ids), temperature)
