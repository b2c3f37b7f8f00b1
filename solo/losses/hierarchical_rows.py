"""Labels at several levels, and the multi-label losses pair by pair: equations 4, 6 and 7 of Zhang et al.

With ``x = s / temperature``, ``log D_i`` the log of anchor i's denominator and ``w_l(i) = lambda_l / (L A_l |P_l(i)|)``
(``A_l``: anchors that have a partner at level l), the loss is ``sum_l sum_i w_l(i) sum_p max(log D_i - x_ip, M_l)``
over p in P_l(i). ``M_l`` is the largest pair loss of all finer levels, -inf without the hierarchy constraint. A pair
at its bound has no gradient of its own: its weight goes to the worst pair of the finer levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from solo import distributed
from solo.losses.info_nce import MaskedSoftmax, RowLoss, blockwise
from solo.losses.pairs import Pairs, listed

Rows = slice | Tensor


@dataclass(frozen=True, eq=False)
class LabelLevels:
    """Nodes of the label tree that the rows belong to, at each of L levels.

    Two rows share a node of level l if their labels agree, and are known, at levels 0 to l. Where a row is unknown,
    and below, its image is a node of its own, so that the views of an image are partners at the finest level always.
    """

    anchors: Tensor  # (M, L) node ids of the rows of this process, coarse first; in each level sorted as the labels are
    keys: Tensor  # (N, L) those of all processes

    @classmethod
    def of(cls, pairs: Pairs, labels: Tensor, key_labels: Tensor | None = None) -> LabelLevels:
        """The nodes of ``pairs``, whose anchors must be among its keys, with labels (M, L), coarse first, -1 unknown.

        ``key_labels`` (N, L) are those of its keys, if they are here already.
        """
        if labels.ndim != 2 or len(labels) != len(pairs.anchors) or not labels.shape[1]:
            raise ValueError(f"expected labels (M, L) for {len(pairs.anchors)} rows, got {tuple(labels.shape)}")
        assert pairs.offset is not None, "label levels need anchors that are among the keys"
        if key_labels is None:
            key_labels = labels.to(pairs.anchors.device)
            if len(pairs.keys) != len(pairs.anchors):
                key_labels = distributed.gather_no_grad(key_labels)
        nodes = label_nodes(key_labels, pairs.key_ids)
        return cls(nodes[pairs.offset : pairs.offset + len(pairs.anchors)], nodes)

    @property
    def number(self) -> int:
        """L, the number of levels."""
        return self.keys.shape[1]

    def partner_counts(self, cumulative: bool) -> Tensor:
        """(M, L) ``|P_l(i)|``: keys whose common ancestry with the anchor ends at l, or (cumulative) reaches l."""
        starts, ends = self._spans
        sizes = ends - starts - 1
        if not cumulative:
            sizes[:, :-1] -= sizes[:, 1:].clone()
        return sizes

    def ends(self, rows: Rows, self_columns: Tensor) -> Tensor:
        """(R, N) level where the common ancestry of anchor and key ends; -1 where there is none, and for the anchor."""
        both = zip(self.anchors.T, self.keys.T, strict=True)
        shared: Any = sum((mine[rows, None] == nodes).long() for mine, nodes in both)
        return (shared - 1).scatter_(1, self_columns[:, None], -1)  # type: ignore[no-any-return]

    def partners(self, rows: Rows, self_columns: Tensor) -> tuple[Tensor, Tensor]:
        """All partners of a block of anchors at any level, as a list of K pairs, sorted by anchor and level.

        Of each pair the place in a table (R, L) of anchors and levels where the common ancestry ends, (K,), and in the
        matrix (R, N) of anchors and keys, (K,), both flattened.

        In the order of the finest nodes, which are nested, the keys of every node stand side by side. So the partners
        at level l are two stretches: the keys of the anchor's node there without those of its node below. Their number
        is not known without waiting for a device; there all pairs are listed, non-partners behind the table's last.
        """
        if not listed(self.keys):
            ends = self.ends(rows, self_columns)
            cells = ends + self.number * torch.arange(len(ends), device=ends.device)[:, None]
            cells = cells.masked_fill(ends < 0, len(ends) * self.number).flatten()
            return cells, torch.arange(len(cells), device=cells.device)
        order, place = self._order
        low, high = (ends[rows] for ends in self._spans)
        mine = place[self_columns, None]
        # (R, L, 2) starts and ends of the stretches
        first = torch.stack((low, torch.cat((high[:, 1:], mine + 1), dim=1)), dim=2)
        last = torch.stack((torch.cat((low[:, 1:], mine), dim=1), high), dim=2)
        length = last - first
        levels = length.sum(dim=2).flatten()
        number = int(levels.sum())
        cells = torch.arange(len(levels), device=self_columns.device).repeat_interleave(levels, output_size=number)
        length = length.flatten()
        shift = first.flatten() - (length.cumsum(0) - length)
        at = shift.repeat_interleave(length, output_size=number).add_(torch.arange(number, device=self_columns.device))
        start = len(order) * torch.arange(len(self_columns), device=self_columns.device)
        rows_of = start.repeat_interleave(levels.view(len(self_columns), -1).sum(dim=1), output_size=number)
        return cells, order.index_select(0, at).add_(rows_of)  # several times faster than order[at]

    @cached_property
    def _order(self) -> tuple[Tensor, Tensor]:
        """Keys in the order of their finest nodes, and the place of each key in it."""
        order = self.keys[:, -1].argsort(stable=True)
        return order, torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))

    @cached_property
    def _spans(self) -> tuple[Tensor, Tensor]:
        """Where in that order the anchor's nodes start and end, (M, L) each."""
        starts, ends = [], []
        for nodes, mine in zip(self.keys.T, self.anchors.T, strict=True):
            sizes = torch.zeros(len(nodes), dtype=torch.long, device=nodes.device)
            sizes.scatter_add_(0, nodes.long(), torch.ones_like(sizes))
            ends.append(sizes.cumsum(0)[mine])
            starts.append(ends[-1] - sizes[mine])
        return torch.stack(starts, dim=1), torch.stack(ends, dim=1)


