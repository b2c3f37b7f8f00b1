"""The emergent tree and its measures against loops in float64, and on trees whose answer is known."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from solo.errors import UserError
from solo.eval.classes import (
    centroids,
    compare_with_labels,
    emergent_tree,
    robinson_foulds,
    spearman,
)


def planted(seed=0, noise=0.05, groups=3, classes=3, dim=64):
    """Class centroids: group directions, and smaller class directions on top; with their label paths."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    rows, paths = [], []
    for group in range(groups):
        for member in range(classes):
            label = group * classes + member
            rows.append(axes[group] + 0.4 * axes[groups + label] + noise * rng.normal(size=dim) / np.sqrt(dim))
            paths.append((group, label))
    return np.array(rows), np.array(paths)


def average_linkage(points):
    """Heights at which each pair of rows joins, by the definition: the closest pair of groups, again and again."""
    rows = [p / math.sqrt(sum(float(x) ** 2 for x in p)) for p in points.astype(np.float64)]
    groups = [[i] for i in range(len(rows))]
    joined = {}
    while len(groups) > 1:
        best = None
        for a, b in combinations(range(len(groups)), 2):
            away = [1 - sum(rows[i] * rows[j]) for i in groups[a] for j in groups[b]]
            mean = sum(away) / len(away)
            if best is None or mean < best[0]:
                best = mean, a, b
        height, a, b = best
        for i in groups[a]:
            for j in groups[b]:
                joined[min(i, j), max(i, j)] = height
        groups = [g for n, g in enumerate(groups) if n not in (a, b)] + [groups[a] + groups[b]]
    return np.array([joined[pair] for pair in combinations(range(len(rows)), 2)])


def test_centroids_are_means_of_unit_rows():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(-1, 4, 40)
    means, known, counts = centroids(features, labels)
    for mean, label, count in zip(means, known, counts, strict=True):
        rows = [row / math.sqrt(sum(x * x for x in row)) for row in features[labels == label].astype(np.float64)]
        assert np.allclose(mean, sum(rows) / len(rows), atol=1e-14) and count == len(rows)
    assert -1 not in known


@pytest.mark.parametrize("seed", range(3))
def test_joining_heights_are_those_of_the_definition(seed):
    points = np.random.default_rng(seed).normal(size=(9, 4))
    tree = emergent_tree(points)
    heights = average_linkage(points)
    assert np.allclose(tree.cophenetic, heights, atol=1e-12)
    assert tree.fidelity == pytest.approx(pearsonr(heights, tree.distances).statistic)


def test_cut_gives_as_many_clusters_as_asked_for():
    tree = emergent_tree(np.random.default_rng(1).normal(size=(12, 6)))
    for count in range(1, 13):
        clusters = tree.cut(count)
        assert sorted(set(clusters.tolist())) == list(range(count))
        groups = {frozenset(np.flatnonzero(clusters == c).tolist()) for c in range(count)}
        assert all(len(group) == 1 or group in tree.clades for group in groups)
    assert len(set(tree.cut(99))) == 12


def test_a_cut_does_the_first_merges_of_several_at_one_height():
    tree = emergent_tree(np.random.default_rng(0).integers(0, 2, (30, 4)) + 0.1)
    for count in range(1, 31):
        clusters = tree.cut(count)
        assert len(set(clusters.tolist())) == count
        assert all(len(set(clusters[[*clade]].tolist())) == 1 for clade in tree.clades[: 30 - count])


def test_a_planted_tree_is_found():
    points, paths = planted()
    tree = emergent_tree(points)
    found = compare_with_labels(tree, paths)
    assert found.recovered == 1
    assert found.cophenetic > 0.99 and found.gamma == pytest.approx(1, abs=0.25) and found.p_value == 1 / 200
    order = paths[tree.order(), 0]
    assert (np.diff(order) != 0).sum() == 2  # groups lie together in the drawing


def test_a_random_tree_does_not_agree():
    _, paths = planted()
    found = compare_with_labels(emergent_tree(np.random.default_rng(5).normal(size=(9, 20))), paths)
    assert found.recovered < 0.5 and found.p_value > 0.05 and abs(found.cophenetic) < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_measures_are_those_of_loops(seed):
    points, paths = planted(seed, noise=1.5)
    paths = np.concatenate([paths[:, :1] // 2, paths], axis=1)  # three levels
    paths[0, 2] = -1
    tree = emergent_tree(points)
    found = compare_with_labels(tree, paths)
    away = [3 - next((n for n in range(3) if a[n] != b[n] or a[n] < 0), 3) for a, b in combinations(paths.tolist(), 2)]
    assert found.cophenetic == pytest.approx(pearsonr(tree.cophenetic, away).statistic)
    assert found.gamma == pytest.approx(spearmanr(tree.cophenetic, away).statistic)
    nodes = {frozenset(np.flatnonzero(paths[:, lv] == c)) for lv in (0, 1) for c in set(paths[:, lv])}
    assert found.recovered == pytest.approx(sum(node in tree.clades for node in nodes) / len(nodes))


def test_drift_of_a_tree():
    points, _ = planted()
    tree, noisy = emergent_tree(points), emergent_tree(planted(noise=2.5)[0])
    assert robinson_foulds(tree, tree) == 0 and spearman(tree.cophenetic, tree.cophenetic) == pytest.approx(1)
    mine, theirs = set(tree.clades[:-1]), set(noisy.clades[:-1])
    only_one = [clade for clade in mine | theirs if (clade in mine) != (clade in theirs)]
    assert robinson_foulds(tree, noisy) == pytest.approx(len(only_one) / (len(mine) + len(theirs))) != 0
    assert spearman(tree.cophenetic, noisy.cophenetic) == pytest.approx(
        spearmanr(tree.cophenetic, noisy.cophenetic).statistic
    )
    with pytest.raises(ValueError, match="9 and 4 leaves"):
        robinson_foulds(tree, emergent_tree(points[:4]))


def test_edges():
    two = emergent_tree(np.eye(2))
    assert two.num_leaves == 2 and two.order() in ([0, 1], [1, 0]) and robinson_foulds(two, two) == 0
    same = emergent_tree(np.ones((5, 3), np.float32))  # total collapse
    assert np.allclose(same.cophenetic, 0, atol=1e-12)
    flat = compare_with_labels(same, np.arange(5)[:, None])
    assert math.isnan(flat.cophenetic) and math.isnan(flat.p_value) and math.isnan(flat.recovered)
    zero = emergent_tree(np.concatenate([np.zeros((1, 3)), np.eye(3)]))
    assert np.allclose(zero.cophenetic, 1)
    for broken, what in ((np.ones((1, 3)), "1 points"), (np.full((4, 2), np.nan), "not finite")):
        with pytest.raises(UserError, match=what):
            emergent_tree(broken)
