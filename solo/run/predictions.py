"""Probabilities at every level of a label tree from those of its classes, so that no level contradicts another."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solo.errors import UserError
from solo.eval.predictions import expected_heights
from solo.taxonomy import Taxonomy


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of N images."""

    probabilities: Tensor  # (N, C) of the classes; each row sums to 1
    tree: Taxonomy  # of the classes
    level: str | None = None  # which level `best` names; None: the classes
    k: int = 5  # how many it names
    # whether `best` are the classes of the least expected height of their common ancestor with the truth (CRM, see
    # `solo.eval.predictions.expected_heights`), not the most probable ones
    careful: bool = False

    def __len__(self) -> int:
        return len(self.probabilities)

    def at(self, level: str) -> Tensor:
        """(N, nodes): the probability of a node is the sum of those of the classes below it."""
        paths = torch.tensor(self.tree.path_table())[:, self.tree.levels.index(level)]
        known = paths >= 0  # classes that end above this level are below none of its nodes
        summed = self.probabilities.new_zeros(len(self), len(self.tree.names[self.tree.levels.index(level)]))
        return summed.index_add_(1, paths[known], self.probabilities[:, known])

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns that `best` chooses from: the nodes of `level`, else the classes."""
        return self.tree.class_names if self.level is None else self.tree.names[self.tree.levels.index(self.level)]

    @property
    def best(self) -> list[list[tuple[str, float]]]:
        """For each image the `k` most probable names with their probabilities, the best first; see `careful`."""
        table = self.probabilities if self.level is None else self.at(self.level)
        liking = table
        if self.careful and self.level is None:
            expected = torch.from_numpy(expected_heights(self.tree, table.double().numpy()))
            liking = -expected.masked_fill(table == 0, torch.inf)
        columns = liking.topk(min(self.k, table.shape[1]), dim=1).indices
        values = table.gather(1, columns)
        pairs = zip(columns.tolist(), values.tolist(), strict=True)
        return [[(self.names[c], v) for c, v in zip(*row, strict=True)] for row in pairs]

    def paths(self) -> Iterator[tuple[str, ...]]:
        """For each image the way down the tree by the best child at each step; its end may not be the best class."""
        tables = [self.at(level) for level in self.tree.levels]
        for row in range(len(self)):
            path: list[int] = []
            nodes = tuple(range(len(self.tree.names[0])))
            while nodes:
                level = len(path)
                path.append(max(nodes, key=lambda node: float(tables[level][row, node])))
                nodes = self.tree.children[level][path[-1]] if level + 1 < self.tree.num_levels else ()
            yield tuple(self.tree.names[level][node] for level, node in enumerate(path))


def predictions(
    logits: Tensor, tree: Taxonomy, k: int = 5, level: str | None = None, within: str | None = None
) -> Predictions:
    """Softmax of logits (N, C) over the classes, or over those below one node, `within`; `k` names for each image.

    Names are of `level`, None: of the classes. Classes outside of `within` get probability 0, the others sum to 1.
    Raises a `UserError`: k below 1, or no such level or node.
    """
    if k < 1:
        raise UserError(f"k={k} must be at least 1")
    if level is not None and level not in tree.levels:
        raise UserError(f"level={level!r} is unknown; choose one of {', '.join(tree.levels)}")
    logits = logits.float()
    if within is not None:
        outside = torch.ones(logits.shape[1], dtype=torch.bool)
        outside[list(_below(tree, within))] = False
        logits = logits.masked_fill(outside, -torch.inf)
    return Predictions(logits.softmax(dim=1), tree, level, k)


def _below(tree: Taxonomy, name: str) -> tuple[int, ...]:
    """The classes below the node of this name; of several the coarsest, or with `LEVEL:NAME` that one."""
    level, _, rest = name.partition(":")
    wanted = [(level, rest)] if level in tree.levels and rest else [(known, name) for known in tree.levels]
    for known, node in wanted:
        place = tree.levels.index(known)
        if node in tree.names[place]:
            return tree.leaves_under(place, tree.names[place].index(node))
    raise UserError(f"within={name!r} is no node of the label tree; its coarsest are {', '.join(tree.names[0][:10])}")
