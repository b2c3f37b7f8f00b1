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
    return Sample(
        count=len(heads),
        side=round(median(min(head.size) for head in heads)) if heads else 0,
        turned=sum(head.turned for head in heads),
        transparent=sum(head.transparent for head in heads),
        deep=sum(head.deep for head in heads),
        range=_range(ends),
    )


def _range(ends: Sequence[tuple[float, float, bool]]) -> tuple[float, float] | None:
    """Black and white: the fewest bits that hold all values, up to 16; the values' own ends beyond, and below zero."""
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
