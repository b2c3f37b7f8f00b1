"""BYOL's loss (Grill et al., 2020): the squared distance of unit vectors."""

from torch import Tensor

from solo.losses.numerics import mean_cosine


def byol_loss_func(p: Tensor, z: Tensor, simplified: bool = True) -> Tensor:
    """``2 - 2 * mean cos(p, sg(z))``.

    Args:
        p: (N, D) predictions of the online network.
        z: (N, D) projections of the momentum network; get no gradient.
        simplified: without effect: both of solo-learn's ways to compute it give this value.

    Returns:
        Scalar in [0, 4].
    """
    return 2 - 2 * mean_cosine(p, z.detach())
