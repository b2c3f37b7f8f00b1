"""The numbers of `solo evaluate` as a figure: a panel for each kind of measure, a dot for each level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.analysis.figure import DotRow, Dots, Figure
from solo.analysis.palette import run_colour

Result = Mapping[str, Any]

# Panel -> numbers of a level, with their words.
_PANELS: dict[str, dict[str, str]] = {
    "Classification, top-1 (%)": {"linear_acc1": "linear", "knn_acc1": "kNN"},
    "Retrieval (%)": {"retrieval_top1": "top-1", "r_precision": "R-precision", "map_at_r": "MAP@R"},
    "k-means": {"nmi": "NMI", "ami": "AMI", "nmi_inside": "NMI inside the level above"},
}


def level_figure(results: Sequence[Result], title: str = "") -> Figure:
    """Numbers of one or several feature types and subsets of classes, as in `evaluate.json`, a row of panels each.

    Intervals become lines.
    """
    panels = []
    for result in results:
        which = "all classes" if result["classes"] == "all" else f"{result['classes']} classes"
        heading = f"{result['feature_type']}, {which}, {result['images']['val']:,} images"
        for name, numbers in _PANELS.items():
            rows = [_row(key, words, result["levels"]) for key, words in numbers.items()]
            shown = tuple(row for row in rows if row.marks)
            if shown:
                panels.append(Dots(heading, name, shown))
    names = [str(level["level"]) for level in (results[0]["levels"] if results else ())]
    legend = tuple((name, run_colour(place)) for place, name in enumerate(names))
    return Figure("evaluate", "", title, "", "", tuple(panels), legend, across=_across(panels))


def plot_levels(results: Sequence[Result], path: Path, title: str = "") -> int:
    """Draw `level_figure` into a file; the number of panels drawn, no file if it is 0."""
    from solo.analysis.png import draw

    figure = level_figure(results, title)
    if figure.panels:
        draw(figure, path)
    return len(figure.panels)


def _row(key: str, words: str, levels: Sequence[Mapping[str, Any]]) -> DotRow:
    there = [(place, level) for place, level in enumerate(levels) if level.get(key) is not None]
    marks = tuple((str(level["level"]), float(level[key]), run_colour(place)) for place, level in there)
    ends = tuple(tuple(level[f"{key}_ci"]) if level.get(f"{key}_ci") else None for _, level in there)
    return DotRow(words, marks, intervals=ends)


def _across(panels: Sequence[Dots]) -> int:
    """As many panels beside each other as one result has."""
    return max(sum(panel.title == panels[0].title for panel in panels), 1) if panels else 1
