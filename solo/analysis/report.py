"""One HTML file with everything in it: no network, both themes, any screen. Its marks are in `page/report.html`."""

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from markupsafe import Markup

from solo.analysis.drawing import Images, Json, as_plotly, brief
from solo.analysis.figure import Figure, Pictures, Plot, legend_of
from solo.analysis.numbers import SPACES, Analysis, Numbers
from solo.analysis.pages import embedded, page_file, render
from solo.analysis.record import Finding

_THUMBNAIL = 96  # pixels
_SMALL = 48  # below this, pixels are shown as squares
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
    analysis: Analysis, figures: Sequence[Figure], found: Sequence[Finding], image: Images | None = None
) -> str:
    """The page as text: findings stand at the top, then the table, then the figures by section.

    `image` gives the picture of a row of the features; None: there are none.
    """
    from plotly.offline import get_plotlyjs

    panels: list[Json] = []

    def plot(panel: Plot) -> int:
        """The number of a plot, which is drawn by the page's script."""
        panels.append(as_plotly(panel))
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

    def chips(figure: Figure) -> Mapping[str, str]:
        """The names and colours of a legend, where there are several, and not too many to be of use."""
        legend = dict(figure.legend) or legend_of(figure.panels)
        return legend if 1 < len(legend) <= 40 else {}

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
    columns, cells = _overview(analysis)
    return render(
        "report.html",
        brief,
        analysis=analysis,
        count=analysis.runs[0].last.spaces[analysis.spaces[0]].count,
        colours={run.name: run.colour for run in analysis.runs},
        topics={topic: [one for one in found if one.topic == topic] for topic in dict.fromkeys(f.topic for f in found)},
        sections=sections,
        legend_of=chips,
        switches=lambda one: bool(legend_of(one.panels)),
        columns_of=lambda one: min(2, len(one.panels)) if isinstance(one.panels[0], Pictures) else one.columns,
        is_plot=lambda panel: isinstance(panel, Plot),
        plot=plot,
        panels=all_panels,
        columns=columns,
        cells=cells,
        table_protocol=" ".join(analysis.protocol[topic] for topic in ("images", "knn", "rank", "LiDAR")),
        thumbnail=thumbnail,
        **{name: Markup(page_file(f"report.{name}")) for name in ("css", "js")},
        plotly=Markup(get_plotlyjs()),
    )


class _Column(NamedTuple):
    """Its heading, what it means, digits behind the point, and which end is better, if any."""

    name: str
    hint: str = ""
    digits: int | None = None
    better: str = ""


# What there is of every snapshot, in each space; NaN is unknown.
_MEASURES: dict[_Column, Callable[[Numbers], float]] = {
    _Column("effective rank", "directions that carry variance, centred", 1, "high"): lambda n: n.effective_rank,
    _Column("RankMe", "the same without centring", 1, "high"): lambda n: n.rankme,
    _Column("local / global", "mean over the superclasses of their rank over that of as many images", 3, "high"): (
        lambda n: n.mean_ratio
    ),
    _Column("LiDAR", "directions that tell images apart, relative to how views of one differ", 1, "high"): (
        lambda n: n.lidar
    ),
    _Column("alpha-ReQ", "decay of the eigenvalues; about 1 goes with features that transfer", 2): lambda n: n.alpha,
    _Column("uniformity", "log mean Gaussian potential; lower is more even", 2, "low"): lambda n: n.uniformity,
    _Column("same − other", "difference of mean cosines of same-superclass and other pairs", 3, "high"): (
        lambda n: n.cosine.gap if n.cosine else math.nan
    ),
    _Column("threshold", "mean 0.99 quantile of each anchor's cosines", 3): lambda n: n.selection.threshold,
    _Column("same superclass", "share of the images above the threshold, %", 1, "high"): (
        lambda n: 100 * n.selection.precision
    ),
    _Column("tree agreement", "cophenetic correlation with the label tree", 3, "high"): (
        lambda n: n.agreement.cophenetic if n.agreement else math.nan
    ),
    _Column("worst mixing", "of any two classes", 3, "low"): lambda n: n.pairs[0].mixing if n.pairs else math.nan,
}


def _overview(analysis: Analysis) -> tuple[list[_Column], list[list[dict[str, str]]]]:
    """The last snapshot of each run in numbers: columns, and a row for each run and space.

    A cell has its class, what it is sorted by, the run whose colour it has, and its text; the best of several runs is
    marked in each space, as others can't be compared with it.
    """
    accuracies = (
        _Column(f"kNN, {level}", "leave-one-out top-1 accuracy, %", 2, "high") for level in analysis.labelling.levels
    )
    columns, rows = [*accuracies, *_MEASURES], []
    held = [(run.name, space, numbers) for run in analysis.runs for space, numbers in run.last.spaces.items()]
    values = [[*n.knn.values(), *(of(n) for of in _MEASURES.values())] for *_, n in held]
    for (run, space, _), own in zip(held, values, strict=True):
        called = SPACES.get(space, space)
        cells = [{"mark": "text", "key": run, "run": run, "shown": run}]
        cells.append({"mark": "text", "key": called, "run": "", "shown": called})
        rivals = [others for (_, other, _), others in zip(held, values, strict=True) if other == space]
        for place, (column, value) in enumerate(zip(columns, own, strict=True)):
            known = {others[place] for others in rivals if math.isfinite(others[place])}
            best = {"high": max, "low": min}.get(column.better)
            mark = "best" if best and len(known) > 1 and value == best(known) else ""
            fine = math.isfinite(value)
            shown = f"{value:,.{column.digits}f}" if fine else "–"
            cells.append({"mark": mark, "key": str(value) if fine else "", "run": "", "shown": shown})
        rows.append(cells)
    return [_Column("run"), _Column("space"), *columns], rows
