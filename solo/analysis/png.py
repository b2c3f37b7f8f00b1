"""Figures as files, for papers and slides: the same plain data, drawn by matplotlib on white."""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from solo.analysis.figure import Cloud, Dendrogram, Dots, Figure, Lines, Panel, Pictures, legend_of
from solo.analysis.palette import BAD, GOOD, GREY, GRID, INK, SOFT
from solo.eval.rows import Array
from solo.files import replacing

Images = Callable[[int], "Image.Image"]

_MOST_IN_LEGEND = 24
_ROWS_OF_LEGEND = 20


def draw(figure: Figure, path: Path, image: Images | None = None) -> None:
    """Draw one figure, title and caption above, its protocol below, in the format that the path ends in (PDF without).

    Pictures need `image`, which gives the picture of a row of the data set.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = figure.columns
    lines = [figure.panels[start : start + columns] for start in range(0, len(figure.panels), columns)]
    heights = [max(_height(panel) for panel in line) for line in lines]
    width = _width(figure.panels[0]) * columns
    own = any(isinstance(panel, (Lines, Cloud)) and panel.legend for panel in figure.panels)
    legend = figure.legend or (() if own else legend_of(figure.panels))
    caption = textwrap.wrap(figure.caption, int(width * 12))
    rows = -(-sum(len(name) + 6 for name, _ in legend) // int(width * 13)) if 1 < len(legend) <= _MOST_IN_LEGEND else 0
    head = 0.46 + 0.18 * len(caption) + 0.28 * rows
    words = textwrap.wrap(figure.protocol, int(width * 15))
    foot = 0.1 + 0.16 * len(words)
    total = sum(heights) + head + foot
    engine = ConstrainedLayoutEngine(rect=(0, foot / total, 1, 1 - (head + foot) / total))
    canvas = Canvas(figsize=(width, total), dpi=140, facecolor="white", layout=engine)
    agg = FigureCanvasAgg(canvas)
    left = 0.08 / width
    canvas.text(left, 1 - 0.12 / total, figure.title, size=13, weight="bold", color=INK, va="top")
    canvas.text(left, 1 - 0.4 / total, "\n".join(caption), size=9, color=INK, va="top", linespacing=1.3)
    canvas.text(left, 0.06 / total, "\n".join(words), size=7.5, color=SOFT, va="bottom")
    if rows:
        top = 1 - (0.4 + 0.18 * len(caption)) / total
        columns_of = -(-len(legend) // rows)
        _legend(canvas, legend, ncols=columns_of, fontsize=9, loc="upper left", bbox_to_anchor=(0.004, top))
    grid = canvas.add_gridspec(len(lines), columns, height_ratios=heights)
    for place, panel in enumerate(figure.panels):
        axes = canvas.add_subplot(grid[place // columns, place % columns])
        axes.set_title(panel.title, fontsize=10, loc="left", color=INK)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(GRID)
        axes.tick_params(colors=INK, labelsize=8.5, length=0)
        axes.set_axisbelow(True)
        if isinstance(panel, Pictures):
            _pictures(axes, panel, image)
            continue
        _KINDS[type(panel)](axes, panel)
        if isinstance(panel, Lines) and panel.legend:  # below them
            _legend(axes, legend_of((panel,)), ncols=2, fontsize=8, loc="upper left", bbox_to_anchor=(-0.02, -0.17))
        elif isinstance(panel, Cloud) and panel.legend:  # beside it
            names = legend_of((panel,))
            columns_of = -(-len(names) // _ROWS_OF_LEGEND)
            _legend(axes, names, ncols=columns_of, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if path.suffix == ".png":  # `savefig` would draw all of it twice
            agg.print_png(temporary)  # type: ignore[no-untyped-call]
        else:
            canvas.savefig(temporary, format=path.suffix.lstrip(".") or "pdf")


def _width(panel: Panel) -> float:
    return 6.4 if isinstance(panel, Pictures) else 5.6 if isinstance(panel, (Dots, Dendrogram)) else 4.3


def _height(panel: Panel) -> float:
    if isinstance(panel, Dots):
        return 0.9 + 0.2 * len(panel.rows)
    if isinstance(panel, Dendrogram):
        return min(1.0 + (0.2 if len(panel.leaves) <= 120 else 0.04) * len(panel.leaves), 24)
    if isinstance(panel, Pictures):
        return 0.4 + 0.95 * len(panel.rows)
    return 4.0 if isinstance(panel, Cloud) else 3.2


def _legend(owner: Any, names: Sequence[tuple[str, str]], **look: Any) -> None:
    """Name colours, on a figure or on the axes of one panel."""
    from matplotlib.lines import Line2D

    dots = [Line2D([], [], marker="o", ls="", color=colour, markersize=6, label=name) for name, colour in names]
    owner.legend(handles=dots, frameon=False, labelcolor=INK, handletextpad=0.2, columnspacing=1.2, **look)


def _lines(axes: Any, panel: Lines) -> None:
    axes.grid(axis="y", color=GRID, lw=0.8)
    for series in panel.series:
        x, y = np.asarray(series.x, float), np.asarray(series.y, float)
        if series.low is not None and series.high is not None:
            axes.fill_between(x, series.low, series.high, color=series.colour, alpha=0.14, lw=0)
        if series.area:
            axes.fill_between(x, 0, y, color=series.colour, alpha=0.14, lw=0)
        marker = "o" if series.markers and len(x) <= 40 else None
        axes.plot(x, y, color=series.colour, lw=1.7, ls=":" if series.dash else "-", marker=marker, ms=3.2)
    axes.set_xlabel(panel.x, fontsize=9, color=INK)
    axes.set_ylabel(panel.y, fontsize=9, color=INK)
    if panel.log_x:
        axes.set_xscale("log")
    elif all(float(x).is_integer() for series in panel.series for x in series.x):  # epochs
        axes.xaxis.get_major_locator().set_params(integer=True)
    if panel.log_y:
        axes.set_yscale("log")
    axes.tick_params(which="minor", length=0)
    if panel.x_ticks:
        axes.set_xticks(panel.x_ticks, [f"{tick:g}" for tick in panel.x_ticks])
        axes.set_xticks([], minor=True)
    if panel.y_range:
        axes.set_ylim(*panel.y_range)
    if panel.x_range:
        axes.set_xlim(*panel.x_range)


def _cloud(axes: Any, panel: Cloud) -> None:
    size = float(np.clip(9000 / max(len(panel.points), 1), 3, 30))
    for group in panel.groups:
        axes.scatter(*panel.points[group.rows].T, s=size, color=group.colour, alpha=0.8, linewidths=0, rasterized=True)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)


def _dots(axes: Any, panel: Dots) -> None:
    places = np.arange(len(panel.rows))[::-1]
    axes.grid(axis="x", color=GRID, lw=0.8)
    for place, row in zip(places, panel.rows, strict=True):
        values = [value for _, value, _ in row.marks if math.isfinite(value)]
        if len(values) > 1:
            axes.plot([min(values), max(values)], [place, place], color=GREY, alpha=0.45, lw=1.8, zorder=1)
        for mark, (_, value, colour) in enumerate(row.marks):
            at = panel.dodged(place, mark, row)
            ends = row.intervals[mark] if row.intervals else None
            if ends is not None:
                axes.plot(ends, [at, at], color=colour, lw=1.4)
            if math.isfinite(value):
                axes.plot(value, at, ls="", marker="o", color=colour, ms=6, mec="white", mew=0.7, clip_on=False)
    axes.set_yticks(places, [row.name for row in panel.rows])
    for label, row in zip(axes.get_yticklabels(), panel.rows, strict=True):
        if not row.depth and any(other.depth for other in panel.rows):
            label.set_weight("bold")
    axes.set_ylim(-0.7, len(places) - 0.3)
    axes.set_xlabel(panel.x, fontsize=9, color=INK)
    if panel.from_zero:
        axes.set_xlim(0, panel.right)
    if panel.reference is not None:
        axes.axvline(panel.reference, color=SOFT, lw=0.9, ls=":")


def _tree(axes: Any, panel: Dendrogram) -> None:
    for (heights, positions), colour in zip(panel.links, panel.colours, strict=True):
        axes.plot(heights, positions, color=colour or SOFT, lw=1.6, solid_capstyle="round")
    few = len(panel.leaves) <= 120
    axes.set_yticks(range(len(panel.leaves)) if few else [], panel.leaves if few else [])
    for label, colour in zip(axes.get_yticklabels(), panel.leaf_colours, strict=False):
        label.set_color(colour)
    axes.set_ylim(-0.7, len(panel.leaves) - 0.3)
    axes.set_xlim(0, 1.03 * max(height for heights, _ in panel.links for height in heights) or 1)
    axes.set_xlabel(panel.x, fontsize=9, color=INK)


_KINDS: dict[type, Callable[[Any, Any], None]] = {Lines: _lines, Cloud: _cloud, Dots: _dots, Dendrogram: _tree}


def _pictures(axes: Any, panel: Pictures, image: Images | None) -> None:
    """One row of images below another; positions are in widths of an image."""
    axes.axis("off")
    across = max((len(row.pictures) for row in panel.rows), default=1) + 1.6
    top = 0.0
    for row in panel.rows:
        note = f"\n{row.note}" if row.note else ""
        axes.text(0, top - 0.5, textwrap.fill(row.title, 15) + note, fontsize=8, color=INK, va="center")
        for place, picture in enumerate(row.pictures):
            left = 1.6 + place
            if image is not None:
                pixels: Array = np.asarray(image(picture.row).convert("RGB"))
                axes.imshow(pixels, extent=(left + 0.05, left + 0.95, top - 0.95, top - 0.05), interpolation="nearest")
            colour = SOFT if picture.good is None else GOOD if picture.good else BAD
            axes.text(left + 0.5, top - 1.02, picture.caption, fontsize=7, color=colour, ha="center", va="top")
        top -= 1.22
    axes.set_xlim(0, across)
    axes.set_ylim(top, 0)
    axes.set_aspect("equal")
