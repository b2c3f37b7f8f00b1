"""The multi-label losses pair by pair (equations 4, 6 and 7 of Zhang et al.), a block of rows at a time.

With ``x = s / temperature``, ``log D_i`` the log of anchor i's denominator and ``w_l(i) = lambda_l / (L A_l |P_l(i)|)``
(``A_l``: anchors that have a partner at level l), the loss is ``sum_l sum_i w_l(i) sum_p max(log D_i - x_ip, M_l)``
over p in P_l(i). ``M_l`` is the largest pair loss of all finer levels, -inf without the hierarchy constraint. A pair
at its bound has no gradient of its own: its weight goes to the worst pair of the finer levels.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from solo import distributed
from solo.losses.blockwise import RowLoss, blockwise
from solo.losses.info_nce import MaskedSoftmax
from solo.losses.label_levels import LabelLevels
from solo.losses.pairs import Pairs, listed

Rows = slice | Tensor


class RowSoftmax(Protocol):
    """Log of each row's denominator, ``lse`` (R,), and its gradient, as `MaskedSoftmax` has them."""

    lse: Tensor

    def gradient(self, per_row: Tensor) -> Tensor: ...


# (cosines (R, N), logits (R, N), which anchors, their own columns (R,)) -> denominators; changes none of them.
Denominator = Callable[[Tensor, Tensor, Rows, Tensor], RowSoftmax]


def everyone_else(similarity: Tensor, x: Tensor, rows: Rows, self_columns: Tensor) -> RowSoftmax:
    """The denominator of equation 3: all keys but the anchor itself."""
    return MaskedSoftmax(x, torch.ones_like(x, dtype=torch.bool).scatter_(1, self_columns[:, None], False))


class _Block(NamedTuple):
    """What R anchors have to do with their partners."""

    softmax: RowSoftmax  # of the denominators
    # (K,) place of each pair in a flattened table (R, L) of anchors and the levels where their ancestry ends
    cell: Tensor
    place: Tensor  # (K,) in the flattened matrix (R, N)
    x: Tensor  # (K,) its logit


