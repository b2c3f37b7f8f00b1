"""Percentile bootstrap against resampling in a loop, and its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from solo.eval import bootstrap
from solo.eval.bootstrap import interval


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("at_once", [10_000_000, 100])
def test_a_loop_finds_the_same_ends(binary, at_once, monkeypatch):
    monkeypatch.setattr(bootstrap, "AT_ONCE", at_once)
    values = np.random.default_rng(0).random(40)
    values = (values > 0.6).astype(float) if binary else values
    rng = np.random.default_rng(1)
    means = sorted(sum(values[i] for i in rng.integers(40, size=40)) / 40 for _ in range(4000))
    low, high = interval(values, resamples=4000)
    assert low == pytest.approx(means[100], abs=0.026) and high == pytest.approx(means[3899], abs=0.026)
    assert interval(values, resamples=50, seed=3) == interval(values, resamples=50, seed=3)
    narrow = interval(values, resamples=4000, level=0.5)
    assert low < narrow[0] < values.mean() < narrow[1] < high


def test_it_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    ends = [interval(rng.normal(size=50), resamples=300, level=0.8, seed=i) for i in range(200)]
    assert 0.7 < np.mean([low <= 0 <= high for low, high in ends]) < 0.88


def test_edges():
    assert all(math.isnan(end) for end in interval(np.array([])))
    assert interval(np.full(9, 0.25)) == (0.25, 0.25) and interval(np.array([1.0])) == (1, 1)
