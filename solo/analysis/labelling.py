"""Who belongs to whom: the labels of the data, and where there are none, what the embedding itself suggests.

Every analysis looks at classes inside superclasses. A flat data set gets its superclasses, and one without labels its
classes too, from one embedding, the same ones for all models and epochs, so that these stay comparable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solo.errors import UserError
from solo.eval.classes import cluster as kmeans
from solo.eval.features import Features
from solo.eval.rows import Array
from solo.eval.tree import EmergentTree, centroids, emergent_tree


@dataclass(frozen=True)
class Labelling:
    """Labels of n images at L levels."""

    labels: Array  # (n, L) node numbers, coarse first, -1 unknown
    levels: tuple[str, ...]  # names of the levels
    names: tuple[tuple[str, ...], ...]  # of the nodes of each level
    superclass: int  # the column of the superclasses; the classes are the last column. Equal to it in a tiny label set
    given: int  # how many of the last columns are labels of the data; the others emerged
    protocol: str  # one sentence on where they come from

    @property
    def fine(self) -> Array:
        """(n,) class of each image."""
        return np.asarray(self.labels[:, -1])

    @property
    def coarse(self) -> Array:
        """(n,) superclass of each image."""
        return np.asarray(self.labels[:, self.superclass])

    @property
    def level(self) -> str:
        """Name of the classes' level."""
        return self.levels[-1]

    @property
    def superlevel(self) -> str:
        """Name of the superclasses' level."""
        return self.levels[self.superclass]

    @property
    def nested(self) -> bool:
        """Whether superclasses and classes are two things."""
        return self.superclass < len(self.levels) - 1

    def parents(self) -> list[int]:
        """Superclass of each class, -1 where no image says it."""
        found = [-1] * len(self.names[-1])
        known = (self.fine >= 0) & (self.coarse >= 0)
        for child, parent in np.unique(np.stack([self.fine[known], self.coarse[known]], axis=1), axis=0).tolist():
            found[child] = parent
        return found

    def paths(self, classes: Sequence[int]) -> Array:
        """(m, L) labels at each level of some classes, -1 where no image says it."""
        rows = {int(label): row for row, label in reversed(list(enumerate(self.fine.tolist())))}
        return np.array([self.labels[rows[label]] for label in classes]).reshape(len(classes), -1)


def find_labelling(
    reference: Features, superclass: str | int | None = None, clusters: int | None = None, seed: int = 0
) -> Labelling:
    """The labels of the measured images, completed from `reference`, the model that suggests what is missing.

    `superclass` is the level of the superclasses, by name or index; default: the one above the classes. `clusters` is
    for images without labels; default: a twentieth of the images, 10 to 60.

    Raises:
        UserError: there is no such level, or too few images.
    """
    labels, levels = reference.val.labels.numpy(), reference.levels
    if not levels or (labels < 0).all():
        return _clustered(reference, clusters, seed)
    names = tuple(reference.class_names(level) for level in range(len(levels)))
    if superclass is not None:
        column = _column(levels, superclass)
        return Labelling(labels, levels, names, column, len(levels), f"{', '.join(levels)}: labels of the data set")
    if len(levels) > 1:
        text = f"{', '.join(levels)}: labels of the data set; superclasses are the level '{levels[-2]}'"
        return Labelling(labels, levels, names, len(levels) - 2, len(levels), text)
    return _grouped(reference, names[0])


def group_count(tree: EmergentTree) -> int:
    """How many groups to cut a tree into: 2/3 to 2 times the square root of its leaves, at the widest gap."""
    m = tree.num_leaves
    heights = tree.merges[::-1, 2]  # of the root first; k groups stand between heights k - 2 and k - 1
    low, high = max(2, math.ceil(2 * math.sqrt(m) / 3)), max(2, min(math.floor(2 * math.sqrt(m)), m - 1))
    return max(range(low, high + 1), key=lambda k: (heights[k - 2] - (heights[k - 1] if k <= m - 1 else 0), -k))


def cluster(features: Array, count: int, seed: int) -> Array:
    """(n,) number of the k-means cluster of each unit row, the largest cluster first."""
    _, numbers, sizes = np.unique(kmeans(features, count, seed), return_inverse=True, return_counts=True)
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    return np.asarray(rank[numbers])


def _clustered(reference: Features, clusters: int | None, seed: int) -> Labelling:
    n = len(reference.val)
    if n < 8:
        raise UserError(f"{reference.name}: {n} images are too few to look for clusters; give at least 8")
    count = min(clusters or max(10, min(60, n // 20)), n // 2)
    fine = cluster(reference.val.features.numpy(), count, seed)
    count = int(fine.max()) + 1
    where = f"{count} k-means clusters of unit features of {reference.name} (seed {seed}), the same for all models"
    names = tuple(f"cluster {number + 1}" for number in range(count))
    if count < 4:
        return Labelling(fine[:, None], ("cluster",), (names,), 0, 0, f"no labels; {where}")
    groups = _emergent_groups(reference.val.features.numpy(), fine)
    labels = np.stack([groups[fine], fine], axis=1)
    numbers = range(int(groups.max()) + 1)
    group_names = tuple(f"group {chr(ord('A') + number) if number < 26 else number + 1}" for number in numbers)
    text = f"no labels; {where}; groups: cut of the tree of their centroids"
    return Labelling(labels, ("group", "cluster"), (group_names, names), 0, 0, text)


def _grouped(reference: Features, names: tuple[str, ...]) -> Labelling:
    fine = reference.val.labels[:, 0].numpy()
    level = reference.levels[0]
    known = np.unique(fine[fine >= 0])
    if len(known) < 4:
        text = f"{level}: labels of the data set, without a level above"
        return Labelling(fine[:, None], (level,), (names,), 0, 1, text)
    groups = _emergent_groups(reference.val.features.numpy(), fine)
    coarse = np.where(fine >= 0, groups[np.maximum(fine, 0)], -1)
    members = [[names[label] for label in known if groups[label] == group] for group in range(int(groups.max()) + 1)]
    called = tuple(", ".join(some[:2]) + (f" +{len(some) - 2}" if len(some) > 2 else "") for some in members)
    text = (
        f"{level}: labels of the data set; superclasses are not given: groups of classes, cut from the tree of class "
        f"centroids of {reference.name}, the same for all models"
    )
    labels = np.stack([coarse, fine], axis=1)
    return Labelling(labels, ("group", level), (called, names), 0, 1, text)


def _emergent_groups(features: Array, fine: Array) -> Array:
    """(C,) group of each class, -1 for classes without images."""
    means, known, _ = centroids(features, fine)
    tree = emergent_tree(means)
    found = np.full(int(known.max()) + 1, -1)
    found[known] = tree.cut(group_count(tree))
    return found


def _column(levels: Sequence[str], superclass: str | int) -> int:
    if isinstance(superclass, str) and superclass in levels:
        return levels.index(superclass)
    if isinstance(superclass, str) or not -len(levels) <= superclass < len(levels):
        raise UserError(f"superclass={superclass!r} is no level of the labels; choose {', '.join(levels)}, or an index")
    return superclass % len(levels)
