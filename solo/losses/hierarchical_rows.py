"""The multi-label losses pair by pair (equations 4, 6 and 7 of Zhang et al.), a block of rows at a time.

With ``x = s / temperature``, ``log D_i`` the log of anchor i's denominator and ``w_l(i) = lambda_l / (L A_l |P_l(i)|)``
(``A_l``: anchors that have a partner at level l), the loss is ``sum_l sum_i w_l(i) sum_p max(log D_i - x_ip, M_l)``
over p in P_l(i). ``M_l`` is the largest pair loss of all finer levels, -inf without the hierarchy constraint. A pair
at its bound has no gradient of its own: its weight goes to the worst pair of the finer levels, in ``_WorstRows``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

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


class _Block(NamedTuple):
    """What R anchors have to do with their partners; a pair counts once a level at which the two are partners.

    Attributes:
        softmax: of the denominators.
        row: (K,) anchor of each pair, within the block.
        place: (K,) in the flattened matrix (R, N).
        table: (K,) in a flattened table (R, L) of anchors and levels.
        x: (K,) its logit.
    """

    softmax: RowSoftmax
    row: Tensor
    place: Tensor
    table: Tensor
    x: Tensor


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
        self._surveyed: _Block | None = None  # not made twice where it is the only one
        self.worst = self._survey() if constrained else None
        self.bounds = None if self.worst is None else bounds(self.worst)

    def logits(self, similarity: Tensor, rows: Rows) -> tuple[Tensor, RowSoftmax]:
        """Logits and denominators of a block."""
        x = similarity * self.inverse_temperature
        return x, self.denominator(similarity, x, rows, self.own[rows])

    def _block(self, similarity: Tensor, rows: slice) -> _Block:
        x, softmax = self.logits(similarity, rows)
        row, place, level = self.levels.partners(rows, self.own[rows], self.cumulative)
        return _Block(softmax, row, place, row * self.levels.number + level, x.flatten()[place])

    def _survey(self) -> Tensor:
        worst = []
        for rows in self.pairs.blocks():
            block = self._block(self.pairs.similarity(rows), rows)
            lowest = block.x.new_full((len(block.softmax.lse) * self.levels.number,), torch.inf)
            lowest.scatter_reduce_(0, block.table, block.x, "amin")
            worst.append(block.softmax.lse[:, None] - lowest.view(-1, self.levels.number))
            self._surveyed = block if len(worst) == 1 else None
        return torch.cat(worst)

    def __call__(self, similarity: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Summed loss of a block and its gradient with respect to the similarities (R, N)."""
        softmax, row, place, table, x = self._surveyed or self._block(similarity, rows)
        self._surveyed = None
        weight, per_row = self.per_pair[rows].flatten()[table], self.per_row[rows]
        held = x.new_zeros(())
        if self.bounds is not None:
            at_bound = x >= (softmax.lse[:, None] - self.bounds).flatten()[table]  # False for what is not finite
            per_level = torch.zeros_like(self.per_pair[rows]).flatten().index_add_(0, table, weight * at_bound)
            per_level = per_level.view(-1, self.levels.number).sum(dim=0)
            self.held += per_level
            held = torch.where(per_level > 0, per_level * self.bounds, 0.0).sum()
            weight = weight.masked_fill(at_bound, 0)
            per_row = torch.zeros_like(per_row).index_add_(0, row, weight)
        lse = softmax.lse.masked_fill(per_row == 0, 0)  # a single row has nobody to be compared with
        loss = (per_row * lse).sum() - (weight * x).sum() + held
        grad = softmax.gradient(per_row)
        grad.view(-1).index_add_(0, place, weight, alpha=-1)
        return loss, grad.mul_(self.inverse_temperature)

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
        row, place, level = parent.levels.partners(index, parent.own[index], parent.cumulative)
        place = place[level == self.level[rows][row]]
        meant = torch.full_like(x, torch.inf)
        meant.view(-1)[place] = x.flatten()[place]
        lowest, column = meant.min(dim=1)
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
