"""From features to a folder: numbers, figures as PNG, `analysis.json` and `report.html`."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from solo.analysis import numbers
from solo.analysis.drawing import Images, draw
from solo.analysis.figure import Figure, run_colour
from solo.analysis.figures import nearest_in_batch, snapshot_figures, trend_figures
from solo.analysis.numbers import Analysis, Numbers, Run, Snapshot, measure, time_of
from solo.analysis.plots import embed
from solo.analysis.report import protocol_of, record, write_report
from solo.args.eval_schema import AnalyzeCfg
from solo.errors import UserError
from solo.eval.features import Features
from solo.eval.features import draw as draw_rows
from solo.files import write_text

Options: Callable[..., AnalyzeCfg] = AnalyzeCfg  # the keys of `solo analyze`; those of the sources aren't read
Spaces = Mapping[str, Features]


@dataclass(frozen=True)
class SnapshotSource:
    """One snapshot to look at."""

    load: Callable[[], Spaces]  # gives the features by kind (`backbone`, `projector`); called when they are needed
    epoch: int | None = None  # epochs trained, where known
    # how it came about; `batch_size` and `objective` group a sweep over batch sizes
    facts: Mapping[str, Any] = field(default_factory=dict)
    # from the number of images to features (n, q, d) of q augmented views of some, by kind; None: there are no views
    views: Callable[[int], Mapping[str, torch.Tensor]] | None = None


class RunSource(NamedTuple):
    """A run to look at: its name in the legends, and its snapshots in order."""

    name: str
    snapshots: tuple[SnapshotSource, ...]


class Outcome(NamedTuple):
    """What was found, and drawn."""

    analysis: Analysis
    figures: tuple[Figure, ...]
    files: tuple[Path, ...]


def analyze(
    sources: Sequence[RunSource],
    folder: Path,
    options: AnalyzeCfg | None = None,
    image: Images | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Look at one or more runs, all of the same images in the same order, and write what was found into `folder`.

    `image` gives the picture of a row of the features (None: no pictures), `say` takes a line of progress.

    Raises:
        UserError: the features don't fit each other, or are too few.
    """
    options = options or Options()
    newest = sources[0].snapshots[-1]  # it says what is missing of the labels, and where to look
    whole = newest.load()
    main, several = _main(whole), len(sources) > 1
    count, most = len(main.val), options.max_images
    if count < 8:
        raise UserError(f"{main.name}: {count} images are too few to analyse; give at least 8")
    rows = None if most is None or count <= most else draw_rows(count, most, options.seed)  # None: all of them

    def taken(spaces: Spaces) -> Spaces:
        if rows is None:
            return spaces
        return {kind: replace(one, val=one.val.rows(rows), train=None, queries=None) for kind, one in spaces.items()}

    labelling = numbers.find_labelling(_main(taken(whole)), options)
    say(f"labels: {labelling.protocol}")

    def look(source: RunSource, point: SnapshotSource) -> tuple[Spaces, dict[str, Numbers]]:
        """A snapshot's features of the images that are looked at, and their numbers."""
        found = whole if point is newest else point.load()
        other = _main(found)
        if len(other.val) != count:
            raise UserError(
                f"{sources[0].name} has features of {count:,} images and {source.name} of {len(other.val):,}; only "
                "models that saw the same images can be compared"
            )
        if other.levels and main.levels and not torch.equal(other.val.labels, main.val.labels):
            both = f"{sources[0].name} and {source.name}"
            raise UserError(f"the labels of {both} differ; give features of the same images in the same order")
        say(", ".join(filter(None, (source.name, time_of(point.epoch)))))
        spaces, of = taken(found), point.views(count) if point.views else {}
        return spaces, {kind: measure(x.val.features, labelling, options, of.get(kind)) for kind, x in spaces.items()}

    names = labelling.names[labelling.superclass]
    if options.inside is not None and options.inside not in names:
        raise UserError(f"inside={options.inside!r} is no superclass; choose {', '.join(names[:20])}")
    reference, first = look(sources[0], newest)
    poorest = min(next(iter(first.values())).superclasses, key=lambda node: node.ratio, default=None)
    worst = names.index(options.inside) if options.inside else poorest.node if poorest else None
    views = numbers.choose_views(labelling, worst, options) if options.embedding != "none" else ()
    runs, grids, embedded = [], {}, dict[str, Any]()  # runs that began with the same network share their points
    for place, source in enumerate(sources):
        snapshots = []
        for point in source.snapshots:
            spaces, measured = (reference, first) if point is newest else look(source, point)
            is_last = point is source.snapshots[-1]
            clouds = {}
            for view in views if is_last or point is source.snapshots[0] else ():
                part = _main(spaces).val.features.numpy()[view.rows]
                key = f"{view.key} {hashlib.sha256(part.tobytes()).hexdigest()}"
                if key not in embedded:
                    embedded[key] = embed(part, options.embedding, options.seed)  # type: ignore[arg-type]
                clouds[view.key] = embedded[key]
            snapshots.append(Snapshot(_main(spaces).name, point.epoch, measured, clouds, point.facts))
            if is_last and image is not None:
                features, title = spaces.get("projector", _main(spaces)).val.features, source.name if several else ""
                grids[source.name] = nearest_in_batch(features.numpy(), labelling.coarse, names, options.seed, title)
        runs.append(Run(source.name, tuple(snapshots), run_colour(place)))
    seen = [point.views is not None for source in sources for point in source.snapshots]
    title = options.title or " · ".join(source.name for source in sources)
    protocol = protocol_of(labelling, count, options, seen)
    analysis = Analysis(title, tuple(runs), labelling, views, options, protocol)
    of_row = image if image is None or rows is None else lambda row: image(int(rows[row]))
    made = [*trend_figures(analysis), *snapshot_figures(analysis, grids)]
    figures = [figure for figure in made if figure.panels]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "report.html", folder / "analysis.json"]
    write_text(files[0], write_report(analysis, figures, of_row))
    write_text(files[1], json.dumps(record(analysis), indent=1, allow_nan=False) + "\n")
    if options.png:
        say(f"{len(figures)} figures as PNG")
        for figure in figures:
            files.append(folder / "figures" / f"{figure.key}.png")
            draw(figure, files[-1], of_row)
    return Outcome(analysis, tuple(figures), tuple(files))


def _main(spaces: Spaces) -> Features:
    """The representation, else whatever there is."""
    return spaces["backbone"] if "backbone" in spaces else next(iter(spaces.values()))
