"""The multi-label losses pair by pair (equations 4, 6 and 7 of Zhang et al.), a block of rows at a time.

With ``x = s / temperature``, ``log D_i`` the log of anchor i's denominator and ``w_l(i) = lambda_l / (L A_l |P_l(i)|)``
(``A_l``: anchors that have a partner at level l), the loss is ``sum_l sum_i w_l(i) sum_p max(log D_i - x_ip, M_l)``
over p in P_l(i). ``M_l`` is the largest pair loss of all finer levels, -inf without the hierarchy constraint. A pair
at its bound has no gradient of its own: its weight goes to the worst pair of the finer levels, in ``_WorstRows``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from solo import distributed
from solo.losses.blockwise import blockwise
from solo.losses.info_nce import MaskedSoftmax
from solo.losses.label_levels import LabelLevels
from solo.losses.pairs import Pairs

Rows = slice | Tensor


class RowSoftmax(Protocol):
    """Log of each row's denominator, and its gradient.

    Attributes:
        lse: (R,).
    """

    lse: Tensor

    def gradient(self, per_row: Tensor) -> Tensor:
        """Gradient (R, N) of ``sum_i per_row_i * lse_i`` with respect to the logits; may be asked for once."""
        ...


# (cosines (R, N), logits (R, N), which anchors, their own columns (R,)) -> denominators; changes none of them.
Denominator = Callable[[Tensor, Tensor, Rows, Tensor], RowSoftmax]


def everyone_else(similarity: Tensor, x: Tensor, rows: Rows, own: Tensor) -> RowSoftmax:
    """The denominator of equation 3: all keys but the anchor itself."""
    return MaskedSoftmax(x, torch.ones_like(x, dtype=torch.bool).scatter_(1, own[:, None], False))


class HierarchicalRows:
    """Summed loss and gradient of a block of rows, for ``blockwise``.

    Args:
        pairs: who is compared with whom; its anchors are among its keys.
        levels: the label tree's nodes of its rows.
        penalties: ``lambda_l``, one a level.
        temperature: > 0.
        cumulative: partners at l are those whose common ancestry reaches l, not those where it ends there.
        constrained: enforce the hierarchy constraint.
        denominator: of the anchors; equation 3's unless given.

    Attributes:
        worst: (M, L) largest pair loss of each anchor at each level, -inf where it has no partner; None without
            the constraint.
        held: (L,) weight of the pairs at their bound, counted up block by block.
    """

    def __init__(
        self,
        pairs: Pairs,
        levels: LabelLevels,
        penalties: list[float],
        temperature: float,
        cumulative: bool,
        constrained: bool,
        denominator: Denominator = everyone_else,
    ) -> None:
        self.pairs, self.levels, self.cumulative, self.denominator = pairs, levels, cumulative, denominator
        self.inverse_temperature = 1.0 / temperature
        assert pairs.offset is not None
        self.own = pairs.offset + torch.arange(len(pairs.anchors), device=pairs.anchors.device)
        size = levels.partner_counts(cumulative).to(pairs.anchors.dtype)
        has = size > 0
        anchors = distributed.all_reduce_mean(has.sum(dim=0).to(size.dtype))  # per process
        weight = size.new_tensor(penalties) / levels.number / anchors.clamp_min(1 / distributed.world_size())
        self.per_row = (has * weight).sum(dim=1)
        self.per_pair = has * weight / size.clamp_min(1)
        self.held = torch.zeros_like(weight)
        self.worst = self._survey() if constrained else None
        self.bounds = None if self.worst is None else bounds(self.worst)

    def logits(self, similarity: Tensor, rows: Rows) -> tuple[Tensor, RowSoftmax]:
        """Logits and denominators of a block."""
        x = similarity * self.inverse_temperature
        return x, self.denominator(similarity, x, rows, self.own[rows])

    def _survey(self) -> Tensor:
        blocks = []
        for rows in self.pairs.blocks():
            x, softmax = self.logits(self.pairs.similarity(rows), rows)
            partners = self.levels.partners(rows, self.own[rows], self.cumulative)
            lowest = [x.masked_fill(~partner, torch.inf).amin(dim=1) for partner in partners]
            blocks.append(softmax.lse[:, None] - torch.stack(lowest, dim=1))
        return torch.cat(blocks)

    def __call__(self, similarity: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Summed loss of a block and its gradient with respect to the similarities (R, N)."""
        x, softmax = self.logits(similarity, rows)
        per_row, held = self.per_row[rows], x.new_zeros(())
        if self.bounds is None:
            weight = self._weights(x, rows)
        else:
            weight, per_level = self._free_weights(x, softmax.lse, rows)
            held = torch.where(per_level > 0, per_level * self.bounds, 0.0).sum()
            per_row = weight.sum(dim=1)
            self.held += per_level
        lse = softmax.lse.masked_fill(per_row == 0, 0)  # a single row has nobody to be compared with
        loss = (per_row * lse).sum() - (weight * x).sum() + held
        return loss, softmax.gradient(per_row).sub_(weight).mul_(self.inverse_temperature)

    def _weights(self, x: Tensor, rows: slice) -> Tensor:
        """(R, N) weight of each pair, at all its levels together; they are nested, so the deepest one decides."""
        per_pair = self.per_pair[rows].cumsum(dim=1) if self.cumulative else self.per_pair[rows]
        weight = torch.zeros_like(x)
        for level, shared in enumerate(self.levels.shared(rows, self.own[rows])):
            weight = torch.where(shared, per_pair[:, level, None], weight)
        return weight

    def _free_weights(self, x: Tensor, lse: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """(R, N) weight of the pairs above their bounds; (L,) weight of those at their bounds."""
        assert self.bounds is not None
        per_pair, weight = self.per_pair[rows], torch.zeros_like(x)
        held = torch.zeros_like(self.held)
        for level, partner in enumerate(self.levels.partners(rows, self.own[rows], self.cumulative)):
            free = x < (lse - self.bounds[level])[:, None]
            free |= x.isnan()  # has to come through
            at_bound = (partner & ~free).sum(dim=1)
            held[level] = (at_bound * per_pair[:, level]).sum()
            weight += (partner & free) * per_pair[:, level, None]
        return weight, held

    def scale(self) -> Tensor:
        """1: the weights hold everything."""
        return self.held.new_ones(())


def bounds(worst: Tensor) -> Tensor:
    """``M_l`` of each level, over all processes: the largest pair loss of the finer levels, -inf for the finest.

    Args:
        worst: (M, L) largest pair loss of each anchor at each level.
    """
    largest = distributed.gather_no_grad(_largest(worst)[None]).amax(dim=0)
    finer = largest.flip(0).cummax(dim=0).values.flip(0)
    return torch.cat((finer[1:], finer.new_full((1,), -torch.inf)))


def _largest(worst: Tensor) -> Tensor:
    return worst.amax(dim=0) if len(worst) else worst.new_full((worst.shape[1],), -torch.inf)


class _WorstRows:
    """``sum_k weight_k * (pair loss of one pair)``: the pairs that give the bounds, with the weight they hold.

    Args:
        parent: the loss of all rows.
        index: (K,) anchors.
        level: (K,) at which level the anchor's worst pair is meant.
        weight: (K,).
    """

    def __init__(self, parent: HierarchicalRows, index: Tensor, level: Tensor, weight: Tensor) -> None:
        self.parent, self.index, self.level, self.weight = parent, index, level, weight

    def __call__(self, similarity: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        parent, index, weight = self.parent, self.index[rows], self.weight[rows]
        x, softmax = parent.logits(similarity, index)
        levels = torch.stack(parent.levels.partners(index, parent.own[index], parent.cumulative))
        partner = levels[self.level[rows], torch.arange(len(index), device=index.device)]
        lowest, column = x.masked_fill(~partner, torch.inf).min(dim=1)
        loss = (weight * (softmax.lse - lowest)).sum()
        grad = softmax.gradient(weight)
        grad[torch.arange(len(index), device=index.device), column] -= weight
        return loss, grad.mul_(parent.inverse_temperature)

    def scale(self) -> Tensor:
        return self.weight.new_ones(())


def hierarchical_rows_loss(rows: HierarchicalRows) -> Tensor:
    """The loss of all rows, a scalar with gradient to anchors and keys."""
    loss = blockwise(rows.pairs, rows)
    if rows.worst is None:
        return loss
    # The bounds are losses of pairs too: one pair in the world gives each, and gets the weight that all processes hold.
    held, largest = distributed.all_reduce_sum(rows.held), _largest(rows.worst)
    everywhere = distributed.gather_no_grad(largest[None])
    best, owner = everywhere.max(dim=0)
    finest_first, source = best.flip(0).cummax(dim=0)
    source = (len(best) - 1 - source).flip(0)  # level whose worst pair is the largest of level l and all finer ones
    moved = torch.zeros_like(held).index_add_(0, source[1:], held[:-1])
    mine = ((owner == distributed.rank()) & (moved > 0)).nonzero()[:, 0]
    index = rows.worst.argmax(dim=0)[mine] if len(rows.worst) else mine
    few = replace(rows.pairs, anchors=rows.pairs.anchors[index], anchor_ids=rows.pairs.anchor_ids[index], offset=None)
    worst = blockwise(few, _WorstRows(rows, index, mine, moved[mine]))
    return loss + (worst - worst.detach())  # its value is counted already