class HierarchicalRows(RowLoss):
    """The loss of pairs whose anchors are among their keys.

    `cumulative`: partners at l are those whose common ancestry reaches l, not those where it ends there; `constrained`
    enforces the hierarchy constraint.

    Attributes:
        worst: the largest pair loss of each level and process; None without the constraint.
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
        super().__init__(pairs)
        self.levels, self.cumulative, self.denominator = levels, cumulative, denominator
        self.inverse_temperature = 1.0 / temperature
        assert pairs.offset is not None
        self.self_columns = pairs.offset + torch.arange(len(pairs.anchors), device=pairs.anchors.device)
        self.size = levels.partner_counts(cumulative).to(pairs.anchors.dtype)
        has = self.size > 0
        if len(levels.keys) > len(levels.anchors):  # those of all processes are known here
            everyone = LabelLevels(levels.keys, levels.keys).partner_counts(cumulative)
            anchors = (everyone > 0).sum(dim=0).to(self.size.dtype) / distributed.world_size()  # per process
        else:
            anchors = distributed.all_reduce_mean(has.sum(dim=0).to(self.size.dtype))
        weight = torch.tensor(penalties, dtype=self.size.dtype).to(self.size.device, non_blocking=True) / levels.number
        weight = weight / anchors.clamp_min(1 / distributed.world_size())
        self.per_pair = has * weight / self.size.clamp_min(1)
        self.held = torch.zeros_like(weight)
        self._surveyed: _Block | None = None  # not made twice where it is the only one
        asked = constrained and (len(pairs.anchors) > 0 or distributed.is_distributed())
        self.worst = _worst_pairs(self, self._survey()) if asked else None
        # ``M_l`` of each level: the largest loss of the finer levels, -inf for the finest
        self.bounds = None
        if self.worst is not None:
            finer = self.worst.loss.amax(dim=0).flip(0).cummax(dim=0).values.flip(0)
            self.bounds = torch.cat((finer[1:], finer.new_full((1,), -torch.inf)))

    def logits(self, similarity: Tensor, rows: Rows) -> tuple[Tensor, RowSoftmax]:
        """Logits and denominators of a block."""
        x = similarity * self.inverse_temperature
        return x, self.denominator(similarity, x, rows, self.self_columns[rows])

    def _block(self, rows: slice) -> _Block:
        x, softmax = self.logits(self.pairs.similarity(rows), rows)
        cell, place = self.levels.partners(rows, self.self_columns[rows])
        return _Block(softmax, cell, place, x.flatten().index_select(0, place))

    def _survey(self) -> Tensor:
        """(M, L) largest pair loss of each anchor at each level, -inf where it has no partner."""
        worst = []
        for rows in self.pairs.blocks():
            block = self._block(rows)
            lowest = block.x.new_full((len(block.softmax.lse) * self.levels.number + 1,), torch.inf)
            lowest = lowest.scatter_reduce_(0, block.cell, block.x, "amin")[:-1].view(-1, self.levels.number)
            if self.cumulative:
                lowest = lowest.flip(1).cummin(dim=1).values.flip(1)
            worst.append(block.softmax.lse[:, None] - lowest)
            self._surveyed = block if len(worst) == 1 else None
        return torch.cat(worst)

    def __call__(self, rows: slice) -> tuple[Tensor, Tensor]:
        softmax, cell, place, x = self._surveyed or self._block(rows)
        self._surveyed = None
        weight, free, held = self._weights(x, cell, softmax.lse, rows)
        per_row, loss = free.sum(dim=1), x.new_zeros(())
        if self.bounds is not None:
            per_level = held.sum(dim=0)
            self.held += per_level
            loss = torch.where(per_level > 0, per_level * self.bounds, 0.0).sum()
        lse = softmax.lse.masked_fill(per_row == 0, 0)  # a single row has nobody to be compared with
        loss = loss + (per_row * lse).sum() - torch.dot(weight, x)
        grad = softmax.gradient(per_row)
        grad.view(-1).index_add_(0, place, weight, alpha=-1)
        return loss, grad.mul_(self.inverse_temperature)

    def _weights(self, x: Tensor, cell: Tensor, lse: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """What counts of R anchors and their K pairs.

        Returns:
            Weight of each pair over all levels at which it isn't at its bound, (K,); weight of each anchor's pairs at
            each level that are not, and of those that are, (R, L).
        """
        per_pair, size = self.per_pair[rows], self.size[rows]
        if self.bounds is None:
            weights = per_pair.cumsum(dim=1) if self.cumulative else per_pair
            return F.pad(weights.flatten(), (0, 1)).index_select(0, cell), per_pair * size, torch.zeros_like(size)
        # One place more, for pairs that are no partners.
        limit = F.pad((lse[:, None] - self.bounds).flatten(), (0, 1), value=torch.inf)
        flat = F.pad(per_pair.flatten(), (0, 1))
        at_bound = x >= limit.index_select(0, cell)  # False for a bound that is not finite
        weight = flat.index_select(0, cell).mul_(~at_bound)
        held = torch.zeros_like(flat).index_add_(0, cell, at_bound.to(flat.dtype))
        if self.cumulative:  # a pair counts at all levels above the one where its ancestry ends, too
            pair, above = torch.arange(len(cell), device=cell.device), cell % self.levels.number
            for step in range(1, self.levels.number):
                if listed(x):
                    further = (above >= step).nonzero()[:, 0]
                    pair, above = pair.index_select(0, further), above.index_select(0, further)
                    here = cell.index_select(0, pair) - step
                else:
                    here = (cell - step).masked_fill(above < step, len(flat) - 1)
                at_bound = x.index_select(0, pair) >= limit.index_select(0, here)
                weight.index_add_(0, pair, flat.index_select(0, here).mul_(~at_bound))
                held.index_add_(0, here, at_bound.to(flat.dtype))
        held = held[:-1].view_as(size)
        return weight, per_pair * (size - held), per_pair * held


class _Worst(NamedTuple):
    """The pair of the largest loss at each level, of each process."""

    loss: Tensor  # (processes, L), -inf where there is none
    # of each process or, where its keys are its own, of this one
    column: Tensor  # (processes, L) its anchor's, among the keys
    rate: Tensor  # (processes, L, N) gradient of its loss with respect to the anchor's cosines


@torch.no_grad()
def _worst_pairs(rows: HierarchicalRows, worst: Tensor) -> _Worst:
    """Of all processes; `worst` (M, L) are the largest losses of this one's anchors."""
    if not len(worst):
        none = worst.new_zeros(1, worst.shape[1])
        return _Worst(distributed.gather(none - torch.inf), none.long(), none[:, :, None])
    loss, index = worst.max(dim=0)
    level, columns = torch.arange(len(index), device=index.device), rows.self_columns[index]
    with torch.autocast(worst.device.type, enabled=False):
        x, softmax = rows.logits(rows.pairs.anchors[index] @ rows.pairs.keys.T, index)
    cell, place = rows.levels.partners(index, columns)
    row = cell.div(rows.levels.number, rounding_mode="floor").clamp_(max=len(index) - 1)
    ends, asked = cell % rows.levels.number, level[row]
    chosen = ends >= asked if rows.cumulative else ends == asked
    if listed(x):
        place = place[chosen]
        meant = torch.full_like(x, torch.inf)
        meant.view(-1)[place] = x.flatten()[place]
    else:
        meant = x.masked_fill(~(chosen & (cell < len(index) * rows.levels.number)).view_as(x), torch.inf)
    rate = softmax.gradient(torch.ones_like(loss))
    rate[level, meant.argmin(dim=1)] -= 1
    rate = rate.mul_(rows.inverse_temperature).masked_fill_(loss[:, None] == -torch.inf, 0)
    if len(rows.pairs.keys) == len(rows.pairs.anchors):  # of this process, of which others may have more or fewer
        return _Worst(distributed.gather(loss[None]), columns[None], rate[None])
    return _Worst(*distributed.gather_each(loss[None], columns[None], rate[None]))


def hierarchical_rows_loss(rows: HierarchicalRows) -> Tensor:
    """The loss of all rows, a scalar with gradient to anchors and keys."""
    loss = blockwise(rows)
    if rows.worst is None:
        return loss
    # The bounds are losses of pairs, too: one pair in the world gives each, and gets from every process the weight that
    # is held there, as a key whose row all have.
    best, owner = rows.worst.loss.max(dim=0)
    apart = len(rows.worst.column) < len(rows.worst.loss)  # only the owner has the rows of such a pair
    held = distributed.all_reduce_sum(rows.held) if apart else rows.held
    finest_first, source = best.flip(0).cummax(dim=0)
    source = (len(best) - 1 - source).flip(0)  # level whose worst pair is the largest of level l and all finer ones
    moved = torch.zeros_like(held).index_add_(0, source[1:], held[:-1])
    if apart:
        moved, owner = moved.masked_fill(owner != distributed.rank(), 0), torch.zeros_like(owner)
    if not len(rows.pairs.keys):
        return loss
    level, keys = torch.arange(len(best), device=best.device), rows.pairs.keys
    with torch.autocast(keys.device.type, enabled=False):
        cosines = keys[rows.worst.column[owner, level]] @ keys.T
        worst = (moved[:, None] * rows.worst.rate[owner, level] * cosines).sum()
    return loss + (worst - worst.detach())  # its value is counted already
