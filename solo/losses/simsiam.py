"""SimSiam's loss (Chen and He, 2021): the negative cosine to a target that gets no gradient."""

from torch import Tensor

from solo.losses.numerics import mean_cosine


def simsiam_loss_func(p: Tensor, z: Tensor, simplified: bool = True) -> Tensor:
    """``-mean cos(p, sg(z))``.

    Args:
        p: (N, D) predictions.
        z: (N, D) projections of the other view; get no gradient.
        simplified: without effect: both of solo-learn's ways to compute it give this value.

    Returns:
        Scalar in [-1, 1].
    """
    return -mean_cosine(p, z.detach())
