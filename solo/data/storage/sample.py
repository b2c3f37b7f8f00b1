"""What a sample of a training set says of all of it: where its black and white are, how large it is. No torch."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from solo.data.storage.facts import ReadingKeys, Sample, spread
from solo.data.storage.reading import Head, ImageReading
from solo.data.storage.stored import Stored
from solo.errors import BrokenImageError

_WHITES = (255, 1023, 4095, 16383, 65535)  # the largest values of 8, 10, 12, 14 and 16 bits


def look_at(sources: Sequence[str | Path | Stored], keys: ReadingKeys) -> Sample:
    """Look at the heads of a sample of the training set, and at the values of those with more than 8 bits."""
    reading = ImageReading.by(keys)
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
    side = round(median(min(head.size) for head in heads)) if heads else 0
    turned, transparent, deep = (sum(getattr(h, name) for h in heads) for name in ("turned", "transparent", "deep"))
    return Sample(len(heads), side, turned, transparent, deep, _range(ends))


def _range(ends: Sequence[tuple[float, float, bool]]) -> tuple[float, float] | None:
    """Black and white: the fewest bits that hold all values, up to 16; the values' own ends beyond, and below zero."""
    # Floating point from 0 to 1 is what it should be; beside integers these decide.
    finite = (end for end in ends if np.isfinite(end[:2]).all())
    known = [(low, high, real) for low, high, real in finite if not (real and low >= 0 and high <= 1)]
    if not known:
        return None
    low, high = min(low for low, *_ in known), max(high for _, high, _ in known)
    if low < 0:
        return (-1.0, 1.0) if low >= -1 and high <= 1 else (low, max(high, low + 1))
    white = next((white for white in _WHITES if high <= white), high)
    return None if white == 65535 and not any(real for *_, real in known) else (0.0, float(white))
