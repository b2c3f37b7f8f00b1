"""SimCLR's NT-Xent loss (Chen et al., 2020), and, given labels for ids, solo-learn's form of SupCon."""

from torch import Tensor

from solo.losses.info_nce import info_nce
from solo.losses.pairs import Pairs


def simclr_loss_func(z: Tensor, indexes: Tensor, temperature: float = 0.1) -> Tensor:
    """``-mean_i log( pos_i / (pos_i + neg_i) )``: rows with equal index attract, all others repel.

    Args:
        z: (V * N, D) projections of all views, any length; gathered over processes with gradient.
        indexes: (V * N,) sample ids, or labels for SupCon.
        temperature: > 0.

    Returns:
        Scalar. The log is outside the sum over positives, as in solo-learn.
    """
    return info_nce(Pairs.from_ids(z, indexes), temperature, positives="inside")
