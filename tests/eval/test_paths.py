"""Measures of whole paths against loops that follow the definitions word by word."""

from __future__ import annotations

import math

import numpy as np
import pytest

from solo.eval.classes import cpcc
from solo.eval.predictions import calibration_error, full_path, hops, mean_per_class
from solo.taxonomy import Taxonomy

RNG = np.random.default_rng(0)
EVEN = Taxonomy(
    ("top", "group", "leaf"), (("a", "b"), tuple("cdef"), tuple("ghijklmn")), ((0, 0, 1, 1), (0, 0, 0, 1, 2, 2, 3, 3))
)
RAGGED = Taxonomy(("group", "leaf"), (("a", "b", "c"), ("d", "e", "f")), ((0, 0, 2),))  # b is a class itself


def _hops(tree: Taxonomy, label: int, scores: np.ndarray) -> float:
    """One image: the two orders, the weight of each place, the two sums."""
    classes = list(range(tree.num_classes))
    heights = [int(tree.lca_height(np.array(label), np.array(other))) for other in classes]
    obtained = [heights[c] for c in sorted(classes, key=lambda c: (-scores[c], c))]
    expected = sorted(heights)
    kinds = sorted(set(heights))
    weights = []
    for place, height in enumerate(kinds):
        lower = 0.5 ** kinds[place + 1] if place + 1 < len(kinds) else 0.0
        count = expected.count(height)
        weights += [0.5**height + (lower - 0.5**height) * i / count for i in range(count)]
    worst = sum(w * abs(e - r) for w, e, r in zip(weights, expected, reversed(expected), strict=True))
    wrong = sum(w * abs(e - o) for w, e, o in zip(weights, expected, obtained, strict=True))
    return max(0.0, 1 - wrong / worst) if worst else math.nan


@pytest.mark.parametrize("tree", [EVEN, RAGGED], ids=["even", "ragged"])
def test_hops_against_a_loop(tree: Taxonomy) -> None:
    truth = RNG.integers(0, tree.num_classes, 40)
    scores = RNG.normal(size=(40, tree.num_classes)).round(1)  # with ties
    expected = [_hops(tree, int(label), row) for label, row in zip(truth, scores, strict=True)]
    assert hops(tree, truth, scores) == pytest.approx(expected)


def test_hops_of_the_best_and_the_worst_order_and_of_a_mistake_at_the_top() -> None:
    classes = np.arange(8)
    heights = EVEN.lca_height(classes[:, None], classes)
    assert hops(EVEN, classes, -heights) == pytest.approx(np.ones(8))
    assert hops(EVEN, classes, heights) == pytest.approx(np.zeros(8), abs=0.35)
    near, far = -heights[[0, 0]].astype(float), np.array([0, 0])
    near[0, [0, 1]] = -1, 0  # the sibling first
    near[1, [0, 7]] = -3, 0  # a stranger first
    mild, severe = hops(EVEN, far, near)
    assert severe < mild < 1
    assert np.isnan(hops(Taxonomy.flat(("only",)), np.array([0]), np.zeros((1, 1)))).all()


def test_full_path_counts_known_levels_only() -> None:
    truth = np.array([[0, 1, 2], [0, 1, -1], [-1, -1, -1], [1, 2, 4]])
    predicted = np.array([[0, 1, 2], [0, 1, 5], [0, 0, 0], [1, 3, 4]])
    assert full_path(predicted, truth).tolist() == [True, True, False]


def test_mean_per_class_weighs_classes_alike() -> None:
    right, truth = np.array([1, 1, 1, 0, 0, 1], dtype=bool), np.array([0, 0, 0, 1, 2, -1])
    assert mean_per_class(right, truth) == pytest.approx(1 / 3)
    assert math.isnan(mean_per_class(np.zeros(1, dtype=bool), np.array([-1])))


def test_calibration_against_a_loop() -> None:
    confidence = np.concatenate([RNG.uniform(size=200), [0.0, 1.0]])
    right = RNG.uniform(size=202) < confidence
    total = 0.0
    for low in range(15):
        rows = [i for i, c in enumerate(confidence) if min(int(c * 15), 14) == low]
        total += len(rows) / 202 * abs(np.mean([confidence[i] - right[i] for i in rows])) if rows else 0.0
    assert calibration_error(confidence, right) == pytest.approx(total)
    assert calibration_error(np.ones(4), np.zeros(4, dtype=bool)) == 1
    assert math.isnan(calibration_error(np.empty(0), np.empty(0, dtype=bool)))


def test_cpcc_against_a_loop_and_of_a_perfect_embedding() -> None:
    means, leaves = RNG.normal(size=(8, 3)), np.arange(8)
    x, y = [], []
    for i in range(8):
        for j in range(i):
            x.append(math.dist(means[i], means[j]))
            y.append(float(EVEN.distance(i, j)))
    assert cpcc(EVEN, means, leaves) == pytest.approx(np.corrcoef(x, y)[0, 1])
    corners = np.zeros((8, 14))  # each edge of the tree an axis: squared distances are those of the tree
    for leaf in range(8):
        for level, node in enumerate(EVEN.path(leaf)):
            corners[leaf, [0, 2, 6][level] + node] = 1
    assert cpcc(EVEN, corners, leaves) > 0.97
    assert math.isnan(cpcc(EVEN, means[:2], leaves[:2])) and math.isnan(cpcc(EVEN, np.ones((4, 2)), leaves[:4]))
