"""How sure a mean over images is: percentile bootstrap.

Efron, Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

AT_ONCE = 10_000_000  # numbers drawn


def interval(values: Array, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Interval of the mean of `values` when the images are drawn again, with replacement.

    It covers the choice of the images that were measured, not that of the training images, nor the training's seed.

    Args:
        values: (n,), one number for each image.
        resamples: how often; at least 2.
        level: share of the resampled means inside, in (0, 1).
        seed: of the draws.

    Returns:
        Lower and upper end; NaN for no value, both the mean where all values are equal.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return math.nan, math.nan
    first = values[0]
    if (values == first).all():
        return float(first), float(first)
    rng, n = np.random.default_rng(seed), len(values)
    if np.isin(values, (0.0, 1.0)).all():  # the sum of a resample is binomial
        means = rng.binomial(n, values.mean(), resamples) / n
    else:
        means = np.empty(resamples)
        step = max(1, AT_ONCE // n)
        for start in range(0, resamples, step):
            part = means[start : start + step]
            part[:] = values[rng.integers(n, size=(len(part), n))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
