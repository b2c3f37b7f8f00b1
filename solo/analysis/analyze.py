"""From features to a folder: numbers, figures as PNG, `analysis.json` and `report.html`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from solo.analysis.embedding import embed
from solo.analysis.figure import Figure, Pictures
from solo.analysis.findings import findings
from solo.analysis.labelling import Labelling, find_labelling
from solo.analysis.numbers import Numbers, Settings, measure
from solo.analysis.pairs import nearest_in_batch, pair_figures
from solo.analysis.png import draw
from solo.analysis.protocol import lidar_protocol, protocol_of
from solo.analysis.record import record
from solo.analysis.report import write_report
from solo.analysis.runs import Analysis, Run, Snapshot, View, choose_views, worst_superclass
from solo.analysis.spaces import space_figures
from solo.analysis.tables import tables
from solo.analysis.trends import trend_figures
from solo.errors import UserError
from solo.eval.features import Features, FeatureTable
from solo.eval.rows import draw as draw_rows
from solo.files import write_text

Say = Callable[[str], None]
Images = Callable[[int], "Image.Image"]


@dataclass(frozen=True)
class SnapshotSource:
    """One snapshot to look at."""

    # gives the features by kind (`backbone`, `projector`); called when they are needed, perhaps twice
    load: Callable[[], Mapping[str, Features]]
    epoch: int | None = None  # epochs trained, where known
    # how it came about; `batch_size` and `objective` group a sweep over batch sizes
    facts: Mapping[str, Any] = field(default_factory=dict)
    # from the number of images to features (n, q, d) of q augmented views of some, by kind; None: there are no views
    views: Callable[[int], Mapping[str, torch.Tensor]] | None = None

    @property
    def words(self) -> str:
        """Its time, in words, with a comma before; empty where nobody knows."""
        done = f", after {self.epoch} epoch{'s' * (self.epoch != 1)}" if self.epoch else ", before training"
        return "" if self.epoch is None else done


@dataclass(frozen=True)
class RunSource:
    """A run to look at: its name in the legends, and its snapshots in order."""

    name: str
    snapshots: tuple[SnapshotSource, ...]


@dataclass(frozen=True)
class Options:
    """How to look."""

    title: str | None = None  # of the report; by default the names of the runs
    numbers: Settings = field(default_factory=Settings)  # how to measure
    superclass: str | int | None = None  # level of the superclasses; default the one above the classes
    clusters: int | None = None  # without labels, how many to find
    # how features become points; `none` leaves the pictures of points out
    embedding: Literal["umap", "tsne", "pca", "none"] = "umap"
    max_points: int = 2000  # images of a picture of points
    max_images: int | None = None  # images to look at; more are drawn at random. None: all
    # images and views of each that the snapshots' `views` compare, for the protocol
    lidar: tuple[int, int] = (1000, 10)
    png: bool = True  # write the figures as PNG, too


@dataclass(frozen=True)
class Outcome:
    """What was found, and drawn."""

    analysis: Analysis
    figures: tuple[Figure, ...]
    files: tuple[Path, ...]


def analyze(
    sources: Sequence[RunSource],
    folder: Path,
    options: Options | None = None,
    image: Images | None = None,
    say: Say = lambda text: None,
) -> Outcome:
    """Look at one or more runs and write what was found into `folder`.

    Args:
        sources: at least one; all of the same images in the same order.
        folder: is made where it isn't there.
        options: see there.
        image: from a row of the features to its picture; None: no pictures.
        say: takes a line of progress.

    Raises:
        UserError: the features don't fit each other, or are too few.
    """
    options = options or Options()
    reference = sources[0].snapshots[-1].load()
    main = _main(reference)
    rows = _rows(main, options)
    labelling = find_labelling(_taken(main, rows), options.superclass, options.clusters, options.numbers.seed)
    say(f"labels: {labelling.protocol}")
    first = _measure(sources[0], sources[0].snapshots[-1], reference, rows, labelling, options, say)
    worst = worst_superclass(next(iter(first.values())))
    drawn = options.embedding != "none"
    views = choose_views(labelling, worst, options.max_points, options.numbers.seed) if drawn else ()
    runs, grids, embedded = [], {}, dict[str, Any]()
    for place, source in enumerate(sources):
        snapshots = []
        for index, point in enumerate(source.snapshots):
            is_last = index == len(source.snapshots) - 1
            known = place == 0 and is_last
            spaces = reference if known else point.load()
            _check(sources[0].name, main, source.name, _main(spaces))
            numbers = first if known else _measure(source, point, spaces, rows, labelling, options, say)
            clouds = _clouds(spaces, rows, views, options, embedded) if index == 0 or is_last else {}
            snapshots.append(Snapshot(_main(spaces).name, point.epoch, numbers, clouds, point.facts))
            if is_last and image is not None:
                grids[source.name] = _grid(source.name, spaces, rows, labelling, options, len(sources) > 1)
        runs.append(Run(source.name, tuple(snapshots), place))
    count = len(main.val) if rows is None else len(rows)
    seen = [point.views is not None for source in sources for point in source.snapshots]
    lidar = lidar_protocol(min(options.lidar[0], len(main.val)), options.lidar[1], seen, options.numbers.seed)
    protocol = {**protocol_of(count, len(main.val), labelling, options.numbers), "LiDAR": lidar}
    analysis = Analysis(
        options.title or " · ".join(source.name for source in sources),
        tuple(runs),
        labelling,
        views,
        "umap" if options.embedding == "none" else options.embedding,
        protocol,
        options.max_points,
        options.numbers.seed,
    )
    return _write(analysis, folder, grids, _picture(image, rows), options, say)


def _write(
    analysis: Analysis, folder: Path, grids: dict[str, Pictures], image: Images | None, options: Options, say: Say
) -> Outcome:
    made = [*trend_figures(analysis), *space_figures(analysis), *pair_figures(analysis, grids, image is not None)]
    figures = [figure for figure in (one.filled() for one in made) if figure.panels]
    shown, found = tables(analysis), findings(analysis)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "report.html", folder / "analysis.json"]
    write_text(files[0], write_report(analysis, figures, shown, found, image))
    write_text(files[1], json.dumps(record(analysis, found), indent=1, allow_nan=False) + "\n")
    if options.png:
        say(f"{len(figures)} figures as PNG")
        for figure in figures:
            files.append(folder / "figures" / f"{figure.key}.png")
            draw(figure, files[-1], image)
    return Outcome(analysis, tuple(figures), tuple(files))


def _main(spaces: Mapping[str, Features]) -> Features:
    """The representation, else whatever there is."""
    return spaces["backbone"] if "backbone" in spaces else next(iter(spaces.values()))


def _rows(main: Features, options: Options) -> torch.Tensor | None:
    count = len(main.val)
    if count < 8:
        raise UserError(f"{main.name}: {count} images are too few to analyse; give at least 8")
    if options.max_images is None or count <= options.max_images:
        return None
    return draw_rows(count, options.max_images, options.numbers.seed)


def _taken(features: Features, rows: torch.Tensor | None) -> Features:
    if rows is None:
        return features
    table: FeatureTable = features.val.rows(rows)
    return Features(features.name, features.kind, table, None, features.levels, features.tree, facts=features.facts)


def _check(first: str, main: Features, name: str, other: Features) -> None:
    if len(other.val) != len(main.val):
        raise UserError(
            f"{first} has features of {len(main.val):,} images and {name} of {len(other.val):,}; only models that saw "
            "the same images can be compared"
        )
    if other.levels and main.levels and not torch.equal(other.val.labels, main.val.labels):
        raise UserError(f"the labels of {first} and {name} differ; give features of the same images in the same order")


def _measure(
    source: RunSource,
    point: SnapshotSource,
    spaces: Mapping[str, Features],
    rows: torch.Tensor | None,
    labelling: Labelling,
    options: Options,
    say: Say,
) -> dict[str, Numbers]:
    say(f"{source.name}{point.words}")
    views = point.views(len(_main(spaces).val)) if point.views else {}
    return {
        kind: measure(_taken(features, rows).val.features, labelling, options.numbers, views.get(kind))
        for kind, features in spaces.items()
    }


def _clouds(
    spaces: Mapping[str, Features],
    rows: torch.Tensor | None,
    views: Sequence[View],
    options: Options,
    embedded: dict[str, Any],
) -> dict[str, Any]:
    """Points of each view; runs that began with the same network share them, by way of `embedded`."""
    if options.embedding == "none":
        return {}
    features, found = _taken(_main(spaces), rows).val.features.numpy(), {}
    for view in views:
        part = features[view.rows]
        key = f"{view.key} {hashlib.sha256(part.tobytes()).hexdigest()}"
        if key not in embedded:
            embedded[key] = embed(part, options.embedding, options.numbers.seed)
        found[view.key] = embedded[key]
    return found


def _grid(
    name: str,
    spaces: Mapping[str, Features],
    rows: torch.Tensor | None,
    labelling: Labelling,
    options: Options,
    several: bool,
) -> Pictures:
    features = _taken(spaces.get("projector", _main(spaces)), rows).val.features.numpy()
    names = labelling.names[labelling.superclass]
    return nearest_in_batch(features, labelling.coarse, names, options.numbers.seed, name if several else "")


def _picture(image: Images | None, rows: torch.Tensor | None) -> Images | None:
    if image is None or rows is None:
        return image
    return lambda row: image(int(rows[row]))
