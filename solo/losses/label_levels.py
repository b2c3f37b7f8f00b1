"""Labels at several levels: which node of the label tree each row of a batch belongs to, and what a level weighs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from solo import distributed
from solo.losses.pairs import Pairs, listed

NamedPenalty = Literal["released", "exp2", "linear", "constant"]
LevelPenalty = NamedPenalty | Sequence[float]

# lambda_l of level l = 0 (coarsest) to L - 1.
_PENALTIES: dict[str, Callable[[int, int], float]] = {
    "released": lambda level, levels: 2.0 ** (1 / (levels - level)),
    "exp2": lambda level, levels: 2.0**level,
    "linear": lambda level, levels: level + 1.0,
    "constant": lambda level, levels: 1.0,
}


def level_penalties(penalty: LevelPenalty, levels: int) -> list[float]:
    """``lambda_l`` of each of L levels, the coarsest first, by name (see ``_PENALTIES``) or as numbers of at least 0.

    Raises:
        ValueError: if the name is unknown, or the list does not fit.
    """
    if isinstance(penalty, str):
        if penalty not in _PENALTIES:
            raise ValueError(f"level_penalty={penalty!r} is unknown; choose {', '.join(_PENALTIES)} or a list")
        return [_PENALTIES[penalty](level, levels) for level in range(levels)]
    values = [float(value) for value in penalty]
    if len(values) != levels or not all(0 <= value < float("inf") for value in values):
        raise ValueError(f"level_penalty={values} must be {levels} numbers of at least 0, one a level, coarse first")
    return values


@dataclass(frozen=True, eq=False)
class LabelLevels:
    """Nodes of the label tree that the rows belong to, at each of L levels.

    Two rows share a node of level l if their labels agree, and are known, at levels 0 to l. Where a row is unknown,
    and everywhere below, its image is a node of its own: the views of one image share the nodes of all levels, so that
    they are partners at the finest level, whatever is known of their labels.
    """

    anchors: Tensor  # (M, L) node ids of the rows of this process, coarse first; in each level sorted as the labels are
    keys: Tensor  # (N, L) those of all processes

    @classmethod
    def of(cls, pairs: Pairs, labels: Tensor, key_labels: Tensor | None = None) -> LabelLevels:
        """The nodes of ``pairs``, whose anchors must be among its keys, with labels (M, L), coarse first, -1 unknown.

        ``key_labels`` (N, L) are those of its keys, if they are here already.

        Raises:
            ValueError: if the shapes do not fit together.
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

    def partners(self, rows: slice | Tensor, self_columns: Tensor) -> tuple[Tensor, Tensor]:
        """All partners of a block of anchors at any level, as a list of K pairs, sorted by anchor and level.

        Of each pair the place in a table (R, L) of anchors and levels where the common ancestry ends, (K,), and in the
        matrix (R, N) of anchors and keys, (K,), both flattened.

        Nodes are nested, and sorted as the labels are: in the order of the finest nodes the keys of every node stand
        side by side. So the partners at level l are the keys of the anchor's node there without those of its node
        below, two stretches, and no pair has to be looked at that isn't one. Their number is not known without waiting
        for a device; there all pairs are listed, and those that aren't partners have the place behind the table's last.
        """
        if not listed(self.keys):
            both = zip(self.anchors.T, self.keys.T, strict=True)
            shared = sum((mine[rows, None] == nodes).long() for mine, nodes in both)
            ends = (shared - 1).scatter_(1, self_columns[:, None], -1)  # type: ignore[union-attr]
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
