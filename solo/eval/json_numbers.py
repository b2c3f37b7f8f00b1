"""Measured numbers as `evaluate.json` holds them: in percent, rounded, `<name>_ci` their intervals, null undefined."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from solo.eval.intervals import Interval, of_statistic
from solo.eval.rows import Array

Numbers = dict[str, Any]


def percent(values: dict[str, tuple[Tensor, Interval]], intervals: bool) -> Numbers:
    """Mean of the values of each image, in percent, with its interval; None where they are not defined."""
    numbers: Numbers = {}
    for name, (each, ends) in values.items():
        numbers[name] = plain(100 * float(each.double().mean())) if len(each) else None
        if intervals:
            numbers[f"{name}_ci"] = _ends(ends)
    return numbers


def statistic(name: str, of: Callable[[Array], float], count: int, intervals: bool) -> Numbers:
    """The same of a number that is no mean over images: `of` gets numbers of rows out of `count`; 0 to 1, or NaN."""
    numbers: Numbers = {name: plain(100 * of(np.arange(count))) if count else None}
    if intervals:
        numbers[f"{name}_ci"] = _ends(of_statistic(lambda rows: of(rows.numpy()), count)) if count else None
    return numbers


def _ends(ends: Interval) -> list[float | None] | None:
    return [plain(100 * end) for end in ends] if all(map(math.isfinite, ends)) else None


def plain(value: float, digits: int = 4) -> float | None:
    """For JSON: rounded, None where it is not defined."""
    return round(float(value), digits) if math.isfinite(value) else None
