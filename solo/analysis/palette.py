"""Colours: the hue of a class says its superclass, the lightness which class it is. For light and dark backgrounds.

Computed in OKLCH (Ottosson: A perceptual color space for image processing, 2020), where equal steps look equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# Runs: far apart in hue, and readable on white and on near-black.
RUNS = ("#2f7ed8", "#e2711d", "#2a9d64", "#9b5de5", "#d6478f", "#8a8d91", "#c9a227", "#17a2a8")
UNKNOWN = "#a8a6a0"
GOOD, BAD = "#2a9d64", "#d64545"

_FIRST_HUE = 250.0  # degrees
_LIGHTNESS = (0.42, 0.84)
_TURN = 20.0  # degrees from the darkest class to the lightest: helps to tell neighbours apart


def run_colour(index: int) -> str:
    """The colour of the run at this place; they repeat after eight."""
    return RUNS[index % len(RUNS)]


def superclass_colours(count: int) -> list[str]:
    """One colour for each of `count` superclasses, hues evenly spaced."""
    return [oklch(0.66, 0.14, _hue(place, count)) for place in range(count)]


def class_colours(parents: Sequence[int], count: int) -> list[str]:
    """One colour for each class: the hue of its superclass, lighter from class to class.

    Args:
        parents: superclass of each class, 0 to `count` - 1; -1 gives grey.
        count: number of superclasses.
    """
    found = []
    low, high = _LIGHTNESS
    for index, parent in enumerate(parents):
        siblings = [place for place, other in enumerate(parents) if other == parent]
        step = siblings.index(index) / max(len(siblings) - 1, 1) if len(siblings) > 1 else 0.5
        found.append(
            oklch(low + (high - low) * step, 0.14, _hue(parent, count) + _TURN * (step - 0.5))
            if parent >= 0
            else UNKNOWN
        )
    return found


def oklch(lightness: float, chroma: float, hue: float) -> str:
    """A colour as `#rrggbb`; chroma is reduced until the screen can show it.

    Args:
        lightness: 0 (black) to 1 (white).
        chroma: 0 (grey) to about 0.3.
        hue: degrees.
    """
    angle = math.radians(hue)
    while chroma > 0:
        rgb = _linear_rgb(lightness, chroma * math.cos(angle), chroma * math.sin(angle))
        if all(-1e-4 <= part <= 1 + 1e-4 for part in rgb):
            break
        chroma = max(chroma - 0.005, 0)
    else:
        rgb = _linear_rgb(lightness, 0, 0)
    return "#" + "".join(f"{round(255 * _gamma(min(max(part, 0.0), 1.0))):02x}" for part in rgb)


def _hue(place: int, count: int) -> float:
    return _FIRST_HUE + 360 * place / max(count, 1)


def _linear_rgb(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )


def _gamma(part: float) -> float:
    return 12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055
