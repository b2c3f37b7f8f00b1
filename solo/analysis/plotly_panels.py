"""Panels as plotly's JSON: traces and layout. Colours of text, axes and background are set by the page's script."""

import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from solo.analysis.figure import Cloud, Dendrogram, Dots, Lines, Panel
from solo.analysis.palette import GREY
from solo.errors import printable

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


def _trace(mode: str, x: Iterable[float], y: Iterable[float], name: str | None, **more: Any) -> Json:
    """Lines or markers; those of one name are switched on and off together, None is always on."""
    named = {} if name is None else {"name": brief(name), "legendgroup": brief(name)}
    return {"type": "scatter", "mode": mode, "x": numbers(x), "y": numbers(y), **named, **more}


def _named(places: Sequence[float], names: list[str]) -> Json:
    return {"tickmode": "array", "tickvals": places, "ticktext": names}


def _lines(panel: Lines) -> Json:
    data: list[Json] = []
    for series in panel.series:
        faint: Json = {"fillcolor": faded(series.colour, 0.14)}
        if series.low is not None and series.high is not None:
            x, y = [*series.x, *reversed(series.x)], [*series.high, *reversed(series.low)]
            edge: Json = {"line": {"width": 0, "color": series.colour}, "fill": "toself", "hoverinfo": "skip"}
            data.append(_trace("lines", x, y, series.name, **edge, **faint))
        look: Json = {"line": {"color": series.colour, "width": 2, "dash": "dot" if series.dash else "solid"}}
        look |= {"marker": {"size": 5}, **({"fill": "tozeroy", **faint} if series.area else {})}
        hover = f"{escape(series.name)}<br>{escape(panel.x)} %{{x}}: %{{y:.4~g}}<extra></extra>"
        mode = "lines+markers" if series.markers and len(series.x) <= 40 else "lines"
        data.append(_trace(mode, series.x, series.y, series.name, hovertemplate=hover, **look))
    powers: Json = {"type": "log", "dtick": 1, "exponentformat": "power"}
    across = _axis(panel.x, showgrid=False, **(powers if panel.log_x else {}))
    up = _axis(panel.y, **(powers if panel.log_y else {}))
    if panel.x_ticks:
        across |= _named(list(panel.x_ticks), [f"{tick:g}" for tick in panel.x_ticks])
    for axis, ends in ((across, panel.x_range), (up, panel.y_range)):
        if ends:
            axis["range"] = list(ends)
    return {"data": data, "layout": _layout(panel.title, 330, xaxis=across, yaxis=up)}


def _cloud(panel: Cloud) -> Json:
    size = float(np.clip(110 / math.sqrt(max(len(panel.points), 1)), 3, 8))
    data = []
    for group in panel.groups:
        x, y = panel.points[group.rows].T
        look: Json = {"marker": {"color": group.colour, "size": size, "opacity": 0.8, "line": {"width": 0}}}
        text = [escape(panel.texts[row]) for row in group.rows] if panel.texts else escape(group.name)
        look |= {"text": text, "hovertemplate": "%{text}<extra></extra>"}
        data.append(_trace("markers", x, y, group.name, **look))
    bare = {"visible": False, "showgrid": False}
    layout = _layout(panel.title, 380, xaxis=bare, yaxis=bare, margin={"l": 6, "r": 6, "t": 38, "b": 6})
    return {"data": data, "layout": layout}


def _dots(panel: Dots) -> Json:
    places = list(range(len(panel.rows)))[::-1]
    joined: list[tuple[float, float]] = []  # ends of lines, and after each a gap
    marks: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    gap = (math.nan, math.nan)
    for place, row in zip(places, panel.rows, strict=True):
        values = [value for _, value, _ in row.marks if math.isfinite(value)]
        if len(values) > 1:
            joined += [(min(values), place), (max(values), place), gap]
        for mark, (name, value, colour) in enumerate(row.marks):
            at = panel.dodged(place, mark, row)
            if row.intervals and (ends := row.intervals[mark]) is not None:
                joined += [(ends[0], at), (ends[1], at), gap]
            found = marks.setdefault((name, colour), [])
            if math.isfinite(value):
                found.append((value, at, escape(row.name)))
    between: Json = {"line": {"color": faded(GREY, 0.45), "width": 2}, "hoverinfo": "skip"}
    data = [_trace("lines", [x for x, _ in joined], [y for _, y in joined], None, **between)]
    for (name, colour), dots in marks.items():
        look: Json = {"marker": {"color": colour, "size": 8, "symbol": "circle", "line": {"color": _EDGE, "width": 1}}}
        look |= {"text": [text for *_, text in dots]}
        look |= {"hovertemplate": f"%{{text}}<br>{escape(name)}: %{{x:.4~g}}<extra></extra>"}
        data.append(_trace("markers", [x for x, *_ in dots], [y for _, y, _ in dots], name, **look))
    mixed = len({row.depth for row in panel.rows}) > 1
    names = [f"<b>{_short(row.name)}</b>" if mixed and not row.depth else _short(row.name) for row in panel.rows]
    y = _axis(**_named(places, names), showgrid=False, range=[-0.7, len(places) - 0.3])
    x = _axis(panel.x, **({"range": [0, panel.right]} if panel.from_zero else {}))
    layout = _layout(panel.title, 100 + _ROW * len(places), xaxis=x, yaxis=y)
    if panel.reference is not None:
        across = {"x0": panel.reference, "x1": panel.reference, "yref": "paper", "y0": 0, "y1": 1}
        layout["shapes"] = [{"type": "line", **across, "line": {"color": GREY, "width": 1, "dash": "dot"}}]
    return {"data": data, "layout": layout}


def _tree(panel: Dendrogram) -> Json:
    by_colour: dict[str, tuple[list[float], list[float]]] = {}
    for (heights, positions), colour in zip(panel.links, panel.colours, strict=True):
        found = by_colour.setdefault(colour, ([], []))
        found[0].extend([*heights, math.nan])
        found[1].extend([*positions, math.nan])
    data: list[Json] = []
    for colour, (x, y) in by_colour.items():
        look: Json = {"line": {"color": colour or GREY, "width": 2}, "meta": {"textcolour": not colour}}
        data.append(_trace("lines", x, y, None, hoverinfo="skip", **look))
    places = list(range(len(panel.leaves)))
    few = len(places) <= 120
    named = zip(panel.leaves, panel.leaf_colours, strict=True)
    names = [f'<span style="color:{colour}">●</span> {_short(name)}' for name, colour in named]
    up = _axis(range=[-0.7, len(places) - 0.3], showgrid=False)
    up |= _named(places, names) if few else {"showticklabels": False}
    height = min(110 + (_ROW if few else 4) * len(places), 2200)
    return {
        "data": data,
        "layout": _layout(panel.title, height, xaxis=_axis(panel.x, rangemode="tozero"), yaxis=up),
    }


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
    return html.escape(brief(text), quote=False)


def brief(text: object) -> str:
    """Text without control characters, which are spelled out, and cut where it is huge."""
    whole = str(text)
    return printable(whole[:_LONGEST]) + "…" * (len(whole) > _LONGEST)


def _short(name: str, most: int = 24) -> str:
    return escape(name if len(name) <= most else f"{name[: most - 1]}…")
