"""Figures as plain data, in which colours (`drawing` knows how), and what lies in `page/`: HTML pages, and words."""

import base64
import colorsys
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import yaml
from markupsafe import Markup

from solo.errors import UserError
from solo.eval.features import Array
from solo.screen import shown

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
    """Colours of superclasses, or of the classes in one; beyond eight, hues of three luminances in turn."""
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
    """Colours of hls, evenly spaced hues, or of a colour map of matplotlib; a `UserError` for any other name."""
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


@dataclass(frozen=True)
class Series:
    """One line of a `Plot`, or its dots of one kind."""

    name: str  # in the legend; series of one name are switched on and off together, one without is always there
    x: Sequence[float]
    y: Sequence[float]  # NaN leaves a gap
    colour: str  # `#rrggbb`, an empty text is the colour of the text
    dash: bool = False  # drawn broken
    low: Sequence[float] | None = None  # lower edge of a band around the line
    high: Sequence[float] | None = None  # its upper edge
    area: bool = False  # fill down to zero
    markers: bool = True  # a dot at each value
    joined: bool = True  # by a line
    opacity: float = 1
    texts: Sequence[str] = ()  # of each value, shown when it is touched


class Name(NamedTuple):
    """A word at the vertical axis."""

    text: str
    colour: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Plot:
    """Lines and dots over two axes."""

    title: str  # of the panel
    x: str  # what the axis means
    y: str  # what the values mean
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = None
    x_range: tuple[float, float] | None = None
    x_ticks: tuple[float, ...] = ()  # the only positions named on the axis, where given
    legend: bool = False  # the series are named in the panel itself, as other panels have others
    rows: tuple[Name, ...] = ()  # in place of numbers at the vertical axis, from position 0 upwards
    bare: bool = False  # the axes mean nothing and aren't drawn
    reference: float | None = None  # a position on the horizontal axis, drawn as a line


Groups = Sequence[tuple[str, str, Array]]  # name, colour and rows of each


def cloud(title: str, points: Array, groups: Groups, texts: Sequence[str] = (), legend: bool = False) -> Plot:
    """Points (n, 2) in a plane whose axes mean nothing; texts (n,) are shown when they are touched."""
    series = []
    for name, colour, rows in groups:
        said = [texts[row] for row in rows] if texts else [name] * len(rows)
        x, y = points[rows].T.tolist()
        series.append(Series(name, x, y, colour, joined=False, opacity=0.8, texts=said))
    return Plot(title, "", "", tuple(series), legend=legend, bare=True)


class DotRow(NamedTuple):
    """One line of `dots`: a name, its marks, and what surrounds the only one."""

    name: str  # in front of it
    marks: Sequence[tuple[str, float, str]]  # series, value and colour of each dot
    depth: int = 0  # 0 stands out among deeper ones
    interval: tuple[float, float] | None = None  # around the only dot


def dots(title: str, x: str, rows: Sequence[DotRow], from_zero: bool = True, reference: float | None = None) -> Plot:
    """A row for each thing, with dots on a common axis and a line between the outermost ones."""
    joins: list[tuple[float, float]] = []  # ends of lines, and after each a gap
    ends: list[Series] = []
    found: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    for place, row in zip(reversed(range(len(rows))), rows, strict=True):
        values = [value for _, value, _ in row.marks if math.isfinite(value)]
        if len(values) > 1:
            joins += [(min(values), place), (max(values), place), (math.nan, math.nan)]
        if row.interval is not None:
            ends.append(Series("", row.interval, [place, place], row.marks[0][2], markers=False))
        step = min(0.22, 0.6 / max(len(row.marks), 1))  # of several on one value, none is hidden
        for mark, (name, value, colour) in enumerate(row.marks):
            if math.isfinite(value):
                at = place - step * (mark - (len(row.marks) - 1) / 2)
                found.setdefault((name, colour), []).append((value, at, row.name))
    between = Series("", [x for x, _ in joins], [y for _, y in joins], GREY, markers=False, opacity=0.45)
    marks = [
        Series(name, [x for x, *_ in some], [y for _, y, _ in some], colour, joined=False, texts=[t for *_, t in some])
        for (name, colour), some in found.items()
    ]
    mixed = len({row.depth for row in rows}) > 1
    names = tuple(Name(row.name, bold=mixed and not row.depth) for row in reversed(rows))
    right = 1.04 * max([reference or 0.0, *(x for one in marks for x in one.x)]) or 1.0
    across = (0.0, right) if from_zero else None
    up = (-0.7, len(rows) - 0.3)
    series = (between, *ends, *marks)
    return Plot(title, x, "", series, x_range=across, y_range=up, rows=names, reference=reference)


class Picture(NamedTuple):
    """An image of the data set: its row, the words below it, and whether it is what one hopes for."""

    row: int
    caption: str
    good: bool | None = None


class PictureRow(NamedTuple):
    """Pictures beside each other, after a text."""

    title: str
    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Pictures:
    """Rows of small pictures, each with a caption."""

    title: str
    rows: tuple[PictureRow, ...]


Panel = Plot | Pictures
Legend = Mapping[str, str] | None  # names and colours


@dataclass(frozen=True)
class Figure:
    """Panels that belong together, with words on what to see in them."""

    key: str  # file name and anchor
    section: str  # heading under which the report shows it
    title: str  # what it shows
    caption: str  # what to look for
    protocol: str  # how the numbers came about
    panels: tuple[Panel, ...]  # side by side where there is room
    legend: Legend = None  # of all panels; None: what has a name in them

    @property
    def columns(self) -> int:
        """How many panels stand beside each other where there is room, at most three."""
        narrow = isinstance(self.panels[0], Plot) and not self.panels[0].rows
        return min(len(self.panels), 3 if narrow and len(self.panels) != 4 else 2)


def legend_of(panels: Sequence[Panel]) -> dict[str, str]:
    """The colour of everything that has a name, in the order of drawing."""
    plots = [panel for panel in panels if isinstance(panel, Plot)]
    return {one.name: one.colour for plot in plots for one in plot.series if one.name}


def is_empty(panel: Panel) -> bool:
    """Whether there is nothing to see: no picture, and no finite value."""
    return isinstance(panel, Plot) and not any(math.isfinite(y) for one in panel.series for y in one.y)


@cache
def page_file(name: str) -> str:
    """The text of a file in `page/`."""
    return resources.files("solo.analysis").joinpath("page", name).read_text(encoding="utf-8")


@cache
def words_of(name: str) -> Any:
    """What `<name>.yaml` in `page/` holds: mappings of texts with fields to fill."""
    return yaml.safe_load(page_file(f"{name}.yaml"))


def render(name: str, show: Callable[[object], str] = shown, **values: Any) -> str:
    """The template of this name, filled: all text goes through `show`, and its marks are escaped."""
    from jinja2 import Environment

    page = Environment(autoescape=True, finalize=lambda x: x if isinstance(x, Markup) else show(x))
    return page.from_string(page_file(name)).render(**values)


def embedded(picture: bytes, kind: str = "png") -> Markup:
    """The address of a picture that is in the page itself, for `src`."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(picture).decode()}")


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """The Markdown of a table whose first line is its heading; `|` in a cell is escaped."""
    head, *rows = lines
    cells = ([cell.replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def finite(value: Any, digits: int | None = None) -> Any:
    """None for what isn't finite, which JSON doesn't know, in lists, mappings, arrays; else of significant digits."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: finite(inner, digits) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner, digits) for inner in value]
    if not isinstance(value, float):
        return value
    return None if not math.isfinite(value) else value if digits is None else float(f"{value:.{digits}g}")
