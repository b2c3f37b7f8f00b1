"""Predicted classes: accuracy; their order and their probabilities, judged in the label tree.

By mean mistake severity a classifier that errs once, badly, is worse than one that errs often, mildly (Sani, Anand:
Hier-COS, https://arxiv.org/abs/2503.07853, which proposes HOPS and full-path accuracy instead). What can be told of a
single image is returned for each, so that intervals can follow.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo import distributed
from solo.eval.features import ELEMENTS, Array
from solo.eval.linear import LinearClassifier
from solo.taxonomy import Taxonomy


@torch.no_grad()
def accuracy_at_k(
    outputs: Tensor, targets: Tensor, top_k: Sequence[int] = (1, 5), labelled: Tensor | None = None
) -> list[Tensor]:
    """Top-k accuracies in percent, over the rows that have a label: a tensor (1,) for each k; a k above C counts as C.

    Outputs are scores (N, C), targets (N,) class indices, negative ones unknown; 0 if nothing is labelled. `labelled`
    is how many rows have a label, () and above 0; default: those here.
    """
    ks = [min(k, outputs.shape[1]) for k in top_k]
    labelled = (targets >= 0).sum().clamp(min=1) if labelled is None else labelled
    hits = outputs.topk(max(ks), dim=1).indices == targets[:, None]  # (N, max k)
    return [hits[:, :k].sum().mul(100.0).div(labelled).reshape(1) for k in ks]


def weighted_mean(outputs: Sequence[Mapping[str, Any]], key: str, batch_size_key: str) -> Tensor:
    """Mean of `key` over the batches' outputs, each weighted by its `batch_size_key`; NaN if all weights are 0."""
    total = weight = torch.as_tensor(0.0)
    for out in outputs:
        size = torch.as_tensor(out[batch_size_key])
        total = total.to(size.device) + torch.as_tensor(out[key], device=size.device).float().squeeze() * size
        weight = weight.to(size.device) + size
    return total / weight


def mean_over_processes(outputs: Sequence[Mapping[str, Any]], key: str, batch_size_key: str) -> Tensor:
    """`weighted_mean` of the outputs of all processes together; each has at least one."""
    mean = weighted_mean(outputs, key, batch_size_key)
    weight = sum(torch.as_tensor(out[batch_size_key], device=mean.device) for out in outputs)
    sums = distributed.all_reduce_sum(torch.stack([(mean * weight).nan_to_num(), mean.new_tensor(float(weight))]))
    return sums[0] / sums[1] if distributed.is_distributed() else mean


@dataclass(frozen=True)
class HierarchyScores:
    """How far predicted classes are from the true ones in the tree."""

    severity: float  # mean height of the common ancestor over the mistakes, 1 (same parent) to the tree's; NaN without
    distance: float  # the same over all images, 0 where right
    precision: float  # common ancestors over those of the predictions (with itself, without the root), summed, 0 to 1
    recall: float  # the same over those of the truth
    f1: float  # harmonic mean of both
    mistakes: int  # how many
    images: int  # how many count
    unknown: int  # how many were left out, because truth or prediction is unknown (-1)


def hierarchy_scores(tree: Taxonomy, truth: Array, predicted: Array) -> HierarchyScores:
    """Compare predicted classes (n,) with the true ones (n,); -1 is unknown in both.

    Severity: Bertinetto et al. (CVPR 2020), section 3: https://arxiv.org/abs/1912.09393. Precision, recall and F:
    Kiritchenko, Matwin, Famili (2005); Silla, Freitas (Data Mining and Knowledge Discovery 2011), section 6.
    """
    use = (truth >= 0) & (predicted >= 0)
    unknown = int(len(truth) - use.sum())
    if not use.any():
        return HierarchyScores(math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0, unknown)
    # As many look-ups in the tree as there are different pairs.
    pairs, times = np.unique(truth[use].astype(np.int64) * tree.num_classes + predicted[use], return_counts=True)
    right, found = np.divmod(pairs, tree.num_classes)
    shared, depths = tree.lca_depth(right, found), tree.depths()
    images, mistakes = int(times.sum()), int(times[right != found].sum())
    total = float(times @ tree.lca_height(right, found))
    precision = float(times @ shared / (times @ depths[found]))
    recall = float(times @ shared / (times @ depths[right]))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    severity = total / mistakes if mistakes else math.nan
    return HierarchyScores(severity, total / images, precision, recall, f1, mistakes, images, unknown)


