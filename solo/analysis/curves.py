"""The curves of one run in one picture: numbers in, a PNG out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.files import replacing

Row = Mapping[str, float]
_COLOURS = ("#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#787774", "#d44c47", "#cb912f")
_INK, _GRID = "#37352f", "#e6e5e1"
_HEX = ("hex/threshold", "hex/hierarchy_negatives")


def plot_curves(rows: Sequence[Row], path: str | Path, title: str = "") -> list[str]:
    """Draw loss, accuracies per level, threshold and hierarchy negatives, and learning rate over the epochs.

    Args:
        rows: one mapping an epoch, as in `metrics.csv`; accuracies in percent. Panels without numbers are left out.
        path: the PNG to write.
        title: one line above the panels.

    Returns:
        The names of the panels drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(name, keys) for name, keys in _panels(rows).items() if keys]
    if not panels:
        return []
    columns = min(2 if len(panels) <= 6 else 3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.4 * lines + 0.3), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=11, color=_INK)
    for position, (name, keys) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, position)
        _style(axes, name, last_line=position > len(panels) - columns)
        _draw(axes, rows, keys)
        if name in _MAY_BE_LOG:
            _spread_out(axes)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png")
    return [name for name, _ in panels]


def _panels(rows: Sequence[Row]) -> dict[str, list[str]]:
    keys = dict.fromkeys(key for row in rows for key in row)
    accuracies = [key for key in keys if key.startswith(("val_acc1", "val_knn_acc1"))]
    if any("/" in key for key in accuracies):  # the finest level is the plain number again
        accuracies = [key for key in accuracies if "/" in key]
    loss: list[str] = [key for key in ("loss", "train_loss", "train_class_loss", "val_loss") if key in keys]
    if "loss" in loss and "train_loss" in loss:
        loss.remove("train_loss")
    hex_keys = [key for key in _HEX if any(_known(row.get(key)) for row in rows)]
    return {
        "Loss": loss,
        "Accuracy (%)": accuracies,
        "HEX threshold and hierarchy negatives": hex_keys,
        **{panel: [key for key in keys if _is_one_of(key, names)] for panel, names in _VITALS.items()},
        "Learning rate": [key for key in ("lr",) if key in keys],
    }


_MAY_BE_LOG = ("Loss", "Directions in use", "LiDAR")
_LOG_FROM = 20  # times the smallest value

# Panel -> the columns `online/<name>/...` and others that it shows.
_VITALS = {
    "Directions in use": ("online/effective_rank", "online/rankme"),
    "LiDAR": ("online/lidar",),
    "Eigenvalue decay (alpha-ReQ)": ("online/alpha",),
    "Uniformity (lower: more even)": ("online/uniformity",),
    "Alignment (lower: views closer)": ("online/alignment",),
    "Spread (0: all in one point, 1: even)": ("online/std",),
    "kNN among the last training batches (%)": ("online/knn_acc1",),
    "Share of the superclass among what HEX selects": ("hex/superclass_share", "online/superclass_share"),
}


_VITAL_NAMES = {
    "effective_rank": "effective rank",
    "rankme": "RankMe",
    "lidar": "LiDAR",
    "knn_acc1": "kNN",
    "std": "spread",
    "superclass_share": "last batches together",
    "hex/superclass_share": "in the loss",
}


def _is_one_of(key: str, names: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}/") for name in names)


def _known(value: float | None) -> bool:
    """Whether HEX was at work: before its warm-up there is no threshold, and no hierarchy negative."""
    return value is not None and math.isfinite(value) and value != 0


def _draw(axes: Any, rows: Sequence[Row], keys: Sequence[str]) -> None:
    twin = None
    for index, key in enumerate(keys):
        points = [(row["epoch"] + 1, row[key]) for row in rows if math.isfinite(row.get(key, math.nan))]
        if key in _HEX:  # from where it is at work
            points = points[next(place for place, (_, value) in enumerate(points) if _known(value)) :]
        target, colour = axes, _COLOURS[index % len(_COLOURS)]
        if key == "hex/hierarchy_negatives" and len(keys) > 1:  # another unit: its own axis
            target = twin = axes.twinx()
            _bare(twin)
            twin.tick_params(colors=colour, labelsize=8, length=0)
        marker = "o" if len(points) < 25 else None
        epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
        width = max(2.8 - 0.5 * index, 1.3)  # a line below an equal one shows its edges
        target.plot(epochs, values, color=colour, lw=width, marker=marker, ms=3, label=_label(key))
    axes.set_xlim(rows[0]["epoch"] + 0.8, rows[-1]["epoch"] + 1.2)
    if len(keys) > 1 or keys[0].startswith("online/"):
        handles = [*axes.get_lines(), *(twin.get_lines() if twin else [])]
        below = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.1), "ncols": 2, "columnspacing": 1.2}
        axes.legend(handles=handles, fontsize=8, frameon=False, labelcolor=_INK, **below)


def _spread_out(axes: Any) -> None:
    """A logarithmic axis where positive values span more than one order of magnitude."""
    values = [float(value) for line in axes.get_lines() for value in line.get_ydata()]
    if values and min(values) > 0 and max(values) > _LOG_FROM * min(values):
        axes.set_yscale("log")
        axes.tick_params(which="minor", length=0)


def _label(key: str) -> str:
    names = {"val_acc1": "linear", "val_knn_acc1": "kNN", "loss": "training", "train_loss": "training"}
    names |= {"val_loss": "validation (classifier)", "hex/threshold": "threshold"}
    names |= {"hex/hierarchy_negatives": "hierarchy negatives per anchor (right axis)"}
    if key.startswith(("online/", "hex/superclass")):
        name, _, space = key.removeprefix("online/").partition("/")
        return _VITAL_NAMES.get(key) or f"{_VITAL_NAMES.get(name, name)}, {space}"
    name, _, level = key.partition("/")
    return names.get(key) or f"{names.get(name, name)}, {level}"


def _style(axes: Any, name: str, last_line: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(name, fontsize=10, loc="left", color=_INK)
    if last_line:
        axes.set_xlabel("epochs trained", fontsize=9, color=_INK, loc="right")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=8, length=0)
    _bare(axes)


def _bare(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
