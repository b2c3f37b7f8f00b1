"""What a classifier's probabilities say beyond its best class: its sureness, its order of the tree, average precision.

Average precision of labels that an image may have several of at once, as PASCAL VOC's: the area below the steps of
precision over recall, or VOC2007's mean over eleven recalls (Everingham et al., IJCV 2010, section 4.2).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo.eval.linear import LinearClassifier
from solo.eval.paths import expected_heights, hops
from solo.taxonomy import Taxonomy

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Judged:
    """Probabilities of n images at the L columns of their labels; the class is the last column."""

    confidence: Array  # (n, L) of the predicted class, 0 to 1
    first: Array  # (n, L) of class 1: of the label, where columns say whether an image has it
    # (n, levels) node with the highest sum of the probabilities of the classes below it, and that sum; no columns
    # without a tree of several levels
    summed: Array
    summed_confidence: Array
    hops: Array  # (n,) NaN where the class is unknown, and without such a tree
    careful: Array  # (n,) the class of the least expected height, see `expected_heights`; -1 without such a tree


@torch.no_grad()
def judge(
    model: LinearClassifier, features: Tensor, classes: Array, tree: Taxonomy | None, max_elements: int = 5_000_000
) -> Judged:
    """Go through the probabilities of features (n, d) a block of rows at a time; `classes` (n,) are true, -1 unknown.

    The classifier's last level are the classes of the tree.
    """
    nested = tree is not None and tree.num_levels > 1
    count, width = len(features), len(model.counts)
    levels = tree.num_levels if tree is not None and nested else 0
    own, first = np.zeros((2, count, width))
    summed, summed_confidence = np.zeros((2, count, levels))
    found = Judged(own, first, summed, summed_confidence, np.full(count, math.nan), np.full(count, -1))
    paths = np.array(tree.path_table())[: model.counts[-1]] if tree is not None and nested else np.empty((0, 0), int)
    groups = [_grouped(paths[:, level]) for level in range(levels)]
    rows = max(1, max_elements // sum(model.counts))
    for part, tables in _blocks(model, features, rows):
        for column, table in enumerate(tables):
            found.confidence[part, column] = table.max(axis=1)
            found.first[part, column] = table[:, 1] if table.shape[1] > 1 else 0
        if tree is None or not nested:
            continue
        leaves = np.full((len(tables[-1]), tree.num_classes), -np.inf)  # classes that no image has come last
        leaves[:, : len(paths)] = tables[-1][:, : tree.num_classes]
        for level, (order, nodes, starts) in enumerate(groups):
            sums = np.add.reduceat(tables[-1][:, order], starts, axis=1) if len(order) else np.zeros((len(leaves), 1))
            found.summed[part, level] = nodes[sums.argmax(axis=1)]
            found.summed_confidence[part, level] = sums.max(axis=1)
        found.careful[part] = expected_heights(tree, np.maximum(leaves, 0)).argmin(axis=1)
        truth = classes[part]
        values = np.full(len(truth), math.nan)
        values[truth >= 0] = hops(tree, truth[truth >= 0], leaves[truth >= 0])
        found.hops[part] = values
    return found


def _grouped(column: Array) -> tuple[Array, Array, Array]:
    """Classes in the order of their nodes (C,), -1 none; these nodes, and where the classes of each begin."""
    order = np.argsort(column, kind="stable")[(column < 0).sum() :]
    nodes, starts = np.unique(column[order], return_index=True)
    return order, nodes if len(nodes) else np.array([-1]), starts


def _blocks(model: LinearClassifier, features: Tensor, rows: int) -> Iterator[tuple[slice, list[Array]]]:
    """Rows, and their probabilities of the classes of each level, float64."""
    for start in range(0, len(features), rows):
        part = features[start : start + rows].to(model.mean.device)
        logits = torch.split(model.scores(part).double(), list(model.counts), dim=1)
        yield slice(start, start + len(part)), [level.softmax(dim=1).cpu().numpy() for level in logits]


def average_precision(scores: Array, right: Array, points: int | None = None) -> float:
    """How far right images come before the others, 0 to 1; NaN without right ones. Equal scores are one step.

    Args:
        scores: (n,) the higher the surer.
        right: (n,) bools.
        points: None: area below the steps of precision over recall. Else the mean over so many recalls from 0 to 1 of
            the best precision at that recall or a higher one; VOC2007 has 11.
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
    columns = (
        average_precision(score[label >= 0], label[label >= 0] == 1, points)
        for score, label in zip(scores.T, labels.T, strict=True)
    )
    defined = [value for value in columns if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
