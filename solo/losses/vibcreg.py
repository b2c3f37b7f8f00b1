"""VIbCReg's loss (Lee and Aune, 2021): VICReg with a normalised covariance term."""

from torch import Tensor

from solo.losses.numerics import full_precision, off_diagonal
from solo.losses.pairs import unit
from solo.losses.vicreg import weigh


@full_precision
def covariance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Sum over the two views of the squared correlations of different features, divided by ``D^2``."""
    # Columns of length 1, (D, N); a constant feature is zero and correlates with nothing.
    unit1, unit2 = (unit((z - z.mean(dim=0)).T) for z in (z1, z2))
    r1, r2 = unit1 @ unit1.T, unit2 @ unit2.T  # (D, D)
    return (off_diagonal(r1).square().sum() + off_diagonal(r2).square().sum()) / z1.shape[1] ** 2


def vibcreg_loss_func(
    z1: Tensor, z2: Tensor, sim_loss_weight: float = 25.0, var_loss_weight: float = 25.0, cov_loss_weight: float = 200.0
) -> Tensor:
    """Weighted sum of the three terms for the views ``z1`` and ``z2``, (N, D) each, gathered with gradient.

    Raises:
        ValueError: if the batch of all processes is one row.
    """
    return weigh(z1, z2, (sim_loss_weight, var_loss_weight, cov_loss_weight), covariance_loss)
