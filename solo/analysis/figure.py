"""Figures as plain data: what is drawn, without how. `plotly_panels` draws it for the report, `png` into files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from solo.eval.rows import Array


@dataclass(frozen=True)
class Series:
    """One line of a `Lines` panel."""

    name: str  # in the legend; series of one name are switched on and off together
    x: Sequence[float]  # positions
    y: Sequence[float]  # values; NaN leaves a gap
    colour: str  # `#rrggbb`
    dash: bool = False  # drawn broken
    low: Sequence[float] | None = None  # lower edge of a band around the line
    high: Sequence[float] | None = None  # its upper edge
    area: bool = False  # fill down to zero
    markers: bool = True  # a dot at each value


@dataclass(frozen=True)
class Lines:
    """Lines over a common axis."""

    title: str  # of the panel
    x: str  # what the axis means
    y: str  # what the values mean
    series: tuple[Series, ...]  # the lines
    log_x: bool = False  # logarithmic axis
    log_y: bool = False  # likewise
    y_range: tuple[float, float] | None = None  # its ends
    x_range: tuple[float, float] | None = None  # likewise
    x_ticks: tuple[float, ...] = ()  # the only positions named on the axis, where given
    legend: bool = False  # the lines are named in the panel itself, as other panels have others


@dataclass(frozen=True)
class Group:
    """Points of a picture that share a colour and a name in its legend."""

    name: str
    colour: str
    rows: Array


@dataclass(frozen=True)
class Cloud:
    """Points (n, 2) in a plane whose axes mean nothing."""

    title: str  # of the panel
    points: Array  # (n, 2)
    groups: tuple[Group, ...]  # who has which colour; each point is in one group at most
    texts: Sequence[str] = ()  # (n,) shown when a point is touched
    legend: bool = False  # the groups are named in the panel itself


@dataclass(frozen=True)
class DotRow:
    """One line of a `Dots` panel."""

    name: str  # in front of it
    marks: tuple[tuple[str, float, str], ...]  # series, value and colour of each dot
    depth: int = 0  # 0 stands out among deeper ones
    intervals: tuple[tuple[float, float] | None, ...] = ()  # of each dot its ends, or None; empty where there are none


@dataclass(frozen=True)
class Dots:
    """A row for each thing, with dots on a common axis and a line between the outermost ones."""

    title: str
    x: str
    rows: tuple[DotRow, ...]
    from_zero: bool = True
    reference: float | None = None

    def dodged(self, place: float, mark: int, row: DotRow) -> float:
        """Height of a mark of the row at `place`: of several on one value, none is hidden."""
        step = min(0.22, 0.6 / max(len(row.marks), 1))
        return place - step * (mark - (len(row.marks) - 1) / 2)

    @property
    def right(self) -> float:
        """Where an axis from zero ends, so that all dots and the reference are whole."""
        values = [value for row in self.rows for _, value, _ in row.marks if math.isfinite(value)]
        return 1.04 * max([self.reference or 0.0, *values]) or 1.0


@dataclass(frozen=True)
class Dendrogram:
    """A tree that grows from right (the root) to left (the leaves)."""

    title: str  # of the panel
    x: str  # what the height means
    # for each merge the four corners of its bracket, (heights, positions)
    links: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    colours: tuple[str, ...]  # of each bracket; an empty text is the colour of the text
    leaves: tuple[str, ...]  # names, from position 0 upwards
    leaf_colours: tuple[str, ...]  # of these names


@dataclass(frozen=True)
class Picture:
    """An image of the data set: its row, the words below it, and whether it is what one hopes for."""

    row: int
    caption: str
    good: bool | None = None


@dataclass(frozen=True)
class PictureRow:
    """Pictures beside each other, after a text."""

    title: str
    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Pictures:
    """Rows of small pictures, each with a caption."""

    title: str
    rows: tuple[PictureRow, ...]


Panel = Lines | Cloud | Dots | Dendrogram | Pictures


@dataclass(frozen=True)
class Figure:
    """Panels that belong together, with words on what to see in them."""

    key: str  # file name and anchor
    section: str  # heading under which the report shows it
    title: str  # what it shows
    caption: str  # what to look for
    protocol: str  # how the numbers came about
    panels: tuple[Panel, ...]  # side by side where there is room
    legend: tuple[tuple[str, str], ...] = ()  # (name, colour) of all panels
    across: int | None = None  # panels beside each other; None: as fits their kind

    def filled(self) -> Figure:
        """Without the panels in which there is nothing to see, such as lines without a finite value."""
        return replace(self, panels=tuple(panel for panel in self.panels if _has_something(panel)))

    @property
    def columns(self) -> int:
        """How many panels stand beside each other where there is room, at most three."""
        if self.across is not None:
            return self.across
        most = 3 if isinstance(self.panels[0], (Lines, Cloud)) else 2
        return min(len(self.panels), 2 if len(self.panels) == 4 else most)


def _has_something(panel: Panel) -> bool:
    if isinstance(panel, Lines):
        return any(math.isfinite(value) for series in panel.series for value in series.y)
    if isinstance(panel, Dots):
        return any(math.isfinite(value) for row in panel.rows for _, value, _ in row.marks)
    return True


def legend_of(panels: Sequence[Panel]) -> tuple[tuple[str, str], ...]:
    """(name, colour) of everything that has a name, in the order of drawing."""
    found: dict[str, str] = {}
    for panel in panels:
        if isinstance(panel, Lines):
            found |= {series.name: series.colour for series in panel.series if series.name not in found}
        elif isinstance(panel, Cloud):
            found |= {group.name: group.colour for group in panel.groups if group.name not in found}
        elif isinstance(panel, Dots):
            found |= {name: colour for row in panel.rows for name, _, colour in row.marks if name not in found}
    return tuple(found.items())
