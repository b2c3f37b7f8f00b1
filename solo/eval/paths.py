"""Predictions in a label tree, judged as a whole: the path, the order of all classes, and how sure they are.

Mean mistake severity can't rank classifiers fairly, since it looks at the mistakes only: one that errs once, badly, is
worse than one that errs often, mildly (Sani, Anand: Hier-COS, https://arxiv.org/abs/2503.07853, which proposes HOPS and
full-path accuracy instead). What can be told of a single image is returned for each, so that intervals can follow.
"""

import math

import numpy as np

from solo.eval.rows import Array, draw
from solo.eval.tree import pearson
from solo.taxonomy import Taxonomy


def full_path(predicted: Array, truth: Array) -> Array:
    """Whether predictions (n, L), -1 none, are right at every level with a label (n, L), of images that have one."""
    known = truth >= 0
    right = ((predicted == truth) | ~known).all(axis=1)
    return np.asarray(right[known.any(axis=1)])


def hops(tree: Taxonomy, truth: Array, scores: Array) -> Array:
    """Hierarchically ordered preference score: how far all classes are ranked in the order of the tree.

    The classes in the order of their scores have the LCA heights `h(r)` with the truth; in the tree's order they would
    have `e(r)`, not decreasing. HOPS is `1 - sum_r w_r |e(r) - h(r)| / sum_r w_r |e(r) - e(C - r)|`, at least 0: 1 for
    the tree's own order, 0 for its reverse. The weights fall from rank to rank: from `2^-e` of one height linearly to
    that of the next, the last ones to 0.

    Args:
        tree: of the classes.
        truth: (n,) classes.
        scores: (n, C) of each class, the higher the better; equal ones keep the order of the classes.

    Returns:
        (n,) in 0 to 1; NaN where all classes are equally far from the truth.
    """
    classes = np.arange(tree.num_classes)
    found = np.full(len(truth), math.nan)
    for label in np.unique(truth):
        heights = tree.lca_height(np.full_like(classes, label), classes)
        expected = np.sort(heights)
        weights = _preference_weights(expected)
        worst = float(weights @ np.abs(expected - expected[::-1]))
        rows = truth == label
        obtained = heights[np.argsort(-scores[rows], axis=1, kind="stable")]
        if worst > 0:
            found[rows] = np.clip(1 - np.abs(expected - obtained) @ weights / worst, 0, 1)
    return found


def _preference_weights(expected: Array) -> Array:
    """(C,) the weight of each rank, for heights (C,) in ascending order; the truth itself has 1."""
    heights, counts = np.unique(expected, return_counts=True)
    values = [*(0.5**heights).tolist(), 0.0]
    falls = zip(values, values[1:], counts, strict=False)
    return np.concatenate([np.linspace(start, end, count, endpoint=False) for start, end, count in falls])


def expected_heights(tree: Taxonomy, probabilities: Array) -> Array:
    """Of each class the expected height of its lowest common ancestor with the truth: probabilities (n, C) -> (n, C).

    The class where it is least is the decision of conditional risk minimisation, CRM (Karthik, Prabhu, Dokania, Gandhi:
    No cost likelihood manipulation at test time, ICLR 2021, https://openreview.net/forum?id=193sEnKY1ij).
    """
    paths, depths = np.array(tree.path_table()), tree.depths()
    above = np.full(len(paths), depths.max())
    expected = np.full(probabilities.shape, float(depths.max()))
    for level, column in enumerate(paths.T):  # whoever shares the node here has a lower ancestor than the one above
        known = column >= 0
        heights, sums = np.zeros(column.max() + 1, dtype=int), np.zeros((column.max() + 1, len(probabilities)))
        np.maximum.at(heights, column[known], depths[known] - level - 1)
        np.add.at(sums, column[known], probabilities.T[known])
        here = np.where(known, heights[column], above)
        expected -= (above - here) * sums[column].T
        above = here
    return expected


def mean_per_class(right: Array, truth: Array) -> float:
    """Mean over the classes (n,), -1 unknown, of the share of their images that are right, 0 to 1; NaN without."""
    known = truth >= 0
    counts, hits = np.bincount(truth[known]), np.bincount(truth[known], right[known])
    return float(np.mean(hits[counts > 0] / counts[counts > 0])) if known.any() else math.nan


def calibration_error(confidence: Array, right: Array, bins: int = 15) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over bins of equal width, 0 to 1.

    Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks (ICML 2017): https://arxiv.org/abs/1706.04599.

    Args:
        confidence: (n,) probability of the predicted class, 0 to 1.
        right: (n,) bools.
        bins: how many.
    """
    if not len(confidence):
        return math.nan
    which = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gaps = np.bincount(which, confidence - right, bins)  # each bin's (confidence - accuracy) times its images
    return float(np.abs(gaps).sum() / len(confidence))


def cpcc(tree: Taxonomy, means: Array, leaves: Array, most: int = 2_000) -> float:
    """Cophenetic correlation of the embedding with the tree: Pearson's, over all pairs of classes.

    Of the euclidean distances of the classes' mean features with their distances in the tree; -1 to 1, NaN with fewer
    than three classes or where either has no variance. Zeng, des Combes, Zhao: Learning structured representations by
    embedding class hierarchy (ICLR 2023), section 2.

    Args:
        tree: of the classes.
        means: (m, d) mean features of the classes `leaves`.
        leaves: (m,) classes.
        most: classes of which all pairs are compared; of more, as many are drawn.
    """
    chosen = draw(len(leaves), most).numpy()
    means, leaves = means[chosen].astype(np.float64), leaves[chosen]
    if len(leaves) < 3:
        return math.nan
    rest = [slice(place + 1, None) for place in range(len(leaves) - 1)]  # the pairs of one class at a time
    apart = [np.linalg.norm(means[place] - means[rows], axis=1) for place, rows in enumerate(rest)]
    in_tree = [tree.distance(leaves[place], leaves[rows]) for place, rows in enumerate(rest)]
    return pearson(np.concatenate(apart), np.concatenate(in_tree).astype(np.float64))
