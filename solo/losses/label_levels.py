"""Labels at several levels: which node of the label tree each row of a batch belongs to, and what a level weighs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from solo import distributed
from solo.losses.pairs import Pairs

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
    """``lambda_l`` of each level, the coarsest first.

    Args:
        penalty: ``released`` 2^(1/(L - l)), ``exp2`` 2^l, ``linear`` l + 1, ``constant`` 1, with l = 0 for the
            coarsest; or one number a level, at least 0.
        levels: L.

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

    Attributes:
        anchors: (M, L) node ids of the rows of this process, coarse first; in each level sorted as the labels are.
        keys: (N, L) those of all processes.
    """

    anchors: Tensor
    keys: Tensor

    @classmethod
    def of(cls, pairs: Pairs, labels: Tensor) -> LabelLevels:
        """The nodes of ``pairs``, whose anchors must be among its keys.

        Args:
            pairs: who is compared with whom; its ids say which rows are views of one image.
            labels: (M, L) labels of its anchors, coarse first, -1 for unknown.

        Raises:
            ValueError: if the shapes do not fit together.
        """
        if labels.ndim != 2 or len(labels) != len(pairs.anchors) or not labels.shape[1]:
            raise ValueError(f"expected labels (M, L) for {len(pairs.anchors)} rows, got {tuple(labels.shape)}")
        assert pairs.offset is not None, "label levels need anchors that are among the keys"
        labels = labels.to(pairs.anchors.device)
        if len(pairs.keys) != len(pairs.anchors):
            labels = distributed.gather_no_grad(labels)
        nodes = label_nodes(labels, pairs.key_ids)
        return cls(nodes[pairs.offset : pairs.offset + len(pairs.anchors)], nodes)

    @property
    def number(self) -> int:
        """L."""
        return self.keys.shape[1]

    def sizes(self) -> Tensor:
        """(M, L) how many keys share the anchor's node, itself left out."""
        counts = [torch.bincount(nodes)[mine] for nodes, mine in zip(self.keys.T, self.anchors.T, strict=True)]
        return torch.stack(counts, dim=1) - 1

    def partner_counts(self, cumulative: bool) -> Tensor:
        """(M, L) ``|P_l(i)|``, the sizes of what ``partners`` gives."""
        sizes = self.sizes()
        if not cumulative:
            sizes[:, :-1] -= sizes[:, 1:].clone()
        return sizes

    def partners(self, rows: slice | Tensor, own: Tensor, cumulative: bool) -> tuple[Tensor, Tensor, Tensor]:
        """``P_l(i)`` of a block of anchors, as a list: keys whose common ancestry ends at l, or (cumulative) reaches l.

        Args:
            rows: which anchors.
            own: (R,) their columns among the keys; nobody is a partner of itself.
            cumulative: see above.

        Returns:
            Row within the block (K,), place in the flattened matrix (R, N) (K,), and level (K,) of each pair.
        """
        depth = torch.zeros((), dtype=torch.uint8, device=own.device)  # nodes are nested: counting them is enough
        for mine, nodes in zip(self.anchors.T, self.keys.T, strict=True):
            depth = depth + (mine[rows, None] == nodes).view(torch.uint8)
        depth = depth.scatter_(1, own[:, None], 0).flatten()
        place = depth.nonzero()[:, 0]
        level = depth[place].long() - 1
        if cumulative:
            reach = [(level >= least).nonzero()[:, 0] for least in range(self.number)]
            level = torch.cat([torch.full_like(pairs, least) for least, pairs in enumerate(reach)])
            place = place[torch.cat(reach)]
        return place.div(len(self.keys), rounding_mode="floor"), place, level


def label_nodes(labels: Tensor, ids: Tensor) -> Tensor:
    """Node ids of each level, 0 to their number - 1, in the order of the labels.

    Args:
        labels: (N, L), coarse first, -1 for unknown; below an unknown level nothing counts as known.
        ids: (N,) ids of the images.

    Returns:
        (N, L) of int32.
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
    ranks: Tensor = torch.unique(values, return_inverse=True)[1]  # type: ignore[no-untyped-call]
    return ranks
