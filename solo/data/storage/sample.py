"""What a sample of a training set says of all of it: where black and white are, how large the pictures are. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from solo.data.storage.reading import Head, ImageReading
from solo.data.storage.stored import Stored
from solo.errors import BrokenImageError

LOOKED_AT = 128  # files
# The largest values of 8, 10, 12, 14, 16, 24, 31 and 32 bits.
_WHITES = (255, 1023, 4095, 16383, 65535, 2**24 - 1, 2**31 - 1, 2**32 - 1)


def spread(sources: Sequence[str | Path | Stored], most: int = LOOKED_AT) -> list[str | Path | Stored]:
    """At most so many of them, the same ones each time, from everywhere."""
    return list(sources[:: max(1, math.ceil(len(sources) / most))])


@dataclass(frozen=True)
class Sample:
    """Some images of a training set.

    Attributes:
        count: how many could be looked at.
        side: pixels of the median shorter side; 0 of no image.
        turned, transparent, deep: how many have an EXIF orientation, transparency, or more than 8 bits a value.
        range: black and white of the deep ones, where that is another one than of their type; None: that of the type.
    """

    count: int = 0
    side: int = 0
    turned: int = 0
    transparent: int = 0
    deep: int = 0
    range: tuple[float, float] | None = None

    def notes(self, reading: ImageReading) -> list[str]:
        """What differs from pictures that need no decision, a line each.

        Args:
            reading: how they will be read.
        """
        of = f"of a sample of {self.count:,} images"
        lines = []
        if self.deep and reading.range is not None:
            black, white = reading.range
            lines.append(f"images with more than 8 bits a value: {black:g} is black and {white:,.15g} white (data.range)")
        if self.turned and reading.exif:
            lines.append(f"{self.turned:,} {of} are turned as their EXIF says; data.exif=false takes them as stored")
        if self.transparent and reading.channels in (1, 3):
            lines.append(f"{self.transparent:,} {of} are transparent; behind them is data.background={[*reading.background]}")
        return lines


def look_at(sources: Sequence[str | Path | Stored], reading: ImageReading) -> Sample:
    """Look at the heads of a sample, and at the values of those with more than 8 bits.

    Args:
        sources: of the training set, in an order that doesn't change.
        reading: how they are read but for `range`.
    """
    heads: list[Head] = []
    ends: list[tuple[float, float, bool]] = []
    for source in spread(sources):
        try:
            head = reading.head(source)
            heads.append(head)
            if head.deep:
                values = reading.values(source)
                ends.append((float(values.min()), float(values.max()), values.dtype.kind == "f"))
        except BrokenImageError:  # named by whoever needs it
            continue
    return Sample(
        count=len(heads),
        side=round(median(min(head.size) for head in heads)) if heads else 0,
        turned=sum(head.turned for head in heads),
        transparent=sum(head.transparent for head in heads),
        deep=sum(head.deep for head in heads),
        range=_range(ends),
    )


def _range(ends: Sequence[tuple[float, float, bool]]) -> tuple[float, float] | None:
    """Black and white: the smallest number of bits that holds all values; the values' own ends below zero."""
    finite = [end for end in ends if np.isfinite(end[:2]).all()]
    # Floating point from 0 to 1 is what it should be; beside integers these decide.
    known = [end for end in finite if not (end[2] and end[0] >= 0 and end[1] <= 1)]
    if not known:
        return None
    low, high = min(end[0] for end in known), max(end[1] for end in known)
    if low < 0:
        return (-1.0, 1.0) if low >= -1 and high <= 1 else (low, max(high, low + 1))
    white = next((white for white in _WHITES if high <= white), high)
    return None if white == 65535 and not any(is_float for *_, is_float in known) else (0.0, float(white))
