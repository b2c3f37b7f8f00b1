"""Who belongs to whom: the labels of the data, and where there are none, what the embedding itself suggests.

A flat data set gets its superclasses, and one without labels its classes too, from one embedding, the same ones for all
models and epochs, so that these stay comparable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from solo.errors import UserError
from solo.eval.classes import cluster as kmeans
from solo.eval.features import Array, Features
from solo.eval.tree import centroids, emergent_tree


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
        found, known = np.full(len(self.names[-1]), -1), (self.fine >= 0) & (self.coarse >= 0)
        found[self.fine[known]] = self.coarse[known]
        return list(map(int, found))

    def paths(self, classes: Sequence[int]) -> Array:
        """(m, L) labels at each level of some classes that there are images of, by the first of these."""
        known, first = np.unique(self.fine, return_index=True)
        return np.asarray(self.labels[first[np.searchsorted(known, classes)]])


def find_labelling(reference: Features, superclass: str | int | None, clusters: int | None, seed: int) -> Labelling:
    """The labels of the measured images, completed from `reference`, the model that suggests what is missing.

    `superclass` is the level of the superclasses, by name or index; default: the one above the classes. `clusters` is
    for images without labels; default: a twentieth of the images, 10 to 60.

    Raises:
        UserError: there is no such level, or too few images.
    """
    labels, levels, features = reference.val.labels.numpy(), reference.levels, reference.val.features.numpy()
    if not levels or (labels < 0).all():
        n = len(features)
        if n < 8:
            raise UserError(f"{reference.name}: {n} images are too few to look for clusters; give at least 8")
        members = kmeans(features, min(clusters or max(10, min(60, n // 20)), n // 2), seed)
        _, numbers, sizes = np.unique(members, return_inverse=True, return_counts=True)
        fine, count = np.argsort(np.argsort(-sizes, kind="stable"))[numbers], len(sizes)  # the largest cluster first
        where = f"{count} k-means clusters of unit features of {reference.name} (seed {seed})"
        text = f"no labels; {where}, the same for all models"
        clustered = tuple(f"cluster {number + 1}" for number in range(count))
        found = Labelling(fine[:, None], ("cluster",), (clustered,), 0, 0, text)
        return found if count < 4 else _grouped(found, features, f"{text}; groups: cut of the tree of their centroids")
    names = tuple(reference.class_names(level) for level in range(len(levels)))
    given = f"{', '.join(levels)}: labels of the data set"
    if superclass in levels:
        column, text = levels.index(str(superclass)), given
    elif isinstance(superclass, str) or (superclass is not None and not -len(levels) <= superclass < len(levels)):
        known = ", ".join(levels)
        raise UserError(f"superclass={superclass!r} is no level of the labels; choose {known}, or an index")
    elif superclass is not None:
        column, text = superclass % len(levels), given
    elif len(levels) > 1:
        column, text = len(levels) - 2, f"{given}; superclasses are the level '{levels[-2]}'"
    else:
        column, text = 0, f"{given}, without a level above"
    found = Labelling(labels, levels, names, column, len(levels), text)
    if superclass is not None or len(levels) > 1 or len(np.unique(labels[labels >= 0])) < 4:
        return found
    how = f"groups of classes, cut from the tree of class centroids of {reference.name}, the same for all models"
    return _grouped(found, features, f"{given}; superclasses are not given: {how}")


def _grouped(flat: Labelling, features: Array, protocol: str) -> Labelling:
    """One level with groups above it, from the tree of the centroids; of given classes they are named by members."""
    fine = flat.fine
    means, known, _ = centroids(features, fine)
    tree, m = emergent_tree(means), len(means)
    # Cut at the widest gap into 2/3 to 2 times the square root of its leaves.
    heights = tree.merges[::-1, 2]  # of the root first; k groups stand between heights k - 2 and k - 1
    low, high = max(2, math.ceil(2 * math.sqrt(m) / 3)), max(2, min(math.floor(2 * math.sqrt(m)), m - 1))
    count = max(range(low, high + 1), key=lambda k: (heights[k - 2] - (heights[k - 1] if k <= m - 1 else 0), -k))
    groups = np.full(int(known.max()) + 1, -1)
    groups[known] = tree.cut(count)
    labels = np.stack([np.where(fine >= 0, groups[np.maximum(fine, 0)], -1), fine], axis=1)
    names = []
    for group in range(int(groups.max()) + 1):
        members = [flat.names[0][label] for label in known if groups[label] == group]
        names.append(", ".join(members[:2]) + (f" +{len(members) - 2}" if len(members) > 2 else ""))
        if not flat.given:
            names[-1] = f"group {chr(ord('A') + group) if group < 26 else group + 1}"
    return Labelling(labels, ("group", flat.level), (tuple(names), flat.names[0]), 0, flat.given, protocol)