def consistent(tree: Taxonomy, predicted: Array, truth: Array) -> Array:
    """Whether predictions (n, L), made for each level by itself, -1 none, lie on one path of the tree: bools (m,).

    Of the rows with a pair of levels at which the truth (n, L) is known, for branches may end early.
    """
    both = (truth[:, :-1] >= 0) & (truth[:, 1:] >= 0)
    levels = zip(tree.parents, predicted.T, predicted.T[1:], strict=False)
    fits = [(low >= 0) & (np.array(parents)[low] == up) for parents, up, low in levels]
    return np.asarray((np.array(fits, dtype=bool).T | ~both)[both.any(axis=1)].all(axis=1))


def full_path(predicted: Array, truth: Array) -> Array:
    """Whether predictions (n, L), -1 none, are right at every level with a label (n, L), of images that have one."""
    known = truth >= 0
    return np.asarray(((predicted == truth) | ~known).all(axis=1)[known.any(axis=1)])


def hops(tree: Taxonomy, truth: Array, scores: Array) -> Array:
    """Hierarchically ordered preference score: how far all classes are ranked in the order of the tree.

    The classes in the order of their scores have the LCA heights `h(r)` with the truth; in the tree's order they would
    have `e(r)`, not decreasing. HOPS is `1 - sum_r w_r |e(r) - h(r)| / sum_r w_r |e(r) - e(C - r)|`, at least 0: 1 for
    the tree's own order, 0 for its reverse. The weights fall from rank to rank: from `2^-e` of one height (the truth
    itself has 1) linearly to that of the next, the last ones to 0.

    Of true classes (n,) and scores (n, C), ties in the order of classes: (n,), NaN where all are equally far away.
    """
    classes = np.arange(tree.num_classes)
    found = np.full(len(truth), math.nan)
    for label in np.unique(truth):
        heights = tree.lca_height(np.full_like(classes, label), classes)
        expected = np.sort(heights)
        steps, first = np.unique(expected, return_index=True)
        weights = np.interp(classes, [*first, len(classes)], [*0.5**steps, 0.0])
        worst = float(weights @ np.abs(expected - expected[::-1]))
        rows = truth == label
        obtained = heights[np.argsort(-scores[rows], axis=1, kind="stable")]
        if worst > 0:
            found[rows] = np.clip(1 - np.abs(expected - obtained) @ weights / worst, 0, 1)
    return found


