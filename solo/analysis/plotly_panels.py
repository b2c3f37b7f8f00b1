"""Panels as plotly's JSON: traces and layout. Colours of text, axes and background are set by the page's script."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from solo.analysis.figure import Cloud, Dendrogram, Dots, Lines, Panel, Series
from solo.analysis.palette import GREY

Json = dict[str, Any]
_DIGITS = 4
_LONGEST = 400  # characters of a name that are shown
_ROW = 22  # pixels of a row of dots, a leaf of a tree
_EDGE = "rgba(255,255,255,0.75)"  # between dots that overlap


def plotly_panel(panel: Panel) -> Json:
    """Traces and layout of one panel; `meta.textcolour` marks what takes the colour of the text.

    Raises:
        TypeError: pictures, which the page shows as images.
    """
    for kind, drawn in _KINDS.items():
        if isinstance(panel, kind):
            return drawn(panel)
    raise TypeError("pictures are images of the page, not a plot")


def _layout(title: str, height: int, **more: Any) -> Json:
    return {
        "title": {"text": escape(title), "x": 0, "xanchor": "left", "font": {"size": 13}, "pad": {"l": 4}},
        "height": height,
        "margin": {"l": 54, "r": 12, "t": 38, "b": 46},
        "showlegend": False,
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12},
        **more,
    }


def _axis(title: str = "", **more: Any) -> Json:
    return {
        "title": {"text": escape(title), "font": {"size": 12}, "standoff": 8},
        "zeroline": False,
        "automargin": True,
        "fixedrange": False,
        **more,
    }


def _lines(panel: Lines) -> Json:
    data: list[Json] = []
    for series in panel.series:
        if series.low is not None and series.high is not None:
            data.append(_band(series))
        few = series.markers and len(series.x) <= 40
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if few else "lines",
                "name": printable(series.name),
                "legendgroup": printable(series.name),
                "x": numbers(series.x),
                "y": numbers(series.y),
                "line": {"color": series.colour, "width": 2, "dash": "dot" if series.dash else "solid"},
                "marker": {"size": 5},
                **({"fill": "tozeroy", "fillcolor": faded(series.colour, 0.14)} if series.area else {}),
                "hovertemplate": f"{escape(series.name)}<br>{escape(panel.x)} %{{x}}: %{{y:.4~g}}<extra></extra>",
            }
        )
    x = _axis(
        panel.x, showgrid=False, **({"type": "log", "dtick": 1, "exponentformat": "power"} if panel.log_x else {})
    )
    y = _axis(panel.y, **({"type": "log", "dtick": 1, "exponentformat": "power"} if panel.log_y else {}))
    if panel.x_ticks:
        x |= {"tickmode": "array", "tickvals": list(panel.x_ticks), "ticktext": [f"{tick:g}" for tick in panel.x_ticks]}
    if panel.x_range:
        x["range"] = list(panel.x_range)
    if panel.y_range:
        y["range"] = list(panel.y_range)
    return {"data": data, "layout": _layout(panel.title, 330, xaxis=x, yaxis=y)}


def _band(series: Series) -> Json:
    assert series.low is not None and series.high is not None
    x = numbers(series.x)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": printable(series.name),
        "legendgroup": printable(series.name),
        "x": x + x[::-1],
        "y": numbers(series.high) + numbers(series.low)[::-1],
        "line": {"width": 0, "color": series.colour},
        "fill": "toself",
        "fillcolor": faded(series.colour, 0.14),
        "hoverinfo": "skip",
    }


def _cloud(panel: Cloud) -> Json:
    size = float(np.clip(110 / math.sqrt(max(len(panel.points), 1)), 3, 8))
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": printable(group.name),
            "legendgroup": printable(group.name),
            "x": numbers(panel.points[group.rows, 0]),
            "y": numbers(panel.points[group.rows, 1]),
            "marker": {"color": group.colour, "size": size, "opacity": 0.8, "line": {"width": 0}},
            "text": [escape(panel.texts[row]) for row in group.rows] if panel.texts else escape(group.name),
            "hovertemplate": "%{text}<extra></extra>",
        }
        for group in panel.groups
    ]
    bare = {"visible": False, "showgrid": False}
    layout = _layout(panel.title, 380, xaxis=bare, yaxis=bare, margin={"l": 6, "r": 6, "t": 38, "b": 6})
    return {"data": data, "layout": layout}


def _dots(panel: Dots) -> Json:
    places = list(range(len(panel.rows)))[::-1]
    joined_x: list[float | None] = []
    joined_y: list[float | None] = []
    marks: dict[tuple[str, str], tuple[list[float], list[float], list[str]]] = {}
    for place, row in zip(places, panel.rows, strict=True):
        values = [value for _, value, _ in row.marks if math.isfinite(value)]
        if len(values) > 1:
            joined_x += [*numbers([min(values), max(values)]), None]
            joined_y += [place, place, None]
        for mark, (name, value, colour) in enumerate(row.marks):
            ends = row.intervals[mark] if row.intervals else None
            if ends is not None:
                joined_x += [*numbers(list(ends)), None]
                joined_y += [panel.dodged(place, mark, row)] * 2 + [None]
            found = marks.setdefault((printable(name), colour), ([], [], []))
            if math.isfinite(value):
                found[0].append(*numbers([value]))
                found[1].append(panel.dodged(place, mark, row))
                found[2].append(row.name)
    data: list[Json] = [
        {"type": "scatter", "mode": "lines", "x": joined_x, "y": joined_y, "hoverinfo": "skip"}
        | {"line": {"color": faded(GREY, 0.45), "width": 2}}
    ]
    data += [
        {"type": "scatter", "mode": "markers", "name": name, "legendgroup": name, "x": x, "y": y}
        | {"text": [escape(text) for text in texts]}
        | {"marker": {"color": colour, "size": 8, "symbol": "circle", "line": {"color": _EDGE, "width": 1}}}
        | {"hovertemplate": f"%{{text}}<br>{escape(name)}: %{{x:.4~g}}<extra></extra>"}
        for (name, colour), (x, y, texts) in marks.items()
    ]
    mixed = len({row.depth for row in panel.rows}) > 1
    names = [
        f"<b>{escape(_short(row.name))}</b>" if mixed and not row.depth else escape(_short(row.name))
        for row in panel.rows
    ]
    y = _axis(tickmode="array", tickvals=places, ticktext=names, showgrid=False, range=[-0.7, len(places) - 0.3])
    x = _axis(panel.x, **({"range": [0, panel.right]} if panel.from_zero else {}))
    layout = _layout(panel.title, 100 + _ROW * len(places), xaxis=x, yaxis=y)
    if panel.reference is not None:
        layout["shapes"] = [
            {"type": "line", "x0": panel.reference, "x1": panel.reference, "yref": "paper", "y0": 0, "y1": 1}
            | {"line": {"color": GREY, "width": 1, "dash": "dot"}}
        ]
    return {"data": data, "layout": layout}


def _tree(panel: Dendrogram) -> Json:
    by_colour: dict[str, tuple[list[float | None], list[float | None]]] = {}
    for (heights, positions), colour in zip(panel.links, panel.colours, strict=True):
        found = by_colour.setdefault(colour, ([], []))
        found[0].extend([*numbers(heights), None])
        found[1].extend([*numbers(positions), None])
    data: list[Json] = [
        {"type": "scatter", "mode": "lines", "x": x, "y": y, "hoverinfo": "skip"}
        | {"line": {"color": colour or GREY, "width": 2}, "meta": {"textcolour": not colour}}
        for colour, (x, y) in by_colour.items()
    ]
    places = list(range(len(panel.leaves)))
    few = len(places) <= 120
    named = zip(panel.leaves, panel.leaf_colours, strict=True)
    names = [f'<span style="color:{colour}">●</span> {escape(_short(name))}' for name, colour in named]
    y = _axis(range=[-0.7, len(places) - 0.3], showgrid=False)
    y |= {"tickmode": "array", "tickvals": places, "ticktext": names} if few else {"showticklabels": False}
    x = _axis(panel.x, rangemode="tozero")
    height = 110 + (_ROW if few else 4) * len(places)
    return {"data": data, "layout": _layout(panel.title, min(height, 2200), xaxis=x, yaxis=y)}


_KINDS: dict[type, Callable[[Any], Json]] = {Lines: _lines, Cloud: _cloud, Dots: _dots, Dendrogram: _tree}


def numbers(values: Iterable[float]) -> list[Any]:
    """Values with four significant digits; what isn't finite becomes None, which JSON has a word for."""
    found: list[Any] = []
    for value in np.asarray(values, dtype=np.float64).tolist() if not isinstance(values, list) else values:
        number = float(value)
        if not math.isfinite(number):
            found.append(None)
        elif number == int(number) and abs(number) < 1e15:
            found.append(int(number))
        else:
            found.append(float(f"{number:.{_DIGITS}g}"))
    return found


def faded(colour: str, alpha: float) -> str:
    """A colour `#rrggbb` with an opacity in [0, 1], as Plotly writes it."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def escape(text: str) -> str:
    """Text that plotly shows as it is."""
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def printable(text: str) -> str:
    """Text without control characters, which are spelled out, as is half a surrogate pair; cut where it is huge."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:_LONGEST])
    return shown if len(text) <= _LONGEST else f"{shown}…"


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


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
