"""One HTML file with everything in it: no network, both themes, any screen."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import resources

from PIL import Image

from solo.analysis.figure import Dendrogram, Figure, Pictures
from solo.analysis.findings import Finding
from solo.analysis.plotly_panels import Json, legend_of, plotly_panel, printable
from solo.analysis.runs import Analysis
from solo.analysis.tables import Cell, Column, Table

Images = Callable[[int], "Image.Image"]

_THUMBNAIL = 96  # pixels
_SMALL = 48  # below this, pixels are shown as squares
_MOST_CHIPS = 40
SECTIONS = {
    "Overview": "",
    "Emergence": "What appears first, and what never does.",
    "Similarity": "What a cosine knows about the hierarchy.",
    "The embedding": "The images as points in the plane.",
    "The emergent tree": "The hierarchy that the model made up by itself.",
    "Local collapse": "Healthy on the whole, poor inside: where classes fall onto each other.",
    "Neighbours": "",
}


def write_report(
    analysis: Analysis,
    figures: Sequence[Figure],
    tables: Sequence[Table],
    found: Sequence[Finding],
    image: Images | None = None,
) -> str:
    """The page as text: tables follow the figures of their section, findings stand at the top.

    `image` gives the picture of a row of the features; None: there are none.
    """
    panels: list[Json] = []
    thumbnails = _thumbnails(image)
    sections = []
    for name, lede in SECTIONS.items():
        parts = [_figure(figure, panels, thumbnails) for figure in figures if figure.section == name]
        parts += [_table(table, analysis) for table in tables if table.section == name]
        if parts:
            words = f'<p class="lede">{_text(lede)}</p>' if lede else ""
            sections.append(
                (name, f'<section id="{_slug(name)}"><h2>{_text(name)}</h2>{words}{"".join(parts)}</section>')
            )
    sections.append(("How it was measured", _protocol(analysis)))
    names = [name for name, _ in sections]
    body = (
        _header(analysis, names) + f"<main>{_findings(found, analysis)}{''.join(text for _, text in sections)}</main>"
    )
    return _page(analysis.title, body, panels)


def _page(title: str, body: str, panels: list[Json]) -> str:
    from plotly.offline import get_plotlyjs

    data = json.dumps(panels, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":  # nothing in it ends or opens anything: no tag, no comment
        data = data.replace(sign, f"\\u{ord(sign):04x}")
    theme = (  # before anything is painted
        "(()=>{let t;try{t=localStorage.getItem('solo-theme')}catch{}"
        "const dark=matchMedia('(prefers-color-scheme: dark)').matches;"
        "document.documentElement.dataset.theme=t||(dark?'dark':'light')})()"
    )
    return (
        '<!doctype html>\n<html lang="en" data-theme="light"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{_text(title)}</title><style>{_asset("report.css")}</style>'
        f"<script>{theme}</script></head><body>{body}"
        "<noscript><main><p>The plots need JavaScript; tables and pictures don't.</p></main></noscript>"
        f"<script>{get_plotlyjs()}</script>"
        f'<script type="application/json" id="panels">{data}</script>'
        f"<script>{_asset('report.js')}</script></body></html>\n"
    )


def _header(analysis: Analysis, sections: Iterable[str]) -> str:
    several = len(analysis.runs) > 1
    snapshots = sum(len(run.snapshots) for run in analysis.runs)
    count = analysis.runs[0].last.spaces[analysis.spaces[0]].count
    what = f"{len(analysis.runs)} models compared" if several else "One model"
    times = f", {snapshots} snapshots" if analysis.over_time else ""
    words = f"{what}{times}, on {count:,} images. {_text(analysis.labelling.protocol)}."
    runs = "".join(f'<li><span style="background:{run.colour}"></span>{_text(run.name)}</li>' for run in analysis.runs)
    links = "".join(f'<a href="#{_slug(name)}">{_text(name)}</a>' for name in sections)
    return (
        f'<header class="top"><p class="kicker">solo analyze</p><h1>{_text(analysis.title)}</h1>'
        f'<p class="lede">{words}</p><ul class="runs">{runs}</ul></header>'
        f'<nav><div>{links}<button id="theme" type="button">Theme</button></div></nav>'
    )


def _findings(found: Sequence[Finding], analysis: Analysis) -> str:
    """A card for each topic, with what it says of every run."""
    colours = {run.name: run.colour for run in analysis.runs}
    cards = []
    for topic in dict.fromkeys(one.topic for one in found):
        parts = []
        for one in found:
            if one.topic != topic:
                continue
            run = f'<i style="background:{colours[one.run]}"></i>{_text(one.run)}' if len(colours) > 1 else ""
            value = f"<b>{_text(one.value)} <small>{_text(one.unit)}</small></b>"
            mark = ' class="warn"' if one.warn else ""
            parts.append(f'<div{mark}><span class="run">{run}</span>{value}<p>{_text(one.text)}</p></div>')
        cards.append(f"<li><h3>{_text(topic)}</h3>{''.join(parts)}</li>")
    return f'<ul class="findings">{"".join(cards)}</ul>' if cards else ""


def _figure(figure: Figure, panels: list[Json], thumbnails: Callable[[int], str]) -> str:
    legend = figure.legend or legend_of(figure.panels)
    switches = not all(isinstance(panel, (Pictures, Dendrogram)) for panel in figure.panels)
    chips = ""
    if 1 < len(legend) <= _MOST_CHIPS:
        buttons = "".join(
            f'<button type="button" aria-pressed="true" data-name="{_text(name)}"{"" if switches else " disabled"}>'
            f'<i style="background:{colour}"></i>{_text(name)}</button>'
            for name, colour in legend
        )
        chips = f'<div class="chips">{buttons}</div>'
    parts = []
    for panel in figure.panels:
        if isinstance(panel, Pictures):
            parts.append(_pictures(panel, thumbnails))
        else:
            panels.append(plotly_panel(panel))
            parts.append(f'<div class="plot" data-panel="{len(panels) - 1}"></div>')
    columns = min(2, len(figure.panels)) if isinstance(figure.panels[0], Pictures) else figure.columns
    return (
        f'<article id="{_text(figure.key)}"><h3>{_text(figure.title)}</h3>'
        f'<p class="caption">{_text(figure.caption)}</p>{chips}<div class="panels c{columns}">{"".join(parts)}</div>'
        f'<p class="protocol">{_text(figure.protocol)}</p></article>'
    )


def _pictures(panel: Pictures, thumbnails: Callable[[int], str]) -> str:
    rows = []
    for row in panel.rows:
        note = f"<small>{_text(row.note)}</small>" if row.note else ""
        cells = []
        for picture in row.pictures:
            tone = "" if picture.good is None else ' class="good"' if picture.good else ' class="bad"'
            caption = f"<figcaption{tone}>{_text(picture.caption)}</figcaption>"
            cells.append(f"<figure>{thumbnails(picture.row)}{caption}</figure>")
        rows.append(f'<div class="picture-row"><div>{_text(row.title)}{note}</div>{"".join(cells)}</div>')
    title = f'<p class="grid-title">{_text(panel.title)}</p>' if panel.title else ""
    return f"<div>{title}{''.join(rows)}</div>"


def _thumbnails(image: Images | None) -> Callable[[int], str]:
    @cache
    def tag(row: int) -> str:
        if image is None:
            return f"<span>image {row:,}</span>"
        picture = image(row).convert("RGB")
        small = max(picture.size) <= _SMALL
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        stream = io.BytesIO()
        picture.save(stream, format="PNG" if small else "JPEG", optimize=True, quality=85)
        kind = "png" if small else "jpeg"
        data = base64.b64encode(stream.getvalue()).decode()
        smooth = "" if small else ' class="smooth"'
        return f'<img{smooth} alt="image {row}" src="data:image/{kind};base64,{data}">'

    return tag


def _table(table: Table, analysis: Analysis) -> str:
    colours = {run.name: run.colour for run in analysis.runs}
    best = _best(table)
    heads = "".join(
        f'<th scope="col"{" class=text" if column.digits is None else ""}>'
        f'<button type="button" title="{_text(column.hint)}">{_text(column.name)}</button></th>'
        for column in table.columns
    )
    rows = []
    for number, row in enumerate(table.rows):
        cells = []
        for place, (column, value) in enumerate(zip(table.columns, row, strict=True)):
            mark = "text" if column.digits is None else "best" if (number, place) in best else ""
            dot = f'<i style="background:{colours[str(value)]}"></i>' if column.name == "run" else ""
            key = "" if _missing(value) else str(value)
            cells.append(f'<td class="{mark}" data-value="{_text(key)}">{dot}{_text(_shown(column, value))}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    tall = " tall" if len(rows) > 16 else ""
    return (
        f'<article id="table-{table.key}"><h3>{_text(table.title)}</h3><p class="caption">{_text(table.caption)}</p>'
        f'<div class="scroll{tall}"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<p class="protocol">{_text(table.protocol)}</p></article>'
    )


def _best(table: Table) -> set[tuple[int, int]]:
    """(row, column) of the best values: of several runs, and within one space, which others can't be compared with."""
    if not table.compares:
        return set()
    space = next(place for place, column in enumerate(table.columns) if column.name == "space")
    found = set()
    for kind in {row[space] for row in table.rows}:
        rows = [number for number, row in enumerate(table.rows) if row[space] == kind]
        for place, column in enumerate(table.columns):
            values = {number: table.rows[number][place] for number in rows}
            known = {n: float(v) for n, v in values.items() if isinstance(v, (int, float)) and math.isfinite(v)}
            if column.better and len(set(known.values())) > 1:
                best = (max if column.better == "high" else min)(known.values())
                found |= {(number, place) for number, value in known.items() if value == best}
    return found


def _missing(value: Cell) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _shown(column: Column, value: Cell) -> str:
    if value is None or _missing(value):
        return "–"
    return value if isinstance(value, str) else f"{value:,.{column.digits}f}"


def _protocol(analysis: Analysis) -> str:
    rows = "".join(f"<dt>{_text(topic)}</dt><dd>{_text(words)}</dd>" for topic, words in analysis.protocol.items())
    return f'<section id="how-it-was-measured"><h2>How it was measured</h2><article><dl>{rows}</dl></article></section>'


@cache
def _asset(name: str) -> str:
    return resources.files("solo.analysis").joinpath("page", name).read_text(encoding="utf-8")


def _text(words: object) -> str:
    """Words as HTML: marks escaped, control characters spelled out."""
    return html.escape(printable(str(words)), quote=True)


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")
