"""The curves of one run as a figure: rows of `metrics.csv` in, panels out."""

import math
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from pathlib import Path

from solo.analysis.figure import Figure, Plot, Series, run_colour

Row = Mapping[str, float]

# Panel -> the columns, or families of columns `<name>/...`, that it shows, and what they are called.
_LOSSES = {"train_class_loss": "training, classifier", "val_loss": "validation, classifier"}
_PANELS = {
    "Loss": {"loss": "training", "train_loss": "training", **_LOSSES},
    "Accuracy (%)": {"val_acc1": "linear", "val_knn_acc1": "kNN"},
    "HEX threshold": {"hex/threshold": "threshold"},
    "Hierarchy negatives per anchor": {"hex/hierarchy_negatives": "hierarchy negatives"},
    "Directions in use": {"online/effective_rank": "effective rank", "online/rankme": "RankMe"},
    "LiDAR": {"online/lidar": "LiDAR"},
    "Eigenvalue decay (alpha-ReQ)": {"online/alpha": "alpha"},
    "Uniformity (lower: more even)": {"online/uniformity": "uniformity"},
    "Alignment (lower: views closer)": {"online/alignment": "alignment"},
    "Spread (0: all in one point, 1: even)": {"online/std": "spread"},
    "kNN among the last training batches (%)": {"online/knn_acc1": "kNN"},
    "Share of the superclass among what HEX selects": {
        "hex/superclass_share": "in the loss",
        "online/superclass_share": "last batches together",
    },
    "Learning rate": {"lr": "learning rate"},
}


def curves(rows: Sequence[Row], title: str = "") -> Figure:
    """Loss, accuracies (%), HEX, vital signs and learning rate over the epochs, of rows as in `metrics.csv`."""
    columns = dict.fromkeys(key for row in rows for key in row)
    panels = []
    for name, families in _PANELS.items():
        named = {
            key: called + key[len(family) :].replace("/", ", ", 1)
            for key in columns
            for family, called in families.items()
            if key == family or key.startswith(f"{family}/")
        }
        if name == "Accuracy (%)" and any("/" in key for key in named):  # the finest level is the plain number again
            named = {key: called for key, called in named.items() if "/" in key}
        if "loss" in named:
            named.pop("train_loss", None)
        series = []
        for place, (key, called) in enumerate(named.items()):
            points = [(row["epoch"] + 1, row[key]) for row in rows if math.isfinite(row.get(key, math.nan))]
            if key in ("hex/threshold", "hex/hierarchy_negatives"):  # zero or nothing before HEX's warm-up has ended
                points = list(dropwhile(lambda point: point[1] == 0, points))
            if points:
                x, y = (list(values) for values in zip(*points, strict=True))
                series.append(Series(called, x, y, run_colour(place)))
        if series:
            values = [value for line in series for value in line.y]
            may_be_log = name in ("Loss", "Directions in use", "LiDAR") and min(values) > 0
            legend = len(series) > 1 or next(iter(families)).startswith("online/")
            log_y = may_be_log and max(values) > 20 * min(values)
            panels.append(Plot(name, "epochs trained", "", tuple(series), log_y=log_y, legend=legend))
    return Figure("curves", "", title, "", "", tuple(panels))


def plot_curves(rows: Sequence[Row], path: str | Path, title: str = "") -> list[str]:
    """Draw `curves` into a file; the names of the panels drawn, none and no file without numbers."""
    from solo.analysis.drawing import draw

    figure = curves(rows, title)
    if figure.panels:
        draw(figure, Path(path))
    return [panel.title for panel in figure.panels]
