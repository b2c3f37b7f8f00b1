"""One HTML file with everything in it: no network, both themes, any screen. Its marks are in `page/report.html`."""

import io
import json
import math
from collections.abc import Callable, Sequence
from functools import cache

from markupsafe import Markup
from PIL import Image

from solo.analysis.figure import Dendrogram, Figure, Panel, Pictures, legend_of
from solo.analysis.pages import embedded, page_file, render
from solo.analysis.plotly_panels import Json, brief, plotly_panel
from solo.analysis.record import Cell, Finding, Table
from solo.analysis.runs import Analysis

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
    analysis: Analysis, figures: Sequence[Figure], table: Table, found: Sequence[Finding], image: Images | None = None
) -> str:
    """The page as text: findings stand at the top, then the table, then the figures by section.

    `image` gives the picture of a row of the features; None: there are none.
    """
    from plotly.offline import get_plotlyjs

    panels: list[Json] = []

    def plot(panel: Panel) -> int:
        """The number of a plot, which is drawn by the page's script."""
        panels.append(plotly_panel(panel))
        return len(panels) - 1

    @cache
    def thumbnail(row: int) -> Markup:
        if image is None:
            return Markup(f"<span>image {row:,}</span>")
        picture = image(row).convert("RGB")
        small = max(picture.size) <= _SMALL
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        stream, kind = io.BytesIO(), "png" if small else "jpeg"
        picture.save(stream, format=kind, optimize=True, quality=85)
        smooth = "" if small else ' class="smooth"'
        return Markup(f'<img{smooth} alt="image {row}" src="{embedded(stream.getvalue(), kind)}">')

    def chips(figure: Figure) -> Sequence[tuple[str, str]]:
        """The names and colours of a legend, where there are several, and not too many to be of use."""
        legend = figure.legend or legend_of(figure.panels)
        return legend if 1 < len(legend) <= _MOST_CHIPS else ()

    def all_panels() -> Markup:
        data = json.dumps(panels, separators=(",", ":"), allow_nan=False)
        for sign in "<>&":  # nothing in it ends or opens anything: no tag, no comment
            data = data.replace(sign, f"\\u{ord(sign):04x}")
        return Markup(data)

    sections = []
    for name, lede in SECTIONS.items():
        inside = [figure for figure in figures if figure.section == name]
        if inside or name == "Overview":
            sections.append({"name": name, "slug": name.lower().replace(" ", "-"), "lede": lede, "figures": inside})
    return render(
        "report.html",
        brief,
        analysis=analysis,
        count=analysis.runs[0].last.spaces[analysis.spaces[0]].count,
        colours={run.name: run.colour for run in analysis.runs},
        topics={topic: [one for one in found if one.topic == topic] for topic in dict.fromkeys(f.topic for f in found)},
        sections=sections,
        legend_of=chips,
        switches=lambda one: not all(isinstance(panel, (Pictures, Dendrogram)) for panel in one.panels),
        columns=lambda one: min(2, len(one.panels)) if isinstance(one.panels[0], Pictures) else one.columns,
        is_plot=lambda panel: not isinstance(panel, Pictures),
        plot=plot,
        panels=all_panels,
        table=table,
        cells=_cells(table),
        thumbnail=thumbnail,
        **{name: Markup(page_file(f"report.{name}")) for name in ("css", "js")},
        plotly=Markup(get_plotlyjs()),
    )


def _cells(table: Table) -> list[list[dict[str, str]]]:
    """For each cell its class, what it is sorted by, the run whose colour it has, and its text."""
    best, rows = _best(table), []
    for number, row in enumerate(table.rows):
        cells = []
        for place, (column, value) in enumerate(zip(table.columns, row, strict=True)):
            mark = "text" if column.digits is None else "best" if (number, place) in best else ""
            missing = value is None or (isinstance(value, float) and not math.isfinite(value))
            shown = "–" if missing else value if isinstance(value, str) else f"{value:,.{column.digits}f}"
            run = str(value) if column.name == "run" else ""
            cells.append({"mark": mark, "key": "" if missing else str(value), "run": run, "shown": str(shown)})
        rows.append(cells)
    return rows


def _best(table: Table) -> set[tuple[int, int]]:
    """(row, column) of the best values: of several runs, and within one space, which others can't be compared with."""
    space = next(place for place, column in enumerate(table.columns) if column.name == "space")
    found = set()
    for kind in {row[space] for row in table.rows}:
        rows = [number for number, row in enumerate(table.rows) if row[space] == kind]
        for place, column in enumerate(table.columns):
            values: dict[int, Cell] = {number: table.rows[number][place] for number in rows}
            known = {n: float(v) for n, v in values.items() if isinstance(v, (int, float)) and math.isfinite(v)}
            if column.better and len(set(known.values())) > 1:
                best = (max if column.better == "high" else min)(known.values())
                found |= {(number, place) for number, value in known.items() if value == best}
    return found
