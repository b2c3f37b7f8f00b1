"""The loss of I-JEPA (Assran et al., 2023): predict features of what is hidden, not its pixels."""

from torch import Tensor
from torch.nn import functional as F

from solo.losses.numerics import full_precision


@full_precision
def ijepa_loss_func(pred: Tensor, target: Tensor) -> Tensor:
    """Mean over all numbers of the smooth L1 distance: e^2 / 2 for |e| < 1, else |e| - 1/2.

    Args:
        pred: (N, T, D) predicted features of T hidden patches.
        target: (N, T, D) those of the slow network, which each patch has standardised first; without gradient.
    """
    return F.smooth_l1_loss(pred, F.layer_norm(target.detach(), target.shape[-1:]))
