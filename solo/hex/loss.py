"""The HEX loss: InfoNCE whose denominator is split into global and local collapse regularisation.

With ``x = s / tau``, P(i), N(i) the positives and negatives of anchor i and H(i) its hierarchy negatives:

    G_i  = sum_{k in N(i) - H(i)} exp(x_ik)
    Q_ih = exp(beta * x_ih) / mean_{h' in H(i)} exp(beta * x_ih')
    L_i  = sum_{h in H(i)} Q_ih * exp(x_ih)
    L_ip = max( (L_i - tau_plus * |H(i)| * exp(x_ip)) / (1 - tau_plus),  |H(i)| * exp(-1 / tau) )
    loss = mean_i mean_{p in P(i)}  -log( exp(x_ip) / (exp(x_ip) + G_i + L_ip) )

Source: Kokilepersaud et al., HEX, WACV 2025, steps 3 to 5 of the method figure; debiasing as in Robinson et al.,
"Contrastive Learning with Hard Negative Samples", ICLR 2021 (HCL). Everything stays in log space: with
``LSE`` over H(i), ``log L_i = log|H(i)| + LSE((1 + beta) x) - LSE(beta x)``.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from solo import distributed
from solo.hex.local import LocalTerm, debias
from solo.hex.policy import AdaptivePercentile, Policy, Selector
from solo.losses.blockwise import blockwise
from solo.losses.info_nce import Block, InfoNCERows, MaskedSoftmax, Positives, Terms, sum_per_row
from solo.losses.pairs import Pairs

Variant = Literal["reweight", "release"]
Stats = dict[str, Tensor]


class _HexRows(InfoNCERows):
    """The split denominator, a block of rows at a time."""

    def __init__(
        self,
        pairs: Pairs,
        selector: Selector | None,
        temperature: float,
        beta: float,
        tau_plus: float,
        variant: Variant,
        positives: Positives,
    ) -> None:
        super().__init__(pairs, temperature, positives)
        if not beta >= 0:
            raise ValueError(f"beta must be at least 0, got {beta}")
        if not 0 <= tau_plus < 1:
            raise ValueError(f"tau_plus must lie in [0, 1), got {tau_plus}")
        if variant not in ("reweight", "release"):
            raise ValueError(f"variant must be 'reweight' or 'release', got {variant!r}")
        self.selector, self.beta, self.tau_plus, self.variant = selector, beta, tau_plus, variant
        names = ("log_global", "log_local", "local_share", "bounded")
        self._seen: dict[str, list[Tensor]] = {name: [] for name in names}
        self._selected = pairs.anchors.new_zeros(())
        self._alike = pairs.anchors.new_zeros(2)  # hierarchy negatives of the anchor's group, those of known groups

    def score(self, block: Block, terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
        """Score each positive against the split denominator."""
        if self.selector is None:
            return super().score(block, terms)
        hierarchy = self.selector(block.similarity, block.rows).logical_and_(block.negative)
        rest = MaskedSoftmax(block.x, block.negative & ~hierarchy)
        listed = hierarchy.nonzero(as_tuple=True)  # H(i) is a small share of the row
        self._compare_groups(block.rows, *listed)
        if self.variant == "release":
            return self._score_release(terms, hierarchy, rest)
        local = LocalTerm(block.x, listed, self.beta)
        log_size = local.log_size[terms.row]
        log_debiased, active = debias(
            local.log[terms.row], log_size, terms.mean, self.tau_plus, self.inverse_temperature
        )
        log_denominator = torch.logaddexp(terms.x, torch.logaddexp(rest.lse[terms.row], log_debiased))
        loss = (terms.weight * (log_denominator - terms.x)).sum()

        # Shares of the denominator: each is the derivative of its log with respect to a part's log.
        log_norm = log_denominator + math.log1p(-self.tau_plus)
        local_share = (log_debiased - log_denominator).exp()
        d_rest = terms.weight * (rest.lse[terms.row] - log_denominator).exp()
        d_positive = -d_rest - terms.weight * local_share
        d_local = torch.where(active, terms.weight * (local.log[terms.row] - log_norm).exp(), 0.0)
        if self.tau_plus > 0:
            taken = math.log(self.tau_plus) + log_size + terms.mean - log_norm
            d_positive -= torch.where(active, terms.weight * taken.exp(), 0.0)

        grad = rest.gradient(sum_per_row(d_rest, terms, rest.lse))
        grad[local.row, local.column] = local.gradient(sum_per_row(d_local, terms, rest.lse))
        bounded = (~active & (log_debiased > -torch.inf)).to(block.x.dtype)
        self._record(local.size, rest.lse, local.log, local_share, bounded)
        return loss, d_positive, grad

    def _score_release(self, terms: Terms, hierarchy: Tensor, rest: MaskedSoftmax) -> tuple[Tensor, Tensor, Tensor]:
        """What the public release trains: ``-x_ip + log G_i``; a row whose negatives are all in H has no log G."""
        lse = rest.lse.masked_fill(rest.lse == -torch.inf, 0)
        loss = (terms.weight * (lse[terms.row] - terms.x)).sum()
        nothing = torch.full_like(rest.lse, -torch.inf)
        zeros = torch.zeros_like(terms.x)
        self._record(hierarchy.sum(dim=1, dtype=torch.int32), rest.lse, nothing, zeros, zeros)
        return loss, -terms.weight, rest.gradient(sum_per_row(terms.weight, terms, rest.lse))

    def _compare_groups(self, rows: slice, row: Tensor, column: Tensor) -> None:
        if self.pairs.anchor_groups is None or self.pairs.key_groups is None:
            return
        anchor, key = self.pairs.anchor_groups[rows][row], self.pairs.key_groups[column]
        known = (anchor >= 0) & (key >= 0)
        self._alike += torch.stack([(known & (anchor == key)).sum(), known.sum()])

    def _record(self, size: Tensor, *values: Tensor) -> None:
        self._selected += size.sum()
        for seen, value in zip(self._seen.values(), values, strict=True):
            seen.append(value)

    def stats(self) -> Stats:
        """Means over the anchors of all processes, detached scalars; only those that exist in this batch."""
        if self.selector is None:
            return {"hierarchy_negatives": self._selected}
        seen = [torch.cat(parts) for parts in self._seen.values()]
        sums = [self._selected, *(torch.where(values.isfinite(), values, 0.0).sum() for values in seen)]
        counts = [self._selected.new_tensor(len(self.pairs.anchors)), *(values.isfinite().sum() for values in seen)]
        names = ["hierarchy_negatives", *self._seen]
        if self.pairs.anchor_groups is not None and self.pairs.key_groups is not None:
            names, sums, counts = [*names, "superclass_share"], [*sums, self._alike[0]], [*counts, self._alike[1]]
        total, count = distributed.all_reduce_sum(torch.stack([torch.stack(sums), torch.stack(counts)]))
        stats = dict(zip(names, total / count.clamp_min(1), strict=True))
        if self.selector.threshold is not None:
            stats["threshold"] = self.selector.threshold
        return stats


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
        positives: how several positives of one anchor count, see ``InfoNCERows``; ``inside``: exp(x_ip) is their sum,
            in the debiasing their mean.
        epoch: 0-based.
        max_epochs: length of the run, for schedules.

    Returns:
        The loss, a scalar in float32 or better, and detached scalars: ``threshold``; ``hierarchy_negatives``
        per anchor; with groups ``superclass_share``, the share of these in the anchor's group, 0 to 1;
        ``log_global`` and ``log_local``, the means of log G_i and log L_i (before debiasing);
        ``local_share``, the share of L_ip in the denominator; ``bounded``, the share of terms whose L_ip is at its
        lower bound, where hierarchy negatives get no gradient. During warm-up only ``hierarchy_negatives`` (0).

    Raises:
        ValueError: if a setting is out of its range.
    """
    rows = _HexRows(pairs, policy.selector(pairs, epoch, max_epochs), temperature, beta, tau_plus, variant, positives)
    loss = blockwise(pairs, rows)
    return loss, rows.stats()


