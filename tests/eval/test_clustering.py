"""NMI and AMI against definitions written as loops; clusters inside classes; unknown labels."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from solo.eval import classes
from solo.eval.classes import agreement, agreement_inside, scores


def _entropy(counts):
    total = sum(counts)
    return -sum(c / total * math.log(c / total) for c in counts)


def _mutual(a, b):
    n, joint, left, right = len(a), Counter(zip(a, b, strict=True)), Counter(a), Counter(b)
    return sum(c / n * math.log(c * n / left[x] / right[y]) for (x, y), c in joint.items())


def _nmi(a, b):
    return 2 * _mutual(a, b) / (_entropy(Counter(a).values()) + _entropy(Counter(b).values()))


@pytest.fixture
def blobs():
    """Nine tight classes in three far groups, 12 rows each."""
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 8) * 3, 3, axis=0) + rng.normal(size=(9, 8)) * 0.6
    fine = np.repeat(np.arange(9), 12)
    return (centres[fine] + rng.normal(size=(108, 8)) * 0.02).astype(np.float32), fine // 3, fine


def test_scores_are_the_definitions():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 4, 60)
    b = np.where(rng.random(60) < 0.6, a, rng.integers(0, 5, 60))
    nmi, ami = scores(a, b)
    assert nmi == pytest.approx(_nmi(a.tolist(), b.tolist()), abs=1e-10)
    # adjusted for chance by the mean over random permutations, of which the exact expectation is taken
    mean = np.mean([_mutual(a.tolist(), rng.permutation(b).tolist()) for _ in range(2000)])
    top = (_entropy(Counter(a.tolist()).values()) + _entropy(Counter(b.tolist()).values())) / 2
    assert ami == pytest.approx((_mutual(a.tolist(), b.tolist()) - mean) / (top - mean), abs=0.01)


def test_levels_and_inside(blobs):
    z, coarse, fine = blobs
    found = agreement(z, coarse)
    assert found.nmi == pytest.approx(1) and found.ami == pytest.approx(1)
    inside = agreement_inside(z, fine, coarse)
    assert inside.nmi == pytest.approx(1) and inside.groups == 3
    z = z.copy()
    z[coarse == 0] = z[0]  # this group has collapsed
    inside = agreement_inside(z, fine, coarse)
    assert inside.nmi == pytest.approx(2 / 3, abs=1e-6) and agreement(z, coarse).nmi == pytest.approx(1)


def test_length_means_nothing(blobs):
    z, coarse, _ = blobs
    scale = np.random.default_rng(2).uniform(0.01, 100, (len(z), 1)).astype(np.float32)
    assert agreement(z * scale, coarse).nmi == pytest.approx(1)


def test_unknown_labels_are_left_out(blobs):
    z, coarse, fine = (part.copy() for part in blobs)
    fine[::5], coarse[::9] = -1, -1
    z[::5] = np.random.default_rng(3).normal(size=z[::5].shape)
    found, inside = agreement(z, fine), agreement_inside(z, fine, coarse)
    assert found.nmi > 0.95 and inside.nmi > 0.95


def test_one_class_has_no_agreement(blobs):
    z, coarse, _ = blobs
    assert math.isnan(agreement(z, np.zeros(108, int)).nmi) and math.isnan(agreement(z, np.full(108, -1)).ami)
    assert agreement_inside(z, coarse, coarse).groups == 0
    assert math.isnan(agreement_inside(z, coarse, coarse).nmi)


def test_many_rows_in_mini_batches(blobs, monkeypatch):
    z, _, fine = blobs
    monkeypatch.setattr(classes, "MINI_BATCHES_FROM", 50)
    assert agreement(np.repeat(z, 4, axis=0), np.repeat(fine, 4)).nmi > 0.9


def test_very_many_clusters_are_not_adjusted(blobs, monkeypatch):
    z, _, fine = blobs
    monkeypatch.setattr(classes, "MOST_ADJUSTED", 8)
    monkeypatch.setattr(classes, "MANY_CLUSTERS", 8)
    found = agreement(z, fine)
    assert found.nmi > 0.8 and math.isnan(found.ami)
