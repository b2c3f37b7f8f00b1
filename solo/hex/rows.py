"""The rows of the HEX loss, see ``solo/hex/loss``: who is in a denominator, who is pulled, and the gradient of both."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from solo.errors import UserError
from solo.hex.catalogue import NOT_FUSED, NOT_IN_RING
from solo.hex.policy import Selector
from solo.losses.fused import Choice
from solo.losses.info_nce import WHOLE, Block, InfoNCERows, MaskedSoftmax, Positives, Terms, Whole
from solo.losses.pairs import Pairs, listed

Stats = dict[str, Tensor]


@dataclass(frozen=True)
class Action:
    """What is done with an anchor's relatives."""

    # ``weigh``: they are hierarchy negatives; ``drop``: they leave the denominator; ``pull``: that, and they are
    # positives, too; ``keep``: nothing
    name: Literal["weigh", "drop", "pull", "keep"] = "weigh"
    # of a term: ``own``: its positive and the negatives; ``negatives``: these alone (decoupled); ``all``: everybody but
    # the anchor (SupCon as published); ``inside``: that for relatives, and for an image's own views the relatives only,
    # or all negatives where there are none (class-conditional InfoNCE, Chen et al., ICML 2022, 2204.07596)
    denominator: Literal["own", "negatives", "all", "inside"] = "own"
    share: float | None = 0.5  # pull: of the target that relatives have together; None: every positive has the same
    softness: float | None = None  # pull: temperature of a softmax that weighs relatives by cosine (SCE, 2111.14585)
    confident: bool = False  # pull: the share shrinks by the entropy of these weights, to 0 if even (ASCL, 2207.11163)

    def __post_init__(self) -> None:
        if self.name not in ("weigh", "drop", "pull", "keep"):
            raise ValueError(f"action must be 'weigh', 'drop', 'pull' or 'keep', got {self.name!r}")
        if self.denominator not in ("own", "negatives", "all", "inside"):
            raise ValueError(f"denominator must be 'own', 'negatives', 'all' or 'inside', got {self.denominator!r}")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in [0, 1], got {self.share}")


RELEASE = Action("drop", "negatives")  # what the public release does with hierarchy negatives


class Elsewhere(NamedTuple):
    """Relatives that are not in the batch."""

    rows: Tensor  # (M, k, D) unit rows, k for each anchor, without gradient
    known: Tensor  # (M, k) bool; the others don't count


class ListSoftmax:
    """Log-sum-exp of each of R rows over a list of K logits, and of which row each is."""

    def __init__(self, x: Tensor, row: Tensor, rows: int) -> None:
        largest = x.new_zeros(rows).scatter_reduce_(0, row, x, "amax", include_self=False)
        exp = (x - largest[row]).exp_()
        total = x.new_zeros(rows).index_add_(0, row, exp)
        self.lse = largest + total.log()  # (R,), -inf for rows without an entry
        self.softmax = exp.div_(total[row])  # (K,), its gradient, sums to 1 over the entries of a row


class LocalTerm:
    """``log L_i = log |H(i)| + LSE((1 + beta) x) - LSE(beta x)`` over H(i), of logits and H(i) (R, N).

    On a CPU over a list of H(i), a small share of the row, see `listed`. Logs are -inf where H(i) is empty. Weights are
    relative to the mean of exp(beta x) over H(i) or `among` (R, N); `whole` is as in `MaskedSoftmax`.
    """

    def __init__(
        self, x: Tensor, hierarchy: Tensor, beta: float, among: Tensor | None = None, whole: Whole = WHOLE
    ) -> None:
        self._beta = beta
        self._listed = hierarchy.nonzero(as_tuple=True) if listed(x) and not whole.ring else None
        if self._listed is None:
            self.size = whole(hierarchy.sum(dim=1))  # (R,) |H(i)|
            self._parts = [MaskedSoftmax(factor * x, hierarchy, whole) for factor in (1 + beta, beta)]
            tilted, weights = (part.lse for part in self._parts)
        else:
            row, negatives = self._listed[0], x[self._listed]
            self.size = torch.bincount(row, minlength=len(x))
            self._lists = [ListSoftmax(factor * negatives, row, len(x)) for factor in (1 + beta, beta)]
            tilted, weights = (part.lse for part in self._lists)
        self.log_size = log_number = self.size.to(x.dtype).log()
        self._all: MaskedSoftmax | None = None
        if among is not None:
            self._all = MaskedSoftmax(beta * x, among, whole)
            log_number, weights = whole(among.sum(dim=1)).to(x.dtype).log(), self._all.lse
        self.log = torch.where(self.size > 0, log_number + tilted - weights, -torch.inf)

    def add_gradient(self, grad: Tensor, per_row: Tensor) -> None:
        """Add the gradient of ``sum_i per_row_i * log L_i`` with respect to the logits to ``grad`` (R, N); once."""
        if self._all is not None:
            grad -= self._all.gradient(per_row * self._beta)
        if self._listed is None:
            tilted, weights = self._parts
            grad.add_(tilted.gradient(per_row), alpha=1 + self._beta)
            if self._all is None:
                grad.sub_(weights.gradient(per_row), alpha=self._beta)
            return
        change, row = (1 + self._beta) * self._lists[0].softmax, per_row[self._listed[0]]
        if self._all is None:
            change = change - self._beta * self._lists[1].softmax
        grad[self._listed] += row * change


