"""Figures as plain data: what is drawn, without how. `plotly_panels` draws it for the report, `png` into files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Series:
    """One line of a `Lines` panel.

    Attributes:
        name: in the legend; series of one name are switched on and off together.
        x: positions.
        y: values; NaN leaves a gap.
        colour: `#rrggbb`.
        dash: drawn broken.
        low: lower edge of a band around the line.
        high: its upper edge.
        area: fill down to zero.
        markers: a dot at each value.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dash: bool = False
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    area: bool = False
    markers: bool = True


@dataclass(frozen=True)
class Lines:
    """Lines over a common axis.

    Attributes:
        title: of the panel.
        x: what the axis means.
        y: what the values mean.
        series: the lines.
        log_x: logarithmic axis.
        log_y: likewise.
        y_range: its ends.
        x_range: likewise.
        x_ticks: the only positions named on the axis, where given.
        legend: the lines are named in the panel itself, as other panels have others.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = None
    x_range: tuple[float, float] | None = None
    x_ticks: tuple[float, ...] = ()
    legend: bool = False


@dataclass(frozen=True)
class Group:
    """Points of a picture that share a colour and a name in its legend."""

    name: str
    colour: str
    rows: Array


@dataclass(frozen=True)
class Cloud:
    """Points (n, 2) in a plane whose axes mean nothing.

    Attributes:
        title: of the panel.
        points: (n, 2).
        groups: who has which colour; each point is in one group at most.
        texts: (n,) shown when a point is touched.
        legend: the groups are named in the panel itself.
    """

    title: str
    points: Array
    groups: tuple[Group, ...]
    texts: Sequence[str] = ()
    legend: bool = False


@dataclass(frozen=True)
class DotRow:
    """One line of a `Dots` panel.

    Attributes:
        name: in front of it.
        marks: series, value and colour of each dot.
        depth: 0 stands out among deeper ones.
        intervals: of each dot its ends, or None; empty where there are none.
    """

    name: str
    marks: tuple[tuple[str, float, str], ...]
    depth: int = 0
    intervals: tuple[tuple[float, float] | None, ...] = ()


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
class Matrix:
    """A square table in colours, `low` to `high`."""

    title: str
    value: str
    names: tuple[str, ...]
    values: Array
    low: float
    high: float


@dataclass(frozen=True)
class Dendrogram:
    """A tree that grows from right (the root) to left (the leaves).

    Attributes:
        title: of the panel.
        x: what the height means.
        links: for each merge the four corners of its bracket, (heights, positions).
        colours: of each bracket; an empty text is the colour of the text.
        leaves: names, from position 0 upwards.
        leaf_colours: of these names.
    """

    title: str
    x: str
    links: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    colours: tuple[str, ...]
    leaves: tuple[str, ...]
    leaf_colours: tuple[str, ...]


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


Panel = Lines | Cloud | Dots | Matrix | Dendrogram | Pictures


@dataclass(frozen=True)
class Figure:
    """Panels that belong together.

    Attributes:
        key: file name and anchor.
        section: heading under which the report shows it.
        title: what it shows.
        caption: what to look for.
        protocol: how the numbers came about.
        panels: side by side where there is room.
        legend: (name, colour) of all panels.
        across: panels beside each other; None: as fits their kind.
    """

    key: str
    section: str
    title: str
    caption: str
    protocol: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, str], ...] = ()
    across: int | None = None

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
