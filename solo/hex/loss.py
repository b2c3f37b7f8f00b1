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
"Contrastive Learning with Hard Negative Samples", ICLR 2021 (HCL). Everything stays in log space: with
``LSE`` over H(i), ``log L_i = log|H(i)| + LSE((1 + beta) x) - LSE(beta x)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from solo import distributed
from solo.hex.local import ListSoftmax, LocalTerm, debias
from solo.hex.policy import AdaptivePercentile, Policy, Selector
from solo.losses.blockwise import blockwise
from solo.losses.info_nce import Block, InfoNCERows, MaskedSoftmax, Positives, Terms
from solo.losses.pairs import Pairs

Variant = Literal["reweight", "release"]
Stats = dict[str, Tensor]


@dataclass(frozen=True)
class Action:
    """What is done with an anchor's relatives.

    Attributes:
        name: ``weigh``: they are hierarchy negatives, see ``beta`` and ``tau_plus``; ``drop``: they leave the
            denominator; ``pull``: that, and they are positives, too; ``keep``: nothing.
        denominator: of a term: ``own``: its positive and the negatives; ``negatives``: these alone (decoupled);
            ``all``: everybody but the anchor, whatever is pulled among them (SupCon as published); ``inside``: that for
            relatives, and for an image's own views the relatives only (class-conditional InfoNCE, Chen et al., ICML
            2022, 2204.07596; all negatives where there are no relatives).
        share: pull: of the target that relatives have together; None: every positive has the same.
        softness: pull: relatives have the weights of a softmax of their cosines with this temperature (SCE, Denize et
            al., WACV 2023, 2111.14585), not all the same.
        confident: pull: the share shrinks by the entropy of these weights, 0 where they are even (ASCL, Feng and
            Patras, ICPR 2022, 2207.11163).
    """

    name: Literal["weigh", "drop", "pull", "keep"] = "weigh"
    denominator: Literal["own", "negatives", "all", "inside"] = "own"
    share: float | None = 0.5
    softness: float | None = None
    confident: bool = False

    def __post_init__(self) -> None:
        """Refuse what isn't there."""
        if self.name not in ("weigh", "drop", "pull", "keep"):
            raise ValueError(f"action must be 'weigh', 'drop', 'pull' or 'keep', got {self.name!r}")
        if self.denominator not in ("own", "negatives", "all", "inside"):
            raise ValueError(f"denominator must be 'own', 'negatives', 'all' or 'inside', got {self.denominator!r}")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in [0, 1], got {self.share}")


RELEASE = Action("drop", "negatives")  # what the public release does with hierarchy negatives


class Elsewhere(NamedTuple):
    """Relatives that are not in the batch.

    Attributes:
        rows: (M, k, D) unit rows, k for each anchor, without gradient.
        known: (M, k) bool; the others don't count.
    """

    rows: Tensor
    known: Tensor


