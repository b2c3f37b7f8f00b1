"""W-MSE's loss (Ermolov et al., 2021): the squared distance of whitened, normalised features."""

from torch import Tensor

from solo.losses.numerics import mean_cosine


def wmse_loss_func(z1: Tensor, z2: Tensor, simplified: bool = True) -> Tensor:
    """``2 - 2 * mean cos(z1, z2)``.

    Args:
        z1: (N, D) whitened features of the first view.
        z2: (N, D) whitened features of the second view.
        simplified: ``z2`` gets no gradient, as in solo-learn; False: both do.

    Returns:
        Scalar in [0, 4].
    """
    return 2 - 2 * mean_cosine(z1, z2.detach() if simplified else z2)