def label_nodes(labels: Tensor, ids: Tensor) -> Tensor:
    """Node ids (N, L) of each level, 0 to their number - 1, in the order of the labels (N, L); `ids` (N,) are images.

    Below an unknown level, -1, nothing counts as known.
    """
    image = numbered(ids)
    node = torch.zeros_like(image)
    known = torch.ones_like(image, dtype=torch.bool)
    levels = []
    for label in labels.T:
        known = known & (label >= 0)
        code = numbered(torch.where(known, label, -1 - image))
        node = numbered(node * len(ids) + code)
        levels.append(node.int())
    return torch.stack(levels, dim=1)


def numbered(values: Tensor) -> Tensor:
    """The rank of each value (N,) among the different ones, 0 to their number - 1."""
    ordered, order = values.sort()
    ranks = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
    return torch.empty_like(ranks).scatter_(0, order, ranks)


class RowSoftmax(Protocol):
    """What `MaskedSoftmax` has: the log of each row's denominator, (R,), and its gradient."""

    lse: Tensor

    def gradient(self, per_row: Tensor) -> Tensor: ...


# (cosines (R, N), logits (R, N), which anchors, their own columns (R,), levels) -> denominators; changes none of them.
Denominator = Callable[[Tensor, Tensor, Rows, Tensor, LabelLevels], RowSoftmax]


class _Worst(NamedTuple):
    """The pair of the largest loss at each level, of each process."""

    loss: Tensor  # (processes, L), -inf where there is none
    # of each process or, where its keys are its own, of this one
    column: Tensor  # (processes, L) its anchor's, among the keys
    rate: Tensor  # (processes, L, N) gradient of its loss with respect to the anchor's cosines