def debias(
    log_local: Tensor, log_size: Tensor, x: Tensor, tau_plus: float, inverse_temperature: float
) -> tuple[Tensor, Tensor]:
    """``log max( (L - tau_plus |H| exp(x)) / (1 - tau_plus), |H| exp(-1 / tau) )`` of K terms of positives' logits x.

    And whether each is above its lower bound, where it has a gradient.
    """
    log_floor = log_size - inverse_temperature
    if tau_plus == 0:
        return torch.maximum(log_local, log_floor), log_local > log_floor
    # L - c with c = tau_plus |H| exp(x), as log L + log(1 - c / L); below the bound its value is not needed.
    ratio = torch.where(log_local > -torch.inf, math.log(tau_plus) + log_size + x - log_local, 0.0)
    log_rest = torch.log1p(-ratio.exp().clamp_max(1.0))  # -inf where c >= L
    debiased = log_local + log_rest - math.log1p(-tau_plus)
    return torch.maximum(debiased, log_floor), debiased > log_floor


class HexRows(InfoNCERows):
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
        in_parts = all(getattr(found, "cut", None) is not None for found in (selector, kin) if found is not None)
        if pairs.ring and (action.name == "pull" or not in_parts):
            raise UserError(f"performance.ring_loss=true {NOT_IN_RING}")
        self.selector, self.beta, self.tau_plus, self.action = selector, beta, tau_plus, action
        self.lists |= action.name == "pull"  # relatives become terms of their own
        self.relative, self.kin, self.known = relative, kin, None
        if elsewhere is not None:
            self.known = elsewhere.known
            with torch.autocast(pairs.anchors.device.type, enabled=False):
                self.own = torch.einsum("md,mkd->mk", pairs.anchors, elsewhere.rows.to(pairs.anchors.dtype))
            self.d_own = torch.zeros_like(self.own)
        self.plain = selector is None and kin is None and elsewhere is None  # InfoNCE
        names = ("hierarchy_negatives", "log_global", "log_local", "local_share", "bounded", "superclass_share")
        self._seen = {name: pairs.anchors.new_zeros(2) for name in names}  # sums and counts
        self._seen["hierarchy_negatives"][1] = len(pairs.anchors)

    def score(self, block: Block, terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
        if self.plain:
            return super().score(block, terms)
        action, against, number = self.action.name, self.action.denominator, len(terms.x)
        nobody = torch.zeros_like(block.negative)
        chosen = nobody if self.selector is None else self.selector(block.similarity, block.rows) & block.negative
        kin = nobody if self.kin is None else self.kin(block.similarity, block.rows) & block.negative & ~chosen
        hierarchy = chosen | kin if action == "weigh" else kin
        leave = action == "drop" or (action == "pull" and against in ("own", "negatives"))
        others = block.negative & ~chosen if leave else block.negative
        if against in ("all", "inside"):
            others = others | block.positive
        rest = MaskedSoftmax(block.x, others & ~hierarchy, self.whole)
        self._compare_groups(block.rows, chosen if self.kin is None else hierarchy)
        of_all = (hierarchy, chosen, rest, against == "own")
        if action != "pull":
            return self._split(block, terms, *of_all)
        terms, (row, column, place) = self._with_relatives(block, terms, chosen)
        if against == "inside":
            near = MaskedSoftmax(block.x, chosen.where(chosen.any(dim=1, keepdim=True), block.negative))
            first, d_first, grad_first = self._split(block, terms.part(slice(number)), nobody, None, near, True)
            loss, d_terms, grad = self._split(block, terms.part(slice(number, None)), *of_all)
            loss, d_terms, grad = loss + first, torch.cat([d_first, d_terms]), grad.add_(grad_first)
        else:
            loss, d_terms, grad = self._split(block, terms, *of_all)
        grad[row, column] += d_terms[number:][: len(row)]
        if self.d_own is not None:
            self.d_own[block.rows].view(-1)[place] = d_terms[number + len(row) :] * self.inverse_temperature
        return loss, d_terms[:number], grad

    def _split(
        self, block: Block, terms: Terms, hierarchy: Tensor, chosen: Tensor | None, rest: MaskedSoftmax, own: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of terms whose denominator has hierarchy negatives, a rest and, ``own``, the term; its gradients."""
        local = LocalTerm(block.x, hierarchy, self.beta, block.negative if self.relative else None, self.whole)
        log_rest, log_local, log_size = (terms.of(part) for part in (rest.lse, local.log, local.log_size))
        log_debiased, active = debias(log_local, log_size, terms.mean, self.tau_plus, self.inverse_temperature)
        log_denominator = torch.logaddexp(log_rest, log_debiased)
        if own:
            log_denominator = torch.logaddexp(terms.x, log_denominator)
        else:  # a row that has lost all of its negatives has no denominator
            log_denominator = log_denominator.masked_fill(log_denominator == -torch.inf, 0)
        loss = (terms.weight * (log_denominator - terms.x)).sum()

        # Shares of the denominator: each is the derivative of its log with respect to a part's log.
        log_norm = log_denominator + math.log1p(-self.tau_plus)
        local_share = (log_debiased - log_denominator).exp()
        d_rest = terms.weight * (log_rest - log_denominator).exp()
        d_positive = -d_rest - terms.weight * local_share if own else -terms.weight
        d_local = torch.where(active, terms.weight * (log_local - log_norm).exp(), 0.0)
        if self.tau_plus > 0:
            taken = math.log(self.tau_plus) + log_size + terms.mean - log_norm
            d_positive = d_positive - torch.where(active, terms.weight * taken.exp(), 0.0)

        grad = rest.gradient(self.per_row(terms, d_rest, len(block.x)))
        local.add_gradient(grad, self.per_row(terms, d_local, len(block.x)))
        bounded = (~active & (log_debiased > -torch.inf)).to(block.x.dtype)
        if chosen is not None:  # what is seen is recorded once
            size = local.size if self.action.name == "weigh" else self.whole(chosen.sum(dim=1, dtype=torch.int32))
            self._record(terms, size, rest.lse, local.log, local_share, bounded)
        return loss, d_positive, grad

    def _with_relatives(self, block: Block, terms: Terms, chosen: Tensor) -> tuple[Terms, tuple[Tensor, ...]]:
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
        if self.pairs.anchor_groups is None or self.pairs.key_groups is None or not self.whole.final:
            return
        anchor, key = self.pairs.anchor_groups[rows, None], self.pairs.key_groups[None]
        if self.lists:
            row, column = chosen.nonzero(as_tuple=True)
            anchor, key, chosen = anchor[row, 0], key[0, column], chosen[row, column]
        known = chosen & (anchor >= 0) & (key >= 0)
        self._add("superclass_share", known & (anchor == key), known)

    def _add(self, name: str, values: Tensor, number: Tensor) -> None:
        self._seen[name] += torch.stack([values.sum(), number.sum()])

    def _record(self, terms: Terms, size: Tensor, *values: Tensor) -> None:
        """Count up what a block has: |H(i)|, two values of rows and two of terms, which count if they have weight."""
        if self.whole.first:
            self._seen["hierarchy_negatives"][0].add_(size.sum())
        for name, value in zip(("log_global", "log_local", "local_share", "bounded"), values, strict=True):
            of_terms = name in ("local_share", "bounded")
            if self.whole.final if of_terms and terms.row is None else self.whole.first:
                counts = value.isfinite()
                counts = counts & (terms.weight > 0) if of_terms and not self.lists else counts
                self._add(name, torch.where(counts, value, 0.0), counts)

    def choice(self) -> Choice:
        if self.plain:
            return super().choice()
        what = self.action.name
        against = self.action.denominator
        cut = getattr(self.selector, "cut", None)
        others = self.kin is not None or self.own is not None or self.relative
        if cut is None or others or what not in ("weigh", "drop") or against not in ("own", "negatives"):
            raise UserError(f"performance.fused_loss=true {NOT_FUSED}")
        named = getattr(self.selector, "named", False)
        return Choice(True, cut, named, what == "weigh", against == "own", self.beta, self.tau_plus)

    def see(self, numbers: Tensor, terms: Tensor) -> None:
        super().see(numbers, terms)
        if self.selector is None:
            return
        _, rest, tilted, weights, positives, size, alike, known = numbers
        number = positives if self.positives == "outside" else (positives > 0).to(positives.dtype)
        self._seen["hierarchy_negatives"][0].add_(size.sum())
        self._add("superclass_share", alike, known)
        there = rest > -1e29  # kernels' log of an empty sum is finite
        self._add("log_global", torch.where(there, rest, 0.0), there)
        self._add("log_local", torch.where(size > 0, size.log() + tilted - weights, 0.0), size > 0)
        self._add("local_share", terms[4], number)
        self._add("bounded", terms[5], number)

    def seen(self) -> Stats:
        """Sums over the anchors of this process and of how many, detached (2,); only those that exist in this batch."""
        found = dict(self._seen)
        if self.selector is None:
            return {"hierarchy_negatives": found["hierarchy_negatives"]}
        if self.pairs.anchor_groups is None or self.pairs.key_groups is None:
            del found["superclass_share"]
        if (threshold := self.selector.threshold) is not None:
            value = torch.as_tensor(threshold).to(self.pairs.anchors).mean()  # a policy of one's own may give a number
            found["threshold"] = torch.stack([value, torch.ones_like(value)])
        return found


def means(seen: Stats) -> Stats:
    """Means, of sums and numbers (2,), or of what is one already, ()."""
    return {name: value[0] / value[1].clamp_min(1) if value.ndim else value for name, value in seen.items()}
