"""The curves of one run as a figure: rows of `metrics.csv` in, panels out."""

import math
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from pathlib import Path

from solo.analysis.figure import Figure, Plot, Series, run_colour

Row = Mapping[str, float]

# Panel -> the columns, or families of columns `<name>/...`, that it shows.
_PANELS = {
    "Loss": ("loss", "train_loss", "train_class_loss", "val_loss"),
    "Accuracy (%)": ("val_acc1", "val_knn_acc1"),
    "HEX threshold": ("hex/threshold",),
    "Hierarchy negatives per anchor": ("hex/hierarchy_negatives",),
    "Directions in use": ("online/effective_rank", "online/rankme"),
    "LiDAR": ("online/lidar",),
    "Eigenvalue decay (alpha-ReQ)": ("online/alpha",),
    "Uniformity (lower: more even)": ("online/uniformity",),
    "Alignment (lower: views closer)": ("online/alignment",),
    "Spread (0: all in one point, 1: even)": ("online/std",),
    "kNN among the last training batches (%)": ("online/knn_acc1",),
    "Share of the superclass among what HEX selects": ("hex/superclass_share", "online/superclass_share"),
    "Learning rate": ("lr",),
}
_MAY_BE_LOG = ("Loss", "Directions in use", "LiDAR")
_NAMES = {
    "val_acc1": "linear",
    "val_knn_acc1": "kNN",
    "loss": "training",
    "train_loss": "training",
    "train_class_loss": "training, classifier",
    "val_loss": "validation, classifier",
    "effective_rank": "effective rank",
    "rankme": "RankMe",
    "lidar": "LiDAR",
    "knn_acc1": "kNN",
    "std": "spread",
    "hex/threshold": "threshold",
    "hex/hierarchy_negatives": "hierarchy negatives",
    "superclass_share": "last batches together",
    "hex/superclass_share": "in the loss",
}


def curves(rows: Sequence[Row], title: str = "") -> Figure:
    """Loss, accuracies (%), HEX, vital signs and learning rate over the epochs, of rows as in `metrics.csv`."""
    columns = dict.fromkeys(key for row in rows for key in row)
    panels = []
    for name, families in _PANELS.items():
        keys = [key for key in columns if any(key == family or key.startswith(f"{family}/") for family in families)]
        if name == "Accuracy (%)" and any("/" in key for key in keys):  # the finest level is the plain number again
            keys = [key for key in keys if "/" in key]
        if {"loss", "train_loss"} <= set(keys):
            keys.remove("train_loss")
        series = []
        for place, key in enumerate(keys):
            points = [(row["epoch"] + 1, row[key]) for row in rows if math.isfinite(row.get(key, math.nan))]
            if key in ("hex/threshold", "hex/hierarchy_negatives"):  # zero or nothing before HEX's warm-up has ended
                points = list(dropwhile(lambda point: point[1] == 0, points))
            if points:
                x, y = (list(values) for values in zip(*points, strict=True))
                series.append(Series(_label(key), x, y, run_colour(place)))
        if series:
            values = [value for line in series for value in line.y]
            logarithmic = name in _MAY_BE_LOG and min(values) > 0 and max(values) > 20 * min(values)
            named = len(series) > 1 or families[0].startswith("online/")
            panels.append(Plot(name, "epochs trained", "", tuple(series), log_y=logarithmic, legend=named))
    return Figure("curves", "", title, "", "", tuple(panels))


def plot_curves(rows: Sequence[Row], path: str | Path, title: str = "") -> list[str]:
    """Draw `curves` into a file; the names of the panels drawn, none and no file without numbers."""
    from solo.analysis.drawing import draw

    figure = curves(rows, title)
    if figure.panels:
        draw(figure, Path(path))
    return [panel.title for panel in figure.panels]


def _label(key: str) -> str:
    if key in _NAMES:
        return _NAMES[key]
    name, _, rest = key.removeprefix("online/").partition("/")
    return f"{_NAMES.get(name, name)}, {rest}"
