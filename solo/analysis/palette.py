"""Colours of runs, superclasses and classes: for light and dark backgrounds, and for colour-blind eyes."""

import colorsys
from collections.abc import Sequence

import numpy as np

from solo.errors import UserError

# Eight colours that differ by at least 0.12 in OKLab for normal, protanopic and deuteranopic eyes (simulated after
# Machado, Oliveira, Fernandes, 2009; tests/analysis/test_palette.py), and stand out from white and from near-black.
RUNS = ("#2f7ed8", "#e2711d", "#48cfa7", "#cd0f00", "#037277", "#fda303", "#29c4fe", "#08a4ab")
# The same for groups and classes, in an order that starts with what a comparison of two runs doesn't use.
CATEGORIES = ("#08a4ab", "#cd0f00", "#29c4fe", "#fda303", "#037277", "#48cfa7", "#e2711d", "#2f7ed8")
UNKNOWN = "#a8a6a0"
GOOD, BAD = "#2a9d64", "#d64545"
INK, SOFT, GRID, GREY = "#2b2a27", "#6b6a66", "#e6e5e1", "#8a8d91"  # text, notes, lines of a grid, plain marks on white
SAME, OTHER = "#d6478f", "#2f9fe0"  # pairs of one superclass, other pairs


def run_colour(index: int) -> str:
    """The colour of the run at this place; they repeat after eight."""
    return RUNS[index % len(RUNS)]


def category_colours(count: int) -> list[str]:
    """One colour for each of `count` superclasses, or of the classes in one; beyond eight, evenly spaced hues.

    These are made darker or mixed with white to be of three luminances in turn, by which every eye tells neighbours
    apart.
    """
    if count <= len(CATEGORIES):
        return list(CATEGORIES[:count])
    found = []
    for place in range(count):
        pure = np.array(colorsys.hsv_to_rgb(place / count, 1, 1)) ** 2.2  # in linear light
        own, wanted = pure @ [0.2126, 0.7152, 0.0722], (0.15, 0.45, 0.27)[place % 3]
        linear = pure * wanted / own if own > wanted else 1 - (1 - pure) * (1 - wanted) / (1 - own)
        found.append(_text((linear ** (1 / 2.2)).tolist()))
    return found


def named_palette(name: str, count: int) -> list[str]:
    """Colours of a palette that a user names: hls, evenly spaced hues, or a colour map of matplotlib.

    Raises:
        UserError: there is no such palette.
    """
    if name == "hls":
        hues = [colorsys.hls_to_rgb(place / max(count, 1), (0.42, 0.62)[place % 2], 0.72) for place in range(count)]
        return [_text(hue) for hue in hues]
    import matplotlib

    if name not in matplotlib.colormaps:
        raise UserError(f"color_palette={name!r} is unknown; give hls, or a colour map of matplotlib such as tab10")
    colours = matplotlib.colormaps[name]
    own = count <= colours.N <= 20
    return [_text(colours(place if own else place / max(count - 1, 1))[:3]) for place in range(count)]


def _text(rgb: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
