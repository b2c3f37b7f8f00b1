"""Measured numbers as `evaluate.json` holds them: in percent, rounded, `<name>_ci` their intervals, null undefined."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from solo.eval.intervals import UNDEFINED, Interval, of_statistic
from solo.eval.rows import Array

Numbers = dict[str, Any]


def told(name: str, value: float, ends: Interval | None) -> Numbers:
    """One number of 0 to 1 in percent and, unless it is None, its interval, null where there is none to tell."""
    numbers: Numbers = {name: plain(100 * value)}
    if ends is not None:
        numbers[f"{name}_ci"] = [plain(100 * end) for end in ends] if all(map(math.isfinite, ends)) else None
    return numbers


def percent(values: Mapping[str, Tensor], ends: Mapping[str, Interval], intervals: bool, name: str = "{}") -> Numbers:
    """Mean of the values of each image, in percent, with its interval; None where they are not defined."""
    numbers: Numbers = {}
    for key, each in values.items():
        known = ends.get(key, UNDEFINED) if intervals else None
        numbers |= told(name.format(key), float(each.double().mean()), known)
    return numbers


def statistic(name: str, of: Callable[[Array], float], count: int, intervals: bool, unseen: float = 0.2) -> Numbers:
    """The same of a number that is no mean over images: `of` gets numbers of rows out of `count`; 0 to 1, or NaN."""
    ends = of_statistic(lambda rows: of(rows.numpy()), count, unseen) if intervals else None
    return told(name, of(np.arange(count)), ends)


def plain(value: float, digits: int = 4) -> float | None:
    """For JSON: rounded, None where it is not defined."""
    return round(float(value), digits) if math.isfinite(value) else None
