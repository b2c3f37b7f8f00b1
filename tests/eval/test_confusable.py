"""Classes that collapse onto each other, against loops in float64, and with a planted collapse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from solo.eval.classes import confusable_pairs, mixing_matrix, neighbours


def blobs(collapsed=(), classes=5, each=40, dim=16, noise=0.1, seed=0):
    """Rows around one direction a class; the classes of each pair in `collapsed` share theirs."""
    rng = np.random.default_rng(seed)
    centre = np.eye(dim)[:classes]
    for a, b in collapsed:
        centre[b] = centre[a]
    labels = np.arange(classes * each) % classes
    rows = centre[labels] + noise * rng.normal(size=(len(labels), dim))
    return rows.astype(np.float32), labels


def neighbours_loop(features, query, k):
    rows = [row / math.sqrt(sum(x * x for x in row)) for row in features.astype(np.float64)]
    found = sorted(((-float(rows[query] @ row), i) for i, row in enumerate(rows) if i != query))
    return [i for _, i in found[:k]]


def mixing_loop(labels, near, a, b):
    total = 0.0
    for mine, other in ((a, b), (b, a)):
        met = [labels[j] for i, row in zip(near.queries, near.rows, strict=True) if labels[i] == mine for j in row]
        both = met.count(a) + met.count(b)
        total += met.count(other) / both if both else 0.0
    return min(total, 1.0)


def test_neighbours_are_those_of_a_loop():
    features, _ = blobs(noise=0.6)
    near = neighbours(features, k=7)
    assert near.queries.tolist() == list(range(200))
    for query in range(0, 200, 17):
        assert near.rows[query].tolist() == neighbours_loop(features, query, 7)
    some = neighbours(features, k=7, most=20, seed=3)
    assert len(some.queries) == 20 and (some.rows == near.rows[some.queries]).all()
    assert neighbours(features[:3], k=20).rows.shape == (3, 2)


@pytest.mark.parametrize("seed", range(3))
def test_mixing_is_that_of_a_loop(seed):
    features, labels = blobs(noise=0.7, seed=seed)
    labels[:9] = -1
    near = neighbours(features, k=10)
    found = mixing_matrix(labels, near)
    for a in range(5):
        for b in range(a + 1, 5):
            assert found[a, b] == found[b, a] == pytest.approx(mixing_loop(labels, near, a, b))


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_planted_collapse_comes_first(noise):
    """Also where both classes are exactly one point, and with four times as many rows in one of them."""
    features, labels = blobs(collapsed=[(1, 3)], noise=noise)
    kept = np.flatnonzero((labels != 3) | (np.arange(200) < 43))
    features, labels = features[kept], labels[kept]
    worst, second = confusable_pairs(features, labels, neighbours(features))[:2]
    assert (worst.first, worst.second) == (1, 3) and worst.mixing > 0.8 > 0.05 > second.mixing
    assert worst.cosine > 0.95 > 0.1 > second.cosine and worst.separation < 1 < second.separation
    for first, second_row in worst.examples:
        assert labels[first] == 1 and labels[second_row] == 3
    if not noise:
        assert worst.separation == 0 and math.isinf(second.separation)


def test_separation_is_that_of_a_loop():
    features, labels = blobs(noise=0.5)
    found = confusable_pairs(features, labels, neighbours(features))
    assert len(found) == 10 and [p.mixing for p in found] == sorted((p.mixing for p in found), reverse=True)
    rows = [row / math.sqrt(sum(x * x for x in row)) for row in features.astype(np.float64)]
    for pair in found:
        means, squares = [], []
        for label in (pair.first, pair.second):
            mine = [row for row, own in zip(rows, labels, strict=True) if own == label]
            means.append(sum(mine) / len(mine))
            squares.append(sum(float((row - means[-1]) @ (row - means[-1])) for row in mine) / len(mine))
        away = math.sqrt(float((means[0] - means[1]) @ (means[0] - means[1])))
        assert pair.separation == pytest.approx(away / math.sqrt(sum(squares) / 2))
        lengths = [math.sqrt(float(mean @ mean)) for mean in means]
        assert pair.cosine == pytest.approx(float(means[0] @ means[1]) / lengths[0] / lengths[1])


def test_examples_are_neighbours_once_each():
    features, labels = blobs(noise=0.7)
    near = neighbours(features, k=10)
    worst = confusable_pairs(features, labels, near, examples=4)[0]
    rows = [row for pair in worst.examples for row in pair]
    assert len(rows) == len(set(rows)) == 8
    cosine = [
        float(features[a] @ features[b] / np.linalg.norm(features[a]) / np.linalg.norm(features[b]))
        for a, b in worst.examples
    ]
    assert cosine == sorted(cosine, reverse=True)


def test_edges():
    features, labels = blobs()
    near = neighbours(features, k=3)
    assert confusable_pairs(features, np.zeros_like(labels), near) == []
    assert confusable_pairs(features, np.full_like(labels, -1), near) == []
    same = np.ones((30, 4), np.float32)
    worst = confusable_pairs(same, np.arange(30) % 3, neighbours(same, k=5))
    assert all(pair.mixing > 0 and pair.separation == 0 for pair in worst)
    zero = np.zeros((20, 4), np.float32)
    (only,) = confusable_pairs(zero, np.arange(20) % 2, neighbours(zero))
    assert np.isfinite(only.cosine)


@pytest.mark.fault(6, "collapse of classes of one image", "not judged: a minimum of images")
def test_classes_of_a_few_images_are_not_judged():
    features, labels = np.zeros((16, 4), np.float32), np.arange(16) // 8
    assert len(confusable_pairs(features, labels, neighbours(features))) == 1
    features, labels = features[1:], labels[1:]  # seven images of one class
    near = neighbours(features)
    assert confusable_pairs(features, labels, near) == [] and np.isnan(mixing_matrix(labels, near)[0, 1])
