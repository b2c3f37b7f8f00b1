"""Features as points in the plane, coloured by every label level: numbers in, a figure out."""

from __future__ import annotations

import colorsys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from solo.errors import UserError
from solo.files import replacing

Embedding = Literal["umap", "tsne", "pca"]
Array = np.ndarray[Any, np.dtype[Any]]

TITLES = {"umap": "UMAP", "tsne": "t-SNE", "pca": "PCA"}
_MOST_IN_LEGEND = 40
_ROWS_OF_LEGEND = 20
_INK = "#37352f"


@dataclass(frozen=True)
class LabelNames:
    """What the columns of the targets are called.

    Attributes:
        levels: name of each level, coarse first.
        classes: for each level the names of its classes; an empty tuple means their numbers.
    """

    levels: Sequence[str]
    classes: Sequence[Sequence[str]]

    @classmethod
    def numbered(cls, count: int) -> LabelNames:
        """For `count` levels of which nothing is known."""
        return cls(["class"] if count == 1 else [f"level {i}" for i in range(count)], [()] * count)


def draw_embedding(
    features: Array,
    targets: Array,
    paths: Sequence[Path],
    *,
    names: LabelNames | None = None,
    title: str = "",
    embedding: Embedding = "umap",
    palette: str = "hls",
    max_points: int = 3000,
    seed: int = 5,
) -> int:
    """Draw one panel for each label level; the title says what was drawn, and how many of how many points.

    Args:
        features: (n, d), n >= 2.
        targets: (n, L) class numbers, coarse level first; -1 is unknown, drawn in grey.
        paths: the files to write; their endings choose the format.
        names: of levels and classes.
        title: words before that.
        embedding: how features become points, see `embed`.
        palette: "hls" (evenly spaced hues), or a colour map of matplotlib.
        max_points: more rows than this are subsampled at random.
        seed: of the subsample and the embedding.

    Returns:
        The number of points drawn.

    Raises:
        UserError: an unknown palette, or fewer than two rows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = subsample(len(features), max_points, seed)
    points, targets = embed(features[rows], embedding, seed), targets[rows]
    names = names or LabelNames.numbered(targets.shape[1])
    figure = Figure(figsize=(7.4 * targets.shape[1], 5.6), dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    shown = f"{len(rows):,} images" if len(rows) == len(features) else f"{len(rows):,} of {len(features):,} images"
    figure.suptitle(" · ".join(part for part in (title, TITLES[embedding], shown) if part), fontsize=11, color=_INK)
    colours = _colours(targets, palette)
    for level, (name, classes) in enumerate(zip(names.levels, names.classes, strict=True)):
        axes = figure.add_subplot(1, targets.shape[1], level + 1)
        _panel(axes, points, targets[:, level], name, classes, colours[level])
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix.lstrip(".") or "pdf")
    return len(rows)


def subsample(count: int, most: int, seed: int) -> Array:
    """Row numbers, in order: all of `count`, or `most` of them drawn at random."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def embed(features: Array, embedding: Embedding, seed: int) -> Array:
    """Points (n, 2) of features (n, d): PCA, t-SNE (perplexity 30) or UMAP (15 neighbours), less where n is small.

    McInnes, Healy, Melville: UMAP, https://arxiv.org/abs/1802.03426; van der Maaten, Hinton: Visualizing data using
    t-SNE, JMLR 2008.

    Raises:
        UserError: fewer than two rows, or features that aren't finite.
    """
    count = len(features)
    if count < 2 or not np.isfinite(features).all():
        what = f"{count} row{'s' * (count != 1)}" if count < 2 else "values that are not finite"
        raise UserError(f"the features to draw have {what}; at least two rows of finite numbers are needed")
    features = np.asarray(features, dtype=np.float32)
    if embedding == "pca" or count < 4:  # three points fit into a plane as they are
        return _pca(features)
    if embedding == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (count - 1) / 3)
        return np.asarray(TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(features))
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        # It offers a variant that needs Tensorflow; nobody asked for that.
        warnings.filterwarnings("ignore", message="Tensorflow not installed", category=ImportWarning)
        # Separate clusters are what one hopes for; it then starts from random places.
        warnings.filterwarnings("ignore", message=".*[Gg]raph is not fully connected.*", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*[Ss]pectral initiali[sz]ation failed.*", category=UserWarning)
        from umap import UMAP

        start = "spectral" if count > 50 else "random"  # the former needs more points than dimensions
        model = UMAP(n_neighbors=min(15, count - 1), init=start, random_state=seed, n_jobs=1)
        points = np.asarray(model.fit_transform(features))
    torch.set_num_threads(threads)  # numba, in UMAP, sets it for the whole process: training went on 5 times slower
    return points


def _pca(features: Array) -> Array:
    centred = features - features.mean(axis=0)
    left, scale, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    points = np.zeros((len(features), 2))
    points[:, : len(scale[:2])] = left[:, :2] * scale[:2]
    return points


def _colours(targets: Array, palette: str) -> list[dict[int, tuple[float, ...]]]:
    """For each level class -> colour; classes of one parent get neighbouring hues."""
    known = np.unique(targets[(targets >= 0).all(axis=1)], axis=0)  # rows sorted along the tree
    found = []
    for level in range(targets.shape[1]):
        classes = list(dict.fromkeys(known[:, level].tolist()))
        rest = sorted(set(targets[:, level].tolist()) - {-1, *classes})
        order = classes + rest
        found.append(dict(zip(order, _palette(palette, len(order)), strict=True)))
    return found


def _palette(name: str, count: int) -> list[tuple[float, ...]]:
    if name == "hls":
        return [colorsys.hls_to_rgb(i / max(count, 1), (0.42, 0.62)[i % 2], 0.72) for i in range(count)]
    import matplotlib

    if name not in matplotlib.colormaps:
        raise UserError(f"color_palette={name!r} is unknown; give hls, or a colour map of matplotlib such as tab10")
    colours = matplotlib.colormaps[name]
    steps = range(count) if count <= colours.N <= 20 else np.linspace(0, 1, count)
    return [tuple(colours(step)) for step in steps]


def _panel(
    axes: Any, points: Array, labels: Array, name: str, classes: Sequence[str], colours: dict[int, tuple[float, ...]]
) -> None:
    size = float(np.clip(30_000 / len(points), 4, 40))
    unknown = labels < 0
    if unknown.any():
        axes.scatter(*points[unknown].T, s=size, c="#c8c6c0", linewidths=0, rasterized=True, label="unlabelled")
    for index, colour in colours.items():
        mine = labels == index
        label = classes[index] if index < len(classes) else str(index)
        axes.scatter(*points[mine].T, s=size, color=colour, alpha=0.8, linewidths=0, rasterized=True, label=label)
    shown = name
    if len(colours) <= _MOST_IN_LEGEND:
        columns = -(-max(len(colours), 1) // _ROWS_OF_LEGEND)
        where = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "ncols": columns}
        legend = axes.legend(fontsize=8, frameon=False, labelcolor=_INK, handletextpad=0.2, **where)
        for handle in legend.legend_handles:
            handle.set_sizes([36])
            handle.set_alpha(1)
    else:
        shown = f"{name}: {len(colours)} classes, too many for a legend"
    axes.set_title(shown, fontsize=10, loc="left", color=_INK)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#e6e5e1")
