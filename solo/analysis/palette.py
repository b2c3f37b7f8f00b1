"""Colours of runs, superclasses and classes: for light and dark backgrounds, and for colour-blind eyes.

Beyond the named ones they are computed in OKLCH (Ottosson: A perceptual color space for image processing, 2020), where
equal steps look equal.
"""

import colorsys
import math
from collections.abc import Sequence

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

_FIRST_HUE = 250.0  # degrees
_LIGHTNESS = (0.54, 0.78, 0.64)  # in turn, so that neighbouring hues differ in it, too


def run_colour(index: int) -> str:
    """The colour of the run at this place; they repeat after eight."""
    return RUNS[index % len(RUNS)]


def category_colours(count: int) -> list[str]:
    """One colour for each of `count` superclasses, or of the classes in one; beyond eight, evenly spaced hues."""
    if count <= len(CATEGORIES):
        return list(CATEGORIES[:count])
    return [oklch(_LIGHTNESS[place % 3], 0.14, _FIRST_HUE + 360 * place / count) for place in range(count)]


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


def oklch(lightness: float, chroma: float, hue: float) -> str:
    """A colour as `#rrggbb`: lightness 0 to 1, chroma 0 to about 0.3, reduced to what screens show, hue in degrees."""
    angle = math.radians(hue)

    def gamma(part: float) -> float:
        part = min(max(part, 0.0), 1.0)
        return 12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055

    while chroma > 0:
        rgb = _linear_rgb(lightness, chroma * math.cos(angle), chroma * math.sin(angle))
        if all(-1e-4 <= part <= 1 + 1e-4 for part in rgb):
            break
        chroma = max(chroma - 0.005, 0)
    else:
        rgb = _linear_rgb(lightness, 0, 0)
    return _text([gamma(part) for part in rgb])


def _text(rgb: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def _linear_rgb(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
