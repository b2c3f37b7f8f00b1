"""The numbers of `solo evaluate` in one picture: a panel for each kind of measure, a group of bars for each level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.analysis.palette import run_colour
from solo.files import replacing

Result = Mapping[str, Any]

_INK, _GRID = "#37352f", "#e6e5e1"
# Panel -> numbers of a level, with their words.
_PANELS: dict[str, dict[str, str]] = {
    "classification, top-1 in percent": {"linear_acc1": "linear", "knn_acc1": "kNN"},
    "retrieval in percent": {"retrieval_top1": "top-1", "r_precision": "R-precision", "map_at_r": "MAP@R"},
    "k-means": {"nmi": "NMI", "ami": "AMI", "nmi_inside": "NMI inside\nthe level above"},
}


def plot_levels(results: Sequence[Result], path: Path, title: str = "") -> int:
    """Draw the results of one or several feature types and subsets of classes, a row of panels each.

    Args:
        results: with `feature_type`, `classes` and `levels` as in `evaluate.json`; intervals become error bars.
        path: the PNG to write.
        title: above all.

    Returns:
        The number of panels drawn; nothing is written if it is 0.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [name for name, numbers in _PANELS.items() if any(_has(result, numbers) for result in results)]
    if not panels:
        return 0
    figure = Figure(
        figsize=(4.4 * len(panels), 3.1 * len(results) + 0.4), dpi=130, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, color=_INK)
    for row, result in enumerate(results):
        which = "all classes" if result["classes"] == "all" else f"{result['classes']} classes"
        for column, name in enumerate(panels):
            axes = figure.add_subplot(len(results), len(panels), row * len(panels) + column + 1)
            heading = f"{name}\n{result['feature_type']}, {which}, {result['images']['val']:,} images"
            _panel(axes, result["levels"], _PANELS[name], heading)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    return len(results) * len(panels)


def _has(result: Result, names: Mapping[str, str]) -> bool:
    return any(level.get(name) is not None for level in result["levels"] for name in names)


def _panel(axes: Any, levels: Sequence[Mapping[str, Any]], names: Mapping[str, str], heading: str) -> None:
    """Measures along the axis, a bar for each level; coarse levels first."""
    shown = [name for name in names if any(level.get(name) is not None for level in levels)]
    percent = not any(name.startswith(("nmi", "ami")) for name in shown)
    width = 0.8 / len(levels)
    for index, level in enumerate(levels):
        there = [(place, name) for place, name in enumerate(shown) if level.get(name) is not None]
        at = [place + (index - (len(levels) - 1) / 2) * width for place, _ in there]
        heights = [float(level[name]) for _, name in there]
        colour = run_colour(index)
        label = f"{level['level']} ({level['classes']:,})"
        axes.bar(at, heights, width * 0.92, color=colour, label=label, zorder=2)
        for x, height, (_, name) in zip(at, heights, there, strict=True):
            low, high = level.get(f"{name}_ci") or (height, height)
            if high > low:
                axes.plot([x, x], [low, high], color=_INK, linewidth=1, zorder=3)
            text = f"{height:.1f}" if percent else f"{height:.2f}"
            axes.annotate(
                text, (x, max(high, 0)), (0, 2), textcoords="offset points", ha="center", fontsize=7, color=_INK
            )
    axes.set_ylim(top=112 if percent else 1.12)
    axes.set_yticks([0, 25, 50, 75, 100] if percent else [0, 0.25, 0.5, 0.75, 1])
    axes.set_xticks(range(len(shown)), [names[name] for name in shown])
    axes.tick_params(labelsize=8, colors=_INK, length=0)
    axes.set_title(heading, fontsize=8.5, loc="left", color=_INK)
    axes.grid(axis="y", color=_GRID, linewidth=0.8, zorder=0)
    for name, side in axes.spines.items():
        side.set_visible(name == "bottom")
        side.set_color(_GRID)
    axes.legend(fontsize=7, frameon=False, labelcolor=_INK, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