class _HexRows(InfoNCERows):
    """The split denominator, a block of rows at a time."""

    def __init__(
        self,
        pairs: Pairs,
        selector: Selector | None,
        temperature: float,
        beta: float,
        tau_plus: float,
        relative: bool,
        action: Action,
        positives: Positives,
        kin: Selector | None,
        elsewhere: Elsewhere | None,
    ) -> None:
        super().__init__(pairs, temperature, positives)
        if not beta >= 0:
            raise ValueError(f"beta must be at least 0, got {beta}")
        if not 0 <= tau_plus < 1:
            raise ValueError(f"tau_plus must lie in [0, 1), got {tau_plus}")
        self.selector, self.beta, self.tau_plus, self.action = selector, beta, tau_plus, action
        self.lists |= action.name == "pull"  # relatives become terms of their own
        self.relative, self.kin, self.known, self.own, self.d_own = relative, kin, None, None, None
        if elsewhere is not None:
            self.known = elsewhere.known
            with torch.autocast(pairs.anchors.device.type, enabled=False):
                self.own = torch.einsum("md,mkd->mk", pairs.anchors, elsewhere.rows.to(pairs.anchors.dtype))
            self.d_own = torch.zeros_like(self.own)
        names = ("log_global", "log_local", "local_share", "bounded")
        self._seen = {name: pairs.anchors.new_zeros(2) for name in names}  # sums and counts
        self._selected = pairs.anchors.new_zeros(())
        self._alike = pairs.anchors.new_zeros(2)  # hierarchy negatives of the anchor's group, those of known groups

    def score(self, block: Block, terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
        """Score each positive against the split denominator."""
        if self.selector is None and self.kin is None and self.own is None:
            return super().score(block, terms)
        nobody = torch.zeros_like(block.negative)
        chosen = nobody if self.selector is None else self.selector(block.similarity, block.rows) & block.negative
        kin = nobody if self.kin is None else self.kin(block.similarity, block.rows) & block.negative & ~chosen
        hierarchy, gone = (chosen | kin, nobody) if self.action.name == "weigh" else (kin, chosen)
        if self.action.name == "keep":
            gone = nobody
        gone = gone if self.action.denominator in ("own", "negatives") or self.action.name == "drop" else nobody
        others = block.negative & ~gone
        if self.action.denominator in ("all", "inside"):
            others |= block.positive
        rest = MaskedSoftmax(block.x, others & ~hierarchy)
        self._compare_groups(block.rows, chosen if self.kin is None else hierarchy)
        number, listed = len(terms.x), None
        if self.action.name == "pull":
            terms, listed = self._with_relatives(block, terms, chosen)
        own = self.action.denominator == "own"
        if self.action.denominator == "inside" and listed is not None:
            near = MaskedSoftmax(block.x, chosen.where(chosen.any(dim=1, keepdim=True), block.negative))
            first, d_first, grad_first = self._split(block, terms.part(slice(number)), nobody, None, near, True)
            loss, d_terms, grad = self._split(block, terms.part(slice(number, None)), hierarchy, chosen, rest, own)
            loss, d_terms, grad = loss + first, torch.cat([d_first, d_terms]), grad.add_(grad_first)
        else:
            loss, d_terms, grad = self._split(block, terms, hierarchy, chosen, rest, own)
        if listed is not None:
            row, column, place = listed
            d_relatives = d_terms[number:]
            grad[row, column] += d_relatives[: len(row)]
            if self.d_own is not None:
                self.d_own[block.rows].view(-1)[place] = d_relatives[len(row) :] * self.inverse_temperature
        return loss, d_terms[:number], grad

    def _split(
        self, block: Block, terms: Terms, hierarchy: Tensor, chosen: Tensor | None, rest: MaskedSoftmax, own: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of terms whose denominator has hierarchy negatives, a rest and, ``own``, the term; its gradients.

        What was seen is recorded where somebody is said to be ``chosen``.
        """
        local = LocalTerm(block.x, hierarchy, self.beta, block.negative if self.relative else None)
        log_size = terms.of(local.log_size)
        log_debiased, active = debias(
            terms.of(local.log), log_size, terms.mean, self.tau_plus, self.inverse_temperature
        )
        log_denominator = torch.logaddexp(terms.of(rest.lse), log_debiased)
        if own:
            log_denominator = torch.logaddexp(terms.x, log_denominator)
        else:  # a row that has lost all of its negatives has no denominator
            log_denominator = log_denominator.masked_fill(log_denominator == -torch.inf, 0)
        loss = (terms.weight * (log_denominator - terms.x)).sum()

        # Shares of the denominator: each is the derivative of its log with respect to a part's log.
        log_norm = log_denominator + math.log1p(-self.tau_plus)
        local_share = (log_debiased - log_denominator).exp()
        d_rest = terms.weight * (terms.of(rest.lse) - log_denominator).exp()
        d_positive = -d_rest - terms.weight * local_share if own else -terms.weight
        d_local = torch.where(active, terms.weight * (terms.of(local.log) - log_norm).exp(), 0.0)
        if self.tau_plus > 0:
            taken = math.log(self.tau_plus) + log_size + terms.mean - log_norm
            d_positive = d_positive - torch.where(active, terms.weight * taken.exp(), 0.0)

        grad = rest.gradient(terms.sum_per_row(d_rest, len(block.x)))
        local.add_gradient(grad, terms.sum_per_row(d_local, len(block.x)))
        bounded = (~active & (log_debiased > -torch.inf)).to(block.x.dtype)
        if chosen is not None:
            size = local.size if self.action.name == "weigh" else chosen.sum(dim=1, dtype=torch.int32)
            self._record(terms, size, rest.lse, local.log, local_share, bounded)
        return loss, d_positive, grad

    def _with_relatives(
        self, block: Block, terms: Terms, chosen: Tensor
    ) -> tuple[Terms, tuple[Tensor, Tensor, Tensor]]:
        """The terms and those of relatives, with their share; row and column of these, and places in ``own``."""
        assert terms.row is not None
        row, column = chosen.nonzero(as_tuple=True)
        rows, x, place = row, block.x[row, column], row.new_zeros(0)
        if self.own is not None and self.known is not None:
            known = self.known[block.rows]
            place = known.flatten().nonzero()[:, 0]
            elsewhere = self.own[block.rows].detach().flatten()[place] * self.inverse_temperature
            rows, x = torch.cat([row, place // known.shape[1]]), torch.cat([x, elsewhere])
        number = torch.bincount(rows, minlength=len(block.x)).to(x.dtype)
        if self.action.share is None:
            share = number / (number + torch.bincount(terms.row, minlength=len(block.x))).clamp_min(1)
        else:
            share = x.new_tensor(self.action.share) * (number > 0)
        among = (1 / number.clamp_min(1))[rows]
        if self.action.softness is not None:
            among = ListSoftmax(x / (self.inverse_temperature * self.action.softness), rows, len(block.x)).softmax
        if self.action.confident:
            entropy = x.new_zeros(len(block.x)).index_add_(0, rows, -torch.xlogy(among, among))
            share = share * (1 - entropy / number.clamp_min(2).log())
        weights = [terms.weight * (1 - share)[terms.row], share[rows] * among]
        logits, means = torch.cat([terms.x, x]), torch.cat([terms.mean, x])
        return Terms(torch.cat([terms.row, rows]), None, logits, means, torch.cat(weights)), (row, column, place)

    def _compare_groups(self, rows: slice, chosen: Tensor) -> None:
        if self.pairs.anchor_groups is None or self.pairs.key_groups is None:
            return
        anchor, key = self.pairs.anchor_groups[rows, None], self.pairs.key_groups[None]
        if self.lists:
            row, column = chosen.nonzero(as_tuple=True)
            anchor, key, chosen = anchor[row, 0], key[0, column], chosen[row, column]
        known = chosen & (anchor >= 0) & (key >= 0)
        self._alike += torch.stack([(known & (anchor == key)).sum(), known.sum()])

    def _record(self, terms: Terms, size: Tensor, *values: Tensor) -> None:
        """Count up what a block has: |H(i)|, two values of rows and two of terms, which count if they have weight."""
        self._selected += size.sum()
        for place, (seen, value) in enumerate(zip(self._seen.values(), values, strict=True)):
            counts = value.isfinite()
            if place >= 2 and not self.lists:
                counts = counts & (terms.weight > 0)
            seen += torch.stack([torch.where(counts, value, 0.0).sum(), counts.sum()])

    def stats(self) -> Stats:
        """Means over the anchors of all processes, detached scalars; only those that exist in this batch."""
        if self.selector is None:
            return {"hierarchy_negatives": self._selected}
        sums = [self._selected, *(seen[0] for seen in self._seen.values())]
        anchors = torch.full_like(self._selected, len(self.pairs.anchors))
        counts = [anchors, *(seen[1] for seen in self._seen.values())]
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
        positives: how several positives of one anchor count, see ``InfoNCERows``; ``inside``: exp(x_ip) is their sum,
            in the debiasing their mean.
        epoch: 0-based.
        max_epochs: length of the run, for schedules.
        action: what is done with those that the policy finds, instead of a variant.
        relative: Q is relative to the mean over all of N(i), not over H(i): the set weighs more as a whole.
        kin: finds hierarchy negatives among whoever the policy has not found, where these are dropped or pulled.
        elsewhere: relatives that are not in the batch, to be pulled, too.

    Returns:
        The loss, a scalar in float32 or better, and detached scalars: ``threshold``; ``hierarchy_negatives``
        per anchor; with groups ``superclass_share``, the share of these in the anchor's group, 0 to 1;
        ``log_global`` and ``log_local``, the means of log G_i and log L_i (before debiasing);
        ``local_share``, the share of L_ip in the denominator; ``bounded``, the share of terms whose L_ip is at its
        lower bound, where hierarchy negatives get no gradient. During warm-up only ``hierarchy_negatives`` (0).

    Raises:
        ValueError: if a setting is out of its range.
    """
    if variant not in ("reweight", "release"):
        raise ValueError(f"variant must be 'reweight' or 'release', got {variant!r}")
    action = action or (RELEASE if variant == "release" else Action())
    found = policy.selector(pairs, epoch, max_epochs)
    others = None if kin is None else kin.selector(pairs, epoch, max_epochs)
    rows = _HexRows(pairs, found, temperature, beta, tau_plus, relative, action, positives, others, elsewhere)
    loss = blockwise(pairs, rows, own=(rows.own, rows.d_own))
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