class HierarchicalRows(RowLoss):
    """The loss of pairs whose anchors are among their keys, `constrained` by the hierarchy or not.

    `cumulative`: partners at l are those whose common ancestry reaches l, not those where it ends there.
    """

    def __init__(
        self,
        pairs: Pairs,
        levels: LabelLevels,
        penalties: list[float],
        temperature: float,
        constrained: bool,
        cumulative: bool,
        denominator: Denominator | None,
    ) -> None:
        super().__init__(pairs)
        self.levels, self.cumulative, self.denominator = levels, cumulative, denominator
        self.inverse_temperature = 1.0 / temperature
        assert pairs.offset is not None, "label levels need anchors that are among the keys"
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
        self.held = torch.zeros_like(weight)  # (L,) weight of the pairs at their bound, added up block by block
        self._surveyed: tuple[RowSoftmax, Tensor, Tensor, Tensor] | None = None  # of the only block, not made twice
        asked = constrained and (len(pairs.anchors) > 0 or distributed.is_distributed())
        self.worst = self._worst_pairs() if asked else None
        self.bounds = None  # ``M_l`` of each level: the largest loss of the finer levels, -inf for the finest
        if self.worst is not None:
            finer = self.worst.loss.amax(dim=0).flip(0).cummax(dim=0).values.flip(0)
            self.bounds = torch.cat((finer[1:], finer.new_full((1,), -torch.inf)))

    def logits(self, similarity: Tensor, rows: Rows) -> tuple[Tensor, RowSoftmax]:
        """Logits and denominators of a block; of equation 3, these are all keys but the anchor itself."""
        x, own = similarity * self.inverse_temperature, self.self_columns[rows]
        if self.denominator is not None:
            return x, self.denominator(similarity, x, rows, own, self.levels)
        return x, MaskedSoftmax(x, torch.ones_like(x, dtype=torch.bool).scatter_(1, own[:, None], False))

    def _block(self, rows: slice) -> tuple[RowSoftmax, Tensor, Tensor, Tensor]:
        """The denominators of R anchors; cell and place of each of their K pairs, see `partners`, and its logit."""
        x, softmax = self.logits(self.pairs.similarity(rows), rows)
        cell, place = self.levels.partners(rows, self.self_columns[rows])
        return softmax, cell, place, x.flatten().index_select(0, place)

    @torch.no_grad()
    def _worst_pairs(self) -> _Worst:
        pairs, found = self.pairs, []  # largest pair losses of each anchor at each level, -inf where it has no partner
        for rows in pairs.blocks():
            softmax, cell, place, x = self._block(rows)
            lowest = x.new_full((len(softmax.lse) * self.levels.number + 1,), torch.inf)
            lowest = lowest.scatter_reduce_(0, cell, x, "amin")[:-1].view(-1, self.levels.number)
            if self.cumulative:
                lowest = lowest.flip(1).cummin(dim=1).values.flip(1)
            found.append(softmax.lse[:, None] - lowest)
            self._surveyed = (softmax, cell, place, x) if len(found) == 1 else None
        if not found:
            none = self.held.new_zeros(1, self.levels.number)
            return _Worst(distributed.gather(none - torch.inf), none.long(), none[:, :, None])
        loss, index = torch.cat(found).max(dim=0)
        level, columns = torch.arange(len(index), device=index.device), self.self_columns[index]
        with torch.autocast(loss.device.type, enabled=False):
            x, softmax = self.logits(pairs.anchors[index] @ pairs.keys.T, index)
        ends, asked = self.levels.ends(index, columns), level[:, None]
        partner = ends >= asked if self.cumulative else ends == asked
        rate = softmax.gradient(torch.ones_like(loss))
        rate[level, x.masked_fill(~partner, torch.inf).argmin(dim=1)] -= 1
        rate = rate.mul_(self.inverse_temperature).masked_fill_(loss[:, None] == -torch.inf, 0)
        if len(pairs.keys) == len(pairs.anchors):  # of this process, of which others may have more or fewer
            return _Worst(distributed.gather(loss[None]), columns[None], rate[None])
        return _Worst(*distributed.gather_each(loss[None], columns[None], rate[None]))

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
        """Weight of each of K pairs, (K,), over all levels at which it isn't at its bound.

        And weight of each anchor's pairs at each level that are not at it, and of those that are, (R, L).
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
            for step in range(1, self.levels.number):
                here = (cell - step).masked_fill(cell % self.levels.number < step, len(flat) - 1)
                at_bound = x >= limit.index_select(0, here)
                weight += flat.index_select(0, here).mul_(~at_bound)
                held.index_add_(0, here, at_bound.to(flat.dtype))
        held = held[:-1].view_as(size)
        return weight, per_pair * (size - held), per_pair * held


def hierarchical_rows_loss(rows: HierarchicalRows) -> Tensor:
    """The loss of all rows, a scalar with gradient to anchors and keys."""
    loss = blockwise(rows)
    if rows.worst is None:
        return loss
    # Bounds are losses of pairs, too: one pair in the world gives each, and gets the weight that all processes hold.
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
