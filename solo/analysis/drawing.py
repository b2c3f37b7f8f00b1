"""How figures are drawn: by plotly in the report, and by matplotlib into files, for papers and slides, on white."""

import html
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from solo.analysis.figure import BAD, GOOD, GREY, GRID, INK, SOFT, Figure, Panel, Pictures, Plot, legend_of
from solo.errors import printable
from solo.files import replacing

Images = Callable[[int], "Image.Image"]  # from a row of the data set to its picture
Json = dict[str, Any]
_BAND = 0.14  # opacity of what is filled
_MOST_MARKED = 40  # values of a line that has dots
_CLEAR = "rgba(0,0,0,0)"
_LAYOUT = {"showlegend": False, "hovermode": "closest", "paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR}


def as_plotly(plot: Plot) -> Json:
    """Traces and layout as plotly's JSON; colours of text (`meta.textcolour`) and axes are set by the page's script."""
    data = []
    for one in plot.series:
        colour = one.colour or GREY
        faded = "rgba({},{},{},{:g})".format(*bytes.fromhex(colour[1:]), _BAND)
        named = {"name": brief(one.name), "legendgroup": brief(one.name)} if one.name else {}  # switched together
        if one.low is not None and one.high is not None:
            edges = {"x": numbers([*one.x, *reversed(one.x)]), "y": numbers([*one.high, *reversed(one.low)])}
            look = {"mode": "lines", "line": {"width": 0, "color": colour}, "fill": "toself", "hoverinfo": "skip"}
            data.append({"type": "scatter", **named, **edges, **look, "fillcolor": faded})
        trace: Json = {"type": "scatter", **named, "x": numbers(one.x), "y": numbers(one.y), "opacity": one.opacity}
        if one.joined:
            trace["mode"] = "lines+markers" if one.markers and len(one.x) <= _MOST_MARKED else "lines"
            trace["line"] = {"color": colour, "width": 2, "dash": "dot" if one.dash else "solid"}
            trace["marker"] = {"size": 5}
            words = f"{escape(plot.x)} %{{x}}: %{{y:.4~g}}"
        else:
            edge = {"color": "rgba(255,255,255,0.75)", "width": 0 if plot.bare else 1}  # between dots that overlap
            trace |= {"mode": "markers", "marker": {"color": colour, "size": _dot(plot), "line": edge}}
            words = "%{x:.4~g}"
        if one.area:
            trace |= {"fill": "tozeroy", "fillcolor": faded}
        if one.name:
            words = f"%{{text}}<br>{escape(one.name)}: {words}" if one.texts else f"{escape(one.name)}<br>{words}"
            trace["hovertemplate"] = f"{'%{text}' if plot.bare else words}<extra></extra>"
            trace["text"] = [escape(text) for text in one.texts]
        else:
            trace |= {"hoverinfo": "skip", "meta": {"textcolour": not one.colour}}
        data.append(trace)
    across, up = _axis(plot.x, bool(plot.rows), plot.log_x), _axis(plot.y, not plot.rows, plot.log_y)
    if plot.x_ticks:
        names = [f"{tick:g}" for tick in plot.x_ticks]
        across |= {"tickmode": "array", "tickvals": list(plot.x_ticks), "ticktext": names}
    if plot.rows:
        names = []
        for name in plot.rows:
            text = escape(name.text if len(name.text) <= 24 else f"{name.text[:23]}…")
            text = f"<b>{text}</b>" if name.bold else text
            names.append(f'<span style="color:{name.colour}">●</span> {text}' if name.colour else text)
        up |= {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names}
    for axis, ends in ((across, plot.x_range), (up, plot.y_range)):
        if ends:
            axis["range"] = list(ends)
    margin = {"l": 54, "r": 12, "t": 38, "b": 46}
    if plot.bare:
        across = up = {"visible": False, "showgrid": False}
        margin = {"l": 6, "r": 6, "t": 38, "b": 6}
    layout = {
        "title": {"text": escape(plot.title), "x": 0, "xanchor": "left", "font": {"size": 13}, "pad": {"l": 4}},
        "height": 380 if plot.bare else 100 + 22 * len(plot.rows) if plot.rows else 330,
        "margin": margin,
        **_LAYOUT,
        "font": {"size": 12},
        "xaxis": across,
        "yaxis": up,
    }
    if plot.reference is not None:
        ends_of = {"x0": plot.reference, "x1": plot.reference, "yref": "paper", "y0": 0, "y1": 1}
        layout["shapes"] = [{"type": "line", **ends_of, "line": {"color": GREY, "width": 1, "dash": "dot"}}]
    return {"data": data, "layout": layout}


def _axis(title: str, grid: bool, log: bool) -> Json:
    words = {"text": escape(title), "font": {"size": 12}, "standoff": 8}
    found = {"title": words, "zeroline": False, "automargin": True, "fixedrange": False, "showgrid": grid}
    return found | ({"type": "log", "dtick": 1, "exponentformat": "power"} if log else {})


def _dot(plot: Plot) -> float:
    """Diameter in pixels; in a cloud it gets smaller with the number of points."""
    count = sum(len(one.x) for one in plot.series) or 1
    return min(max(110 / math.sqrt(count), 3.0), 8.0) if plot.bare else 8


def numbers(values: Iterable[float]) -> list[int | float | None]:
    """Values with four significant digits; what isn't finite becomes None, which JSON has a word for."""
    found: list[int | float | None] = []
    for number in map(float, values):
        whole = number.is_integer() and abs(number) < 1e15
        found.append(int(number) if whole else float(f"{number:.4g}") if math.isfinite(number) else None)
    return found


def escape(text: str) -> str:
    """Text that plotly shows as it is."""
    return html.escape(brief(text), quote=False)


def brief(text: object) -> str:
    """Text without control characters, which are spelled out, and cut after 400 characters."""
    whole = str(text)
    return printable(whole[:400]) + "…" * (len(whole) > 400)


def draw(figure: Figure, path: Path, image: Images | None = None) -> None:
    """Draw one figure in the format that the path ends in (PDF without), with pictures of the data set by `image`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = figure.columns
    lines = [figure.panels[start : start + columns] for start in range(0, len(figure.panels), columns)]
    heights = [max(_inches(panel)[1] for panel in line) for line in lines]
    width = _inches(figure.panels[0])[0] * columns
    own = any(isinstance(panel, Plot) and panel.legend for panel in figure.panels)
    legend = figure.legend or ({} if own else legend_of(figure.panels))
    caption = textwrap.wrap(figure.caption, int(width * 12))
    rows = -(-sum(len(name) + 6 for name in legend) // int(width * 13)) if 1 < len(legend) <= 24 else 0
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
        place = (0.004, 1 - (0.4 + 0.18 * len(caption)) / total)
        _legend(canvas, legend, ncols=-(-len(legend) // rows), fontsize=9, loc="upper left", bbox_to_anchor=place)
    grid = canvas.add_gridspec(len(lines), columns, height_ratios=heights)
    for number, panel in enumerate(figure.panels):
        axes = canvas.add_subplot(grid[number // columns, number % columns])
        axes.set_title(panel.title, fontsize=10, loc="left", color=INK)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(GRID)
        axes.tick_params(colors=INK, labelsize=8.5)
        axes.tick_params(which="both", length=0)
        axes.set_axisbelow(True)
        if isinstance(panel, Pictures):
            _paint_pictures(axes, panel, image)
        else:
            _paint(axes, panel)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if path.suffix == ".png":  # `savefig` would draw all of it twice
            agg.print_png(temporary)  # type: ignore[no-untyped-call]
        else:
            canvas.savefig(temporary, format=path.suffix.lstrip(".") or "pdf")


def _inches(panel: Panel) -> tuple[float, float]:
    if isinstance(panel, Pictures):
        return 6.4, 0.4 + 0.95 * len(panel.rows)
    return (5.6, 0.9 + 0.2 * len(panel.rows)) if panel.rows else (4.3, 4.0 if panel.bare else 3.2)


def _legend(owner: Any, colours: Mapping[str, str], **look: Any) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], marker="o", ls="", color=one, markersize=6, label=name) for name, one in colours.items()]
    owner.legend(handles=marks, frameon=False, labelcolor=INK, handletextpad=0.2, columnspacing=1.2, **look)


def _paint(axes: Any, plot: Plot) -> None:
    names = legend_of((plot,))
    for one in plot.series:
        x, y = np.asarray(one.x, float), np.asarray(one.y, float)
        look: Json = {"color": one.colour or SOFT, "alpha": one.opacity}
        if one.low is not None and one.high is not None:
            axes.fill_between(x, one.low, one.high, color=look["color"], alpha=_BAND, lw=0)
        if one.area:
            axes.fill_between(x, 0, y, color=look["color"], alpha=_BAND, lw=0)
        if one.joined:
            marker = "o" if one.markers and len(x) <= _MOST_MARKED else None
            axes.plot(x, y, lw=1.7, ls=":" if one.dash else "-", marker=marker, ms=3.2, zorder=2, **look)
        elif plot.bare:
            axes.plot(x, y, "o", ms=_dot(plot) * 0.68, mew=0, rasterized=True, **look)
        else:
            axes.plot(x, y, "o", ms=6, mec="white", mew=0.7, clip_on=False, **look)
    if plot.bare:
        axes.set(xticks=[], yticks=[])
        axes.spines["bottom"].set_visible(False)
        if plot.legend:  # beside it, in columns of 20
            _legend(axes, names, ncols=-(-len(names) // 20), fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return
    axes.grid(axis="x" if plot.rows else "y", color=GRID, lw=0.8)
    axes.set_xlabel(plot.x, fontsize=9, color=INK)
    axes.set_ylabel(plot.y, fontsize=9, color=INK)
    if plot.log_x:
        axes.set_xscale("log")
    elif not plot.rows and all(float(x).is_integer() for one in plot.series for x in one.x):  # epochs
        axes.xaxis.get_major_locator().set_params(integer=True)
    if plot.log_y:
        axes.set_yscale("log")
    if plot.x_ticks:
        axes.set_xticks(plot.x_ticks, [f"{tick:g}" for tick in plot.x_ticks])
        axes.set_xticks([], minor=True)
    if plot.rows:
        axes.set_yticks(range(len(plot.rows)), [name.text for name in plot.rows])
        for label, name in zip(axes.get_yticklabels(), plot.rows, strict=True):
            label.set(color=name.colour or INK, weight="bold" if name.bold else "normal")
    if plot.y_range:
        axes.set_ylim(*plot.y_range)
    if plot.x_range:
        axes.set_xlim(*plot.x_range)
    if plot.reference is not None:
        axes.axvline(plot.reference, color=SOFT, lw=0.9, ls=":")
    if plot.legend:  # below the lines
        _legend(axes, names, ncols=2, fontsize=8, loc="upper left", bbox_to_anchor=(-0.02, -0.17))


def _paint_pictures(axes: Any, panel: Pictures, image: Images | None) -> None:
    """One row of images below another; positions are in widths of an image."""
    axes.axis("off")
    top = 0.0
    for row in panel.rows:
        note = f"\n{row.note}" if row.note else ""
        axes.text(0, top - 0.5, textwrap.fill(row.title, 15) + note, fontsize=8, color=INK, va="center")
        for place, picture in enumerate(row.pictures):
            left = 1.6 + place
            if image is not None:
                extent = (left + 0.05, left + 0.95, top - 0.95, top - 0.05)
                axes.imshow(image(picture.row).convert("RGB"), extent=extent, interpolation="nearest")
            colour = SOFT if picture.good is None else GOOD if picture.good else BAD
            axes.text(left + 0.5, top - 1.02, picture.caption, fontsize=7, color=colour, ha="center", va="top")
        top -= 1.22
    axes.set(xlim=(0, max(len(row.pictures) for row in panel.rows) + 1.6), ylim=(top, 0), aspect="equal")