class HEXLoss(nn.Module):
    """The HEX loss of two views, for any training loop.

    Args:
        temperature: > 0.
        policy: which negatives are hierarchy negatives; default ``AdaptivePercentile()``.
        beta: >= 0.
        tau_plus: in [0, 1).
        variant: ``reweight`` (the paper) or ``release`` (the public code), see ``hex_nce``.
        gather_distributed: use the rows of all processes as negatives.

    Attributes:
        stats: what the last call saw, see ``hex_nce``.

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
    ) -> None:
        super().__init__()
        self.temperature, self.beta, self.tau_plus, self.variant = temperature, beta, tau_plus, variant
        self.policy = AdaptivePercentile() if policy is None else policy
        self.gather_distributed = gather_distributed
        self.stats: Stats = {}

    def forward(
        self, z0: Tensor, z1: Tensor, epoch: int = 0, max_epochs: int = 1, groups: Tensor | None = None
    ) -> Tensor:
        """Loss of two views.

        Args:
            z0: (B, D) projections of the first view, of any length.
            z1: (B, D) of the second.
            epoch: 0-based; warm-up and schedules read it.
            max_epochs: length of the run.
            groups: (B,) coarse labels for ``Superclass``, -1 for unknown.

        Returns:
            Scalar in float32 or better.
        """
        pairs = Pairs.from_views((z0, z1), groups=groups, gather=self.gather_distributed)
        loss, self.stats = hex_nce(
            pairs,
            self.policy,
            temperature=self.temperature,
            beta=self.beta,
            tau_plus=self.tau_plus,
            variant=self.variant,
            epoch=epoch,
            max_epochs=max_epochs,
        )
        return loss
