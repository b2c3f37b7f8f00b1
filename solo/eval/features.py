"""What every offline analysis looks at: features with their labels, and what is known of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from solo.errors import UserError
from solo.taxonomy import UNKNOWN, Taxonomy


@dataclass(frozen=True)
class FeatureTable:
    """Features of images, in their order, in CPU memory.

    Raises:
        UserError: the three don't fit each other, or features are not finite.
    """

    features: Tensor  # (n, d) float32
    labels: Tensor  # (n, L) int64, a node number of each level, coarse first, -1 unknown; L = 0 without labels
    paths: tuple[str, ...] = ()  # file of each image, or empty where the images are no files

    def __post_init__(self) -> None:
        """Refuse what no measure could use, so that none has to look."""
        n = len(self.features)
        if self.features.ndim != 2 or not self.features.numel():
            raise UserError(f"features of shape {tuple(self.features.shape)} are no table; give (images, numbers)")
        if self.labels.ndim != 2 or len(self.labels) != n:
            raise UserError(f"labels of shape {tuple(self.labels.shape)} don't fit {n} features; give ({n}, levels)")
        if self.paths and len(self.paths) != n:
            raise UserError(f"{len(self.paths)} paths don't fit {n} features; give one for each, or none")
        parts = torch.split(self.features, 65536)
        # Nor may their lengths be infinite, or so small that no cosine can be told.
        lengths = torch.cat([part.norm(dim=1) for part in parts])
        broken = int((~lengths.isfinite()).sum())
        if small := int((self.features[lengths < 1e-12] != 0).any(dim=1).sum()):
            raise UserError(f"{small} of {n} features are shorter than 1e-12, and have no direction; scale them up")
        if broken:
            raise UserError(f"{broken} of {n} features are not finite; the network or file that gave them is broken")

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, index: Tensor) -> FeatureTable:
        """Some of the rows: row numbers (m,), or a bool mask (n,)."""
        index = index.nonzero()[:, 0] if index.dtype == torch.bool else index
        paths = tuple(self.paths[row] for row in index.tolist()) if self.paths else ()
        return FeatureTable(self.features[index], self.labels[index], paths)


@dataclass(frozen=True)
class Features:
    """One model's features of one data set."""

    name: str  # of the model, for titles
    kind: str  # `backbone` (representation) or `projector` (projection)
    val: FeatureTable  # the images that are measured
    train: FeatureTable | None = None  # those that vote and that classifiers learn from; None if there are none
    levels: tuple[str, ...] = ()  # names of the columns of the labels, coarse first
    # the label tree; column l of the labels holds nodes of its level l. None where the labels form none
    tree: Taxonomy | None = None
    # (len(val),) bool, True for queries and False for the gallery, where the data set has such a split
    queries: Tensor | None = None
    unseen: tuple[str, ...] = ()  # names of the finest level's classes that pretraining left out
    facts: Mapping[str, Any] = field(default_factory=dict)  # how the features came about, plain values for JSON

    def class_names(self, level: int) -> tuple[str, ...]:
        """Names of the classes of a level, by number."""
        if self.tree is not None:
            return self.tree.names[level]
        tables = [table for table in (self.train, self.val) if table is not None]
        return tuple(str(number) for number in range(max(int(x.labels[:, level].max()) for x in tables) + 1))


def infer_tree(labels: Tensor, levels: Sequence[str]) -> Taxonomy | None:
    """The tree that columns of labels (n, L), coarse first, -1 unknown, form; None if a node has two parents.

    Its nodes are named by their numbers.
    """
    if not len(levels) or (labels.amax(dim=0) < 0).any():
        return None
    counts = (labels.amax(dim=0) + 1).tolist()
    parents = []
    for upper, lower, count in zip(labels.T, labels.T[1:], counts[1:], strict=False):
        known = (upper >= 0) & (lower >= 0)
        pairs = torch.unique(torch.stack([lower[known], upper[known]], dim=1), dim=0)
        children = pairs[:, 0]
        if len(children.unique()) != len(children) or (lower[upper < 0] >= 0).any():
            return None
        of = torch.full((count,), UNKNOWN).scatter(0, children, pairs[:, 1])
        if (of < 0).any():  # a number that no image has: it has no parent, so there is no tree
            return None
        parents.append(tuple(of.tolist()))
    names = tuple(tuple(str(number) for number in range(count)) for count in counts)
    return Taxonomy(tuple(levels), names, tuple(parents))
