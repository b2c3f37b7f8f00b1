"""SigLIP's loss (Zhai et al., 2023): for each pair of views by itself, whether they are of the same image."""

from torch import Tensor
from torch.nn import functional as F

from solo import distributed
from solo.losses.numerics import full_precision
from solo.losses.pairs import unit


@full_precision
def siglip_loss_func(z1: Tensor, z2: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """``-mean_i sum_j log sigmoid( y_ij * (exp(log_scale) * cos(z1_i, z2_j) + bias) )``, y = 1 for i = j, else -1.

    Args:
        z1: (N, D) projections of the first view, any length.
        z2: (N, D) of the second one, gathered over processes with gradient: j runs over all of them.
        log_scale: scalar or (1,), logarithm of the inverse temperature.
        bias: likewise; about minus the logarithm of the number of images makes up for their being mostly different.
    """
    z1, z2 = unit(z1), unit(z2)
    logits = log_scale.exp() * z1 @ distributed.gather(z2).T + bias  # (N, all N)
    own = log_scale.exp() * (z1 * z2).sum(dim=1) + bias
    # -log sigmoid(-x) is softplus(x), and -log sigmoid(x) is softplus(x) - x.
    return (F.softplus(logits).sum(dim=1) - own).mean()
