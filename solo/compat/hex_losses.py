"""HEX losses under the names of the HEX fork, for code that calls them; `solo.losses` hands them out too.

They compute the loss of `solo.hex.loss` (the paper's; `variant="release"` gives the fork's value up to a constant, and
its gradient), for any batch size, device and number of processes. Each returns a scalar.
"""

from torch import Tensor, arange

from solo import distributed
from solo.hex.loss import Variant, hex_nce
from solo.hex.policy import AdaptivePercentile, Constant, FixedThreshold, Policy, Superclass
from solo.losses.pairs import Pairs


def _two_views(z: Tensor, groups: Tensor | None = None) -> Pairs:
    n = len(z) // 2
    ids = arange(n, device=z.device).repeat(2) + distributed.rank() * n
    return Pairs.from_ids(z, ids, groups.repeat(2) if groups is not None and len(groups) == n else groups)


def _neighbours(nn: Tensor, p: Tensor, groups: Tensor | None = None) -> Pairs:
    return Pairs.between(nn, p, arange(len(p), device=p.device) + distributed.rank() * len(p), groups)


def _loss(pairs: Pairs, policy: Policy, temperature: float, beta: float, tau_plus: float, variant: Variant) -> Tensor:
    settings = {"beta": beta, "tau_plus": tau_plus, "epoch": 0, "max_epochs": 1}
    return hex_nce(pairs, policy, temperature=temperature, variant=variant, **settings)[0]  # type: ignore[arg-type]


def simclr_loss_func_hex_fixed(
    z: Tensor,
    indexes: Tensor | None = None,
    temperature: float = 0.1,
    distance_thresh: float = 0.9,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    variant: Variant = "reweight",
) -> Tensor:
    """HEX between two views, (2 * N, D) stacked: hierarchy negatives above `distance_thresh`, rows scaled to [0, 1].

    `indexes` are not read, as in the fork: rows i and N + i are views of one image. `tau_plus` lies in [0, 1); the
    fork's default of 1 has no finite gradient.
    """
    policy = FixedThreshold(Constant(distance_thresh))
    return _loss(_two_views(z), policy, temperature, beta, tau_plus, variant)


def simclr_loss_func_hex_adaptive(
    z: Tensor,
    indexes: Tensor | None = None,
    temperature: float = 0.1,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    current_epoch: int = 0,
    warm_epoch: int = 10,
    variant: Variant = "reweight",
) -> Tensor:
    """HEX between two views: hierarchy negatives above the mean 0.99 quantile of the rows' cosines.

    Arguments as in `simclr_loss_func_hex_fixed`; `current_epoch` and `warm_epoch` are not read, as in the fork, where
    the method does the warm-up.
    """
    return _loss(_two_views(z), AdaptivePercentile(warm_epoch=0), temperature, beta, tau_plus, variant)


def simclr_loss_func_superclass(
    z: Tensor, indexes_class: Tensor, indexes_super: Tensor, temperature: float = 0.1, variant: Variant = "reweight"
) -> Tensor:
    """HEX between two views, (2 * N, D) stacked: negatives share the superclass, (N,) or (2 * N,), -1 unknown.

    `indexes_class` is not read: positives are the other view.
    """
    return _loss(_two_views(z, indexes_super), Superclass(), temperature, 1.0, 0.1, variant)


def nnclr_loss_func_hard_decompose(
    nn: Tensor, p: Tensor, temperature: float = 0.1, distance_thresh: float = 0.9, variant: Variant = "reweight"
) -> Tensor:
    """HEX between neighbours (N, D) and predictions (N, D): above `distance_thresh`, each row scaled to [0, 1]."""
    policy = FixedThreshold(Constant(distance_thresh))
    return _loss(_neighbours(nn, p), policy, temperature, 1.0, 0.1, variant)


def nnclr_loss_func_decompose_adaptive(
    nn: Tensor,
    p: Tensor,
    temperature: float = 0.1,
    current_epoch: int = 0,
    warm_epoch: int = 10,
    variant: Variant = "reweight",
) -> Tensor:
    """HEX between neighbours (N, D) and predictions (N, D), above the mean quantile; above 0.9 up to `warm_epoch`."""
    warm = FixedThreshold(Constant(0.9), "cosine")
    policy = warm if current_epoch <= warm_epoch else AdaptivePercentile(warm_epoch=0)
    return _loss(_neighbours(nn, p), policy, temperature, 1.0, 0.1, variant)


def nnclr_loss_func_superclass(
    nn: Tensor, p: Tensor, indexes_super: Tensor, temperature: float = 0.1, variant: Variant = "reweight"
) -> Tensor:
    """HEX between neighbours (N, D) and predictions (N, D): hierarchy negatives share the superclass (N,)."""
    return _loss(_neighbours(nn, p, indexes_super), Superclass(), temperature, 1.0, 0.1, variant)
