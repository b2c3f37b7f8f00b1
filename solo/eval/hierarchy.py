"""How bad mistakes are in the label tree, and whether predictions of its levels agree.

Severity: Bertinetto et al., Making Better Mistakes (CVPR 2020), section 3: https://arxiv.org/abs/1912.09393.
Hierarchical precision, recall and F: Kiritchenko, Matwin, Famili (2005); Silla, Freitas, A survey of hierarchical
classification across different application domains (2011), section 6.
"""

import math
from dataclasses import dataclass

import numpy as np

from solo.eval.rows import Array
from solo.taxonomy import Taxonomy


@dataclass(frozen=True)
class HierarchyScores:
    """How far predicted classes are from the true ones in the tree."""

    # mean height of the lowest common ancestor of truth and prediction over the mistakes, 1 (same parent) to the tree's
    # depth; NaN without mistakes
    severity: float
    distance: float  # the same over all images, 0 where right
    # common ancestors over those of the predictions, each class counting as its own and the root as none; summed over
    # the images before dividing, 0 to 1
    precision: float
    recall: float  # the same over those of the truth
    f1: float  # harmonic mean of both
    mistakes: int  # how many
    images: int  # how many count
    unknown: int  # how many were left out, because truth or prediction is unknown (-1)


def hierarchy_scores(tree: Taxonomy, truth: Array, predicted: Array) -> HierarchyScores:
    """Compare predicted classes (n,) with the true ones (n,); -1 is unknown in both."""
    use = (truth >= 0) & (predicted >= 0)
    unknown = int(len(truth) - use.sum())
    if not use.any():
        return HierarchyScores(math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0, unknown)
    # As many look-ups in the tree as there are different pairs.
    pairs, times = np.unique(truth[use].astype(np.int64) * tree.num_classes + predicted[use], return_counts=True)
    right, found = pairs // tree.num_classes, pairs % tree.num_classes
    heights, shared, depths = tree.lca_height(right, found), tree.lca_depth(right, found), tree.depths()
    images, mistakes = int(times.sum()), int(times[right != found].sum())
    total = float(times @ heights)
    precision = float(times @ shared / (times @ depths[found]))
    recall = float(times @ shared / (times @ depths[right]))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    severity = total / mistakes if mistakes else math.nan
    return HierarchyScores(severity, total / images, precision, recall, f1, mistakes, images, unknown)


def consistent(tree: Taxonomy, predicted: Array, truth: Array) -> Array:
    """Whether predictions (n, L), made for each level by itself, -1 none, lie on one path of the tree: bools (m,).

    Of the rows with a pair of levels at which the truth (n, L) is known, for branches may end early.
    """
    fits, counts = np.ones(len(truth), dtype=bool), np.zeros(len(truth), dtype=bool)
    for level, parents in enumerate(tree.parents):
        both = (truth[:, level] >= 0) & (truth[:, level + 1] >= 0)
        lower = predicted[:, level + 1]
        agrees = (lower >= 0) & (np.array(parents)[np.maximum(lower, 0)] == predicted[:, level])
        fits &= agrees | ~both
        counts |= both
    return np.asarray(fits[counts])
