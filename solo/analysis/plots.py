"""What is drawn beside the report: the curves of a run, and features as points in the plane."""

import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from solo.analysis.figure import UNKNOWN, Figure, Plot, Series, cloud, named_palette, run_colour
from solo.errors import UserError
from solo.eval.features import Array, draw

Row = Mapping[str, float]
Embedding = Literal["umap", "tsne", "pca"]

TITLES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}

# Panel -> the columns, or families of columns `<name>/...`, that it shows, and what they are called.
_LOSSES = {"train_class_loss": "training, classifier", "val_loss": "validation, classifier"}
_SHARES = {"hex/superclass_share": "in the loss", "online/superclass_share": "last batches together"}
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
    "Share of the superclass among what HEX selects": _SHARES,
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
                x, y = map(list, zip(*points, strict=True))
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
    from solo.analysis import drawing

    figure = curves(rows, title)
    if figure.panels:
        drawing.draw(figure, Path(path))
    return [panel.title for panel in figure.panels]


def draw_embedding(
    features: Array,
    targets: Array,
    paths: Sequence[Path],
    *,
    names: Sequence[tuple[str, Sequence[str]]] | None = None,
    title: str = "",
    embedding: Embedding = "umap",
    palette: str = "hls",
    max_points: int = 3000,
    seed: int = 5,
) -> int:
    """Draw one panel for each label level into `paths`, in the formats of their endings; the number of points drawn.

    Features are (n, d), n >= 2; targets (n, L), coarse level first, -1 unknown, drawn in grey; `names` has each level's
    and those of its classes, none for their numbers. The title gets how they became points (see `embed`), and how many
    of how many: above `max_points` a random part. `palette` is "hls" (evenly spaced hues) or a map of matplotlib's; a
    `UserError` for another one, and for fewer than two rows.
    """
    from solo.analysis import drawing

    rows = draw(len(features), max_points, seed).numpy()
    points, targets = embed(features[rows], embedding, seed), targets[rows]
    count = targets.shape[1]
    names = names or [("class" if count == 1 else f"level {level}", ()) for level in range(count)]
    shown = f"{len(rows):,} images" if len(rows) == len(features) else f"{len(rows):,} of {len(features):,} images"
    title = " · ".join(part for part in (title, TITLES[embedding], shown) if part)
    panels = []
    known = np.unique(targets[(targets >= 0).all(axis=1)], axis=0)  # rows sorted along the tree
    for labels, sorted_labels, (level, classes) in zip(targets.T, known.T, names, strict=True):
        order = list(dict.fromkeys(sorted_labels.tolist()))  # classes of one parent get neighbouring hues
        order += sorted({*labels.tolist()} - {-1, *order})
        groups = [
            (classes[label] if label < len(classes) else str(label), colour, np.flatnonzero(labels == label))
            for label, colour in zip(order, named_palette(palette, len(order)), strict=True)
        ]
        if (labels < 0).any():
            groups.insert(0, ("unlabelled", UNKNOWN, np.flatnonzero(labels < 0)))
        few = len(order) <= 40
        words = level if few else f"{level}: {len(order)} classes, too many for a legend"
        panels.append(cloud(words, points, groups, legend=few))
    if not panels:  # no labels
        panels.append(cloud("", points, [("images", UNKNOWN, np.arange(len(points)))]))
    for path in paths:
        drawing.draw(Figure("embedding", "", title, "", "", tuple(panels)), path)
    return len(rows)


def embed(features: Array, embedding: Embedding, seed: int) -> Array:
    """Points (n, 2) of features (n, d): PCA, t-SNE (perplexity 30) or UMAP (15 neighbours), less where n is small.

    McInnes, Healy, Melville: UMAP, https://arxiv.org/abs/1802.03426; van der Maaten, Hinton: Visualizing data using
    t-SNE, JMLR 2008. A `UserError` for fewer than two rows, or features that aren't finite.
    """
    count = len(features)
    if count < 2 or not np.isfinite(features).all():
        what = f"{count} row{'s' * (count != 1)}" if count < 2 else "values that are not finite"
        raise UserError(f"the features to draw have {what}; at least two rows of finite numbers are needed")
    features = np.asarray(features, dtype=np.float32)
    if embedding == "pca" or count < 4:  # three points fit into a plane as they are
        centred = features - features.mean(axis=0)
        left, scale, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
        points = left[:, :2] * scale[:2]
        return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))  # of a single number, too
    if embedding == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (count - 1) / 3)
        return np.asarray(TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(features))
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        # It offers a variant that needs Tensorflow. Separate clusters are what one hopes for: it starts at random then.
        for said in ("Tensorflow not installed", "graph is not fully connected", "spectral initiali[sz]ation failed"):
            warnings.filterwarnings("ignore", f"(?i).*{said}")
        from umap import UMAP

        start = "spectral" if count > 50 else "random"  # the former needs more points than dimensions
        model = UMAP(n_neighbors=min(15, count - 1), init=start, random_state=seed, n_jobs=1)
        points = np.asarray(model.fit_transform(features))
    torch.set_num_threads(threads)  # numba, in UMAP, sets it for the whole process: training went on 5 times slower
    return points
