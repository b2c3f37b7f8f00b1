"""What DINOv2 (Oquab et al., 2023) adds to DINO's loss: iBOT's on hidden patches, and a spread of the features."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from solo import distributed
from solo.losses.numerics import full_precision
from solo.losses.pairs import unit


@full_precision
def ibot_loss_func(scores: Tensor, assignments: Tensor, temperature: float = 0.1) -> Tensor:
    """Let the trained network say of a hidden patch what the slow one says, who sees it: iBOT (Zhou et al., 2021).

    Mean over the patches of -sum_p a_p log softmax(s / temperature)_p.

    Args:
        scores: s, (M, P) of the hidden patches.
        assignments: a, (M, P), rows that sum to 1, without gradient.
        temperature: > 0.
    """
    return F.cross_entropy(scores / temperature, assignments)


def koleo_loss_func(feats: Tensor, eps: float = 1e-8) -> Tensor:
    """Keep features apart: Kozachenko and Leonenko's estimate of minus their entropy (Sablayrolles et al., 2018).

    Mean over all rows of -log(sqrt(d^2 + eps)), d the distance to the nearest other row, among those of all processes,
    rows at length 1.

    Args:
        feats: (N, D), two rows at least, or (V, N, D) of several views, each compared with itself.
        eps: > 0, keeps equal rows finite.
    """
    return koleo_later(feats, eps)()


def koleo_later(feats: Tensor, eps: float = 1e-8) -> Callable[[], Tensor]:
    """`koleo_loss_func` whose rows travel with what is gathered next; what is returned is the loss."""
    views = unit(feats).reshape(-1, *feats.shape[-2:]).unbind()
    found = distributed.gather_later(*views)
    return lambda: _koleo(views, found(), eps)


@full_precision
def _koleo(views: Sequence[Tensor], every: Sequence[Tensor], eps: float) -> Tensor:
    losses = []
    for z, others in zip(views, every, strict=True):
        with torch.no_grad():
            own = distributed.rank() * len(z) + torch.arange(len(z), device=z.device)
            cosine = (z @ others.T).scatter_(1, own[:, None], -torch.inf)
            nearest = cosine.argmax(dim=1)
        losses.append(-0.5 * ((z - others.index_select(0, nearest)).square().sum(dim=1) + eps).log().mean())
    return torch.stack(losses).mean()
