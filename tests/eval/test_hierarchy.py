"""Severity, hierarchical precision and recall, and consistency against sets of ancestors, on random ragged trees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from solo.data.labels.trees import from_paths
from solo.eval.predictions import consistent, hierarchy_scores
from solo.taxonomy import Taxonomy

TREE = Taxonomy.from_groups(["cat", "dog", "car"], {"animal": ["cat", "dog"], "machine": ["car"]})


def _random_tree(seed: int) -> Taxonomy:
    rng = np.random.default_rng(seed)
    paths = {tuple(f"{'abc'[i]}{rng.integers(3)}" for i in range(rng.integers(1, 4))) for _ in range(14)}
    leaves = [
        path for path in paths if not any(len(other) > len(path) and other[: len(path)] == path for other in paths)
    ]
    unique = {path: tuple("/".join(path[: i + 1]) for i in range(len(path))) for path in leaves}
    return from_paths(sorted(unique.values()))


def _reference(tree: Taxonomy, truth: list[int], predicted: list[int]) -> list[float]:
    """Ancestors as sets; heights by walking up."""

    def ancestors(leaf: int) -> list[tuple[int, int]]:
        return [(level, node) for level, node in enumerate(tree.path(leaf)) if node >= 0]

    def height(of: list[tuple[int, int]]) -> int:
        below = [ancestors(leaf) for leaf in range(tree.num_classes)]
        return max(len(path) - len(of) for path in below if path[: len(of)] == of)

    heights, common, left, right = [], 0, 0, 0
    for a, b in zip(truth, predicted, strict=True):
        if a < 0 or b < 0:
            continue
        x, y = ancestors(a), ancestors(b)
        both = [node for node in x if node in y]
        heights.append(0 if a == b else height(both))
        common, left, right = common + len(both), left + len(x), right + len(y)
    wrong = [h for h in heights if h]
    precision, recall = common / right, common / left
    f1 = 2 * precision * recall / (precision + recall) if common else 0
    return [sum(wrong) / len(wrong) if wrong else math.nan, sum(heights) / len(heights), precision, recall, f1]


@pytest.mark.parametrize("seed", range(5))
def test_sets_of_ancestors_give_the_same(seed):
    tree, rng = _random_tree(seed), np.random.default_rng(seed)
    truth, predicted = rng.integers(-1, tree.num_classes, (2, 60))
    predicted = np.where(rng.random(60) < 0.4, truth, predicted)
    found = hierarchy_scores(tree, truth, predicted)
    expected = _reference(tree, truth.tolist(), predicted.tolist())
    got = [found.severity, found.distance, found.precision, found.recall, found.f1]
    assert got == pytest.approx(expected, nan_ok=True)
    assert found.images + found.unknown == 60 and found.unknown == ((truth < 0) | (predicted < 0)).sum()


def test_a_worked_example():
    # cat for dog: height 1, one of two ancestors; car for cat: height 2, none
    found = hierarchy_scores(TREE, np.array([0, 0, 2, -1]), np.array([0, 1, 0, 0]))
    assert (found.severity, found.distance, found.mistakes, found.images, found.unknown) == (1.5, 1.0, 2, 3, 1)
    assert found.precision == found.recall == found.f1 == 3 / 6
    right = hierarchy_scores(TREE, np.arange(3), np.arange(3))
    assert math.isnan(right.severity) and (right.distance, right.f1) == (0, 1)
    assert math.isnan(hierarchy_scores(TREE, np.array([-1]), np.array([0])).f1)
    assert hierarchy_scores(TREE, np.array([0]), np.array([2])).f1 == 0


def test_predictions_on_one_path():
    predicted = np.array([[0, 0], [0, 2], [1, 2], [1, -1], [0, 2]])
    truth = np.array([[0, 1], [0, 0], [1, 2], [1, 2], [0, -1]])
    assert consistent(TREE, predicted, truth).tolist() == [True, False, True, False]
    assert len(consistent(Taxonomy.flat(["a", "b"]), np.zeros((3, 1), int), np.zeros((3, 1), int))) == 0
