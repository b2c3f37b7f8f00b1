"""The HEX loss: InfoNCE whose denominator is split into global and local collapse regularisation.

With ``x = s / tau``, P(i), N(i) the positives and negatives of anchor i and H(i) its hierarchy negatives:

    G_i  = sum_{k in N(i) - H(i)} exp(x_ik)
    Q_ih = exp(beta * x_ih) / mean_{h' in H(i)} exp(beta * x_ih')
    L_i  = sum_{h in H(i)} Q_ih * exp(x_ih)
    L_ip = max( (L_i - tau_plus * |H(i)| * exp(x_ip)) / (1 - tau_plus),  |H(i)| * exp(-1 / tau) )
    loss = mean_i mean_{p in P(i)}  -log( exp(x_ip) / (exp(x_ip) + G_i + L_ip) )

By default relatives are weighed, like this. ``Action`` says what else can be done: they are dropped from the
denominator, or pulled, as further positives p with a share of the target; and who is in the denominator of a term.
With relatives R(i) that are pulled, of share a:

    loss = mean_i  (1 - a) mean_{p in P(i)} ell(i, p) + a mean_{r in R(i)} ell(i, r),     ell as above, for any p

Source: Kokilepersaud et al., HEX, WACV 2025, steps 3 to 5 of the method figure; debiasing as in Robinson et al.,
"Contrastive Learning with Hard Negative Samples", ICLR 2021 (HCL). All in log space, see ``LocalTerm``.

Where labels name partners at several levels, they say who attracts whom, and emergence who is kept apart. The
multi-label losses (``solo/losses/hierarchical``) sum ``ell(i, p) = log D_i - x_ip`` over the partners p of all levels.
With S(i) the partners of anchor i at the finest level (its other views, and images of its class where the class is the
leaf) and N(i) everybody else, which for two views without labels is the HEX loss,

    D_i = sum_{p in S(i)} exp(x_ip) + G_i + L_i,     L_i debiased with the mean of exp(x_ip) over S(i)
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from solo import distributed
from solo.errors import UserError
from solo.hex.policy import AdaptivePercentile, Policy, Selector
from solo.hex.rows import RELEASE, Action, Elsewhere, HexRows, LocalTerm, Stats, debias, means
from solo.losses.hierarchical_rows import LabelLevels, Rows, RowSoftmax
from solo.losses.info_nce import MaskedSoftmax, Positives, blockwise
from solo.losses.pairs import Pairs

Variant = Literal["reweight", "release"]


def hex_nce(
    pairs: Pairs,
    policy: Policy,
    *,
    temperature: float = 0.1,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    variant: Variant = "reweight",
    positives: Positives = "outside",
    epoch: int = 0,
    max_epochs: int = 1,
    action: Action | None = None,
    relative: bool = False,
    kin: Policy | None = None,
    elsewhere: Elsewhere | None = None,
) -> tuple[Tensor, Stats]:
    """The HEX loss of ``pairs`` and what it saw.

    Args:
        pairs: who is compared with whom.
        policy: which negatives are hierarchy negatives.
        temperature: > 0, divides the cosines.
        beta: >= 0, concentrates the repulsion on the closest hierarchy negatives; 0 weighs them alike.
        tau_plus: expected share of false negatives among them, in [0, 1).
        variant: ``reweight``, the paper; ``release``, what the public code trains: plain InfoNCE during warm-up,
            then ``-x_ip + log G_i``, without its constant (``beta`` and ``tau_plus`` have no effect there).
        positives: as in ``InfoNCERows``; ``inside``: exp(x_ip) is their sum, in the debiasing their mean.
        epoch: 0-based.
        max_epochs: length of the run, for schedules.
        action: what is done with those that the policy finds, instead of a variant.
        relative: Q is relative to the mean over all of N(i), not over H(i): the set weighs more as a whole.
        kin: finds hierarchy negatives among whoever the policy has not found, where these are dropped or pulled.
        elsewhere: relatives that are not in the batch, to be pulled, too.

    Returns:
        The loss, a scalar in float32 or better, and detached means: ``threshold``; ``hierarchy_negatives`` per anchor;
        with groups ``superclass_share``, the share of these in the anchor's group, 0 to 1; ``log_global`` and
        ``log_local``, of log G_i and log L_i (before debiasing); ``local_share``, the share of L_ip in the denominator;
        ``bounded``, that of terms whose L_ip is at its lower bound, where hierarchy negatives get no gradient. During
        warm-up only ``hierarchy_negatives`` (0).
    """
    if variant not in ("reweight", "release"):
        raise ValueError(f"variant must be 'reweight' or 'release', got {variant!r}")
    action = action or (RELEASE if variant == "release" else Action())
    found = policy.selector(pairs, epoch, max_epochs)
    others = None if kin is None else kin.selector(pairs, epoch, max_epochs)
    rows = HexRows(pairs, found, temperature, beta, tau_plus, relative, action, positives, others, elsewhere)
    loss, seen = blockwise(rows), rows.seen()
    return loss, means(dict(zip(seen, distributed.all_reduce_sum(torch.stack([*seen.values()])), strict=True)))


class HEXLoss(nn.Module):
    """The HEX loss of two views, for any training loop; ``stats`` are what the last call saw, see ``hex_nce``.

    Args:
        temperature, beta, tau_plus, variant: as in ``hex_nce``; a ``UserError`` out of their ranges.
        policy: which negatives are hierarchy negatives; default ``AdaptivePercentile()``.
        gather_distributed: use the rows of all processes as negatives.
        fused: on a GPU, by kernels that keep no similarities in memory (`solo.losses.fused`).

    Example:
        >>> loss_fn = HEXLoss(temperature=0.1, policy=AdaptivePercentile(quantile=0.99, warm_epoch=10))
        >>> loss = loss_fn(torch.randn(32, 64), torch.randn(32, 64), epoch=12, max_epochs=100)
    """

    def __init__(
        self,
        temperature: float = 0.1,
        policy: Policy | None = None,
        beta: float = 1.0,
        tau_plus: float = 0.1,
        variant: Variant = "reweight",
        gather_distributed: bool = True,
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.temperature, self.beta, self.tau_plus, self.variant = temperature, beta, tau_plus, variant
        self.policy = AdaptivePercentile() if policy is None else policy
        if not (temperature > 0 and 0 <= tau_plus < 1 and beta >= 0 and hasattr(self.policy, "selector")):
            cure = "a temperature above 0, beta from 0, tau_plus in [0, 1), and a policy such as AdaptivePercentile()"
            got = f"temperature={temperature}, beta={beta}, tau_plus={tau_plus}, policy={policy!r}"
            raise UserError(f"{got}: give {cure}")
        self.gather_distributed, self.fused = gather_distributed, fused
        self.stats: Stats = {}

    def forward(
        self, z0: Tensor, z1: Tensor, epoch: int = 0, max_epochs: int = 1, groups: Tensor | None = None
    ) -> Tensor:
        """Loss of two views, (B, D) each, of any length, a scalar in float32 or better.

        Warm-up and schedules read the epoch, 0-based; ``Superclass`` reads coarse labels, ``groups`` (B,), -1 unknown.
        """
        pairs = Pairs.from_views((z0, z1), groups=groups, gather=self.gather_distributed)
        words: dict[str, Any] = {name: getattr(self, name) for name in ("temperature", "beta", "tau_plus", "variant")}
        words |= {"epoch": epoch, "max_epochs": max_epochs}
        loss, self.stats = hex_nce(replace(pairs, fused=self.fused), self.policy, **words)
        return loss


class HexDenominator:
    """Makes the denominators D_i of a block of anchors for the multi-label losses.

    ``stats`` are means over the rows so far: ``hierarchy_negatives``, ``local_share``, ``bounded``, and ``threshold``.
    """

    def __init__(self, selector: Selector, temperature: float, beta: float, tau_plus: float) -> None:
        self.selector, self.inverse_temperature, self.beta, self.tau_plus = selector, 1 / temperature, beta, tau_plus
        self.stats: dict[str, Tensor] = {}
        self._rows = 0
        if selector.threshold is not None:
            self.stats["threshold"] = selector.threshold

    def __call__(self, similarity: Tensor, x: Tensor, rows: Rows, own: Tensor, levels: LabelLevels) -> RowSoftmax:
        leaf = levels.anchors[rows, None, -1] == levels.keys[:, -1]
        # Indices of anchors work as slices do.
        hierarchy = self.selector(similarity, rows) & ~leaf  # type: ignore[arg-type]
        other = torch.ones_like(leaf).scatter_(1, own[:, None], False)
        softmax = _HexSoftmax(x, leaf & other, hierarchy, other & ~hierarchy, self)
        if isinstance(rows, slice):
            self._rows += len(x)
            size, share = softmax.local.size, (softmax.log_debiased - softmax.lse).exp()
            seen = {"hierarchy_negatives": size, "local_share": share, "bounded": ~softmax.active & (size > 0)}
            for name, value in seen.items():
                mean = value.to(x.dtype).mean()
                self.stats[name] = self.stats.get(name, mean).lerp(mean, len(x) / max(1, self._rows))
        return softmax


class _HexSoftmax:
    """``log D_i`` and its gradient."""

    def __init__(self, x: Tensor, leaf: Tensor, hierarchy: Tensor, rest: Tensor, settings: HexDenominator) -> None:
        self._leaf, self._rest = MaskedSoftmax(x, leaf), MaskedSoftmax(x, rest)
        self.local, self._tau_plus = LocalTerm(x, hierarchy, settings.beta), settings.tau_plus
        partners = leaf.sum(dim=1).clamp_min(1).to(x.dtype)
        self._mean = self._leaf.lse - partners.log()  # log of the mean of exp(x) over S(i)
        positive = (self._mean, settings.tau_plus, settings.inverse_temperature)
        self.log_debiased, self.active = debias(self.local.log, self.local.log_size, *positive)
        self.lse = torch.logaddexp(self._rest.lse, self.log_debiased)

    def gradient(self, per_row: Tensor) -> Tensor:
        lse = self.lse.masked_fill(self.lse == -torch.inf, 0)
        log_norm = lse + math.log1p(-self._tau_plus)
        grad = self._rest.gradient(per_row * (self._rest.lse - lse).exp())
        d_local = torch.where(self.active, per_row * (self.local.log - log_norm).exp(), 0.0)
        self.local.add_gradient(grad, d_local)
        if self._tau_plus > 0:
            taken = math.log(self._tau_plus) + self.local.log_size + self._mean - log_norm
            grad -= self._leaf.gradient(torch.where(self.active, per_row * taken.exp(), 0.0))
        return grad
