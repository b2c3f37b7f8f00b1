"""MoCo v3's loss (Chen et al., 2021): InfoNCE between queries and the keys of the batch."""

from torch import Tensor

from solo import distributed
from solo.losses.nnclr import nnclr_loss_func


def mocov3_loss_func(query: Tensor, key: Tensor, temperature: float = 0.2) -> Tensor:
    """``2 * temperature`` times the cross-entropy of ``cos(query_i, key_j) / temperature`` over j, with target i.

    Args:
        query: (N, D) predictions, any length.
        key: (N, D) momentum projections, any length; gathered over processes, where they get no gradient (on one
            process they do, as in solo-learn).
        temperature: > 0.

    Returns:
        Scalar.
    """
    key = key.detach() if distributed.world_size() > 1 else key
    return 2 * temperature * nnclr_loss_func(query, key, temperature)