def expected_heights(tree: Taxonomy, probabilities: Array) -> Array:
    """Of each class the expected height of its lowest common ancestor with the truth: probabilities (n, C) -> (n, C).

    CRM, conditional risk minimisation, takes the least: Karthik et al., https://openreview.net/forum?id=193sEnKY1ij.
    """
    paths, depths = np.array(tree.path_table()), tree.depths()
    above = np.full(len(paths), depths.max())
    expected = np.full(probabilities.shape, float(depths.max()))
    for level, column in enumerate(paths.T):  # whoever shares the node here has a lower ancestor than the one above
        known = column >= 0
        heights = np.zeros(column.max() + 1, dtype=int)
        sums = np.zeros((column.max() + 1, len(probabilities)))
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

    Of probabilities (n,) of the predicted class and whether it is right (n,): Guo, Pleiss, Sun, Weinberger (ICML 2017).
    """
    if not len(confidence):
        return math.nan
    which = np.clip((confidence * bins).astype(int), 0, bins - 1)
    gaps = np.bincount(which, confidence - right, bins)  # each bin's (confidence - accuracy) times its images
    return float(np.abs(gaps).sum() / len(confidence))


@dataclass(frozen=True)
class Judged:
    """Probabilities of n images at the L columns of their labels; the class is the last column."""

    confidence: Array  # (n, L) of the predicted class, 0 to 1
    first: Array  # (n, L) of class 1: of the label, where columns say whether an image has it
    summed: Array  # (n, levels of a tree of several) node with the highest sum of the probabilities of its classes
    summed_confidence: Array  # that sum
    hops: Array  # (n,) NaN where the class is unknown, and without such a tree
    careful: Array  # (n,) the class of the least expected height, see `expected_heights`; -1 without such a tree


@torch.no_grad()
def judge(model: LinearClassifier, features: Tensor, classes: Array, tree: Taxonomy | None) -> Judged:
    """Go through the probabilities of features (n, d) a block of rows at a time; `classes` (n,) are true, -1 unknown.

    The classifier's last level are the classes of the tree.
    """
    tree = None if tree is None or tree.num_levels < 2 else tree
    count, width, levels = len(features), len(model.counts), tree.num_levels if tree else 0
    (confidence, first), (summed, sure) = np.zeros((2, count, width)), np.zeros((2, count, levels))
    found = Judged(confidence, first, summed, sure, np.full(count, math.nan), np.full(count, -1))
    paths = torch.tensor(tree.path_table())[: model.counts[-1]] if tree else torch.empty(0, 0, dtype=torch.long)
    rows = max(1, ELEMENTS // sum(model.counts))
    for start in range(0, count, rows):
        part = slice(start, start + rows)
        logits = model.scores(features[part].to(model.mean.device)).double()
        tables = [level.softmax(dim=1).cpu() for level in torch.split(logits, list(model.counts), dim=1)]
        for column, table in enumerate(tables):
            found.confidence[part, column] = table.amax(dim=1)
            found.first[part, column] = table[:, 1] if table.shape[1] > 1 else 0
        if tree is None:
            continue
        for level, nodes in enumerate(paths.T):
            known = nodes >= 0
            sums = tables[-1].new_zeros(len(logits), int(nodes.max()) + 1)
            sums.index_add_(1, nodes[known], tables[-1][:, : len(nodes)][:, known])
            found.summed_confidence[part, level], found.summed[part, level] = sums.max(dim=1)
        leaves = np.full((len(logits), tree.num_classes), -np.inf)  # classes that no image has come last
        leaves[:, : len(paths)] = tables[-1][:, : tree.num_classes]
        found.careful[part] = expected_heights(tree, np.maximum(leaves, 0)).argmin(axis=1)
        asked = np.flatnonzero(classes[part] >= 0)
        found.hops[start + asked] = hops(tree, classes[part][asked], leaves[asked])
    return found


def average_precision(scores: Array, right: Array, points: int | None = None) -> float:
    """How far right images (n,) come before the others by their scores (n,), 0 to 1; NaN without right ones.

    Equal scores are one step. Without `points` it is the area below the steps of precision over recall; else the mean
    over so many recalls, 0 to 1, of the best precision from there on: VOC2007 has 11 (Everingham et al., IJCV 2010).
    """
    if not right.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of each run of equal scores
    hits = right[order].cumsum()[last]
    precision, recall = hits / (last + 1), hits / hits[-1]
    if points is None:
        return float(np.diff(recall, prepend=0) @ precision)
    return float(np.mean([precision[recall >= at - 1e-12].max() for at in np.linspace(0, 1, points)]))


def mean_average_precision(scores: Array, labels: Array, points: int | None = None) -> float:
    """Mean over the columns (n, L) of labels, 1 yes, 0 no, -1 unknown, that some image has; NaN without any."""
    columns = zip(scores.T, labels.T, strict=True)
    found = [average_precision(score[label >= 0], label[label >= 0] == 1, points) for score, label in columns]
    defined = [value for value in found if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
