"""From features to a folder: numbers, what was found in sentences, figures, `analysis.json` and `report.html`."""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from solo.analysis import drawing, numbers
from solo.analysis.drawing import Images, as_plotly, brief
from solo.analysis.figure import Figure, Plot, embedded, finite, legend_of, page_file, render, run_colour, words_of
from solo.analysis.figures import all_figures, nearest_in_batch
from solo.analysis.numbers import COSINE_ANCHORS, SPACES, Analysis, Labelling, Numbers, Run, Snapshot, measure, time_of
from solo.analysis.plots import embed
from solo.args.eval_schema import AnalyzeCfg
from solo.errors import UserError
from solo.eval.features import Features, draw
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

    `image` gives the picture of a row of the features (None: no pictures), `say` takes a line of progress. A
    `UserError` where the features don't fit each other, or are too few.
    """
    options = options or Options()
    newest = sources[0].snapshots[-1]  # it says what is missing of the labels, and where to look
    whole = newest.load()
    main, several = _main(whole), len(sources) > 1
    count, most = len(main.val), options.max_images
    if count < 8:
        raise UserError(f"{main.name}: {count} images are too few to analyse; give at least 8")
    rows = None if most is None or count <= most else draw(count, most, options.seed)  # None: all of them

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
            what = f"{sources[0].name} has features of {count:,} images and {source.name} of {len(other.val):,}"
            raise UserError(f"{what}; only models that saw the same images can be compared")
        if other.levels and main.levels and not torch.equal(other.val.labels, main.val.labels):
            both = f"{sources[0].name} and {source.name}"
            raise UserError(f"the labels of {both} differ; give features of the same images in the same order")
        say(", ".join(filter(None, (source.name, time_of(point.epoch)))))
        spaces = taken(found)
        of = point.views(count) if point.views else {}
        return spaces, {kind: measure(x.val.features, labelling, options, of.get(kind)) for kind, x in spaces.items()}

    names = labelling.names[labelling.superclass]
    if options.inside is not None and options.inside not in names:
        raise UserError(f"inside={options.inside!r} is no superclass; choose {', '.join(names[:20])}")
    reference, first = look(sources[0], newest)
    poorest = min(next(iter(first.values())).superclasses, key=lambda node: node.ratio, default=None)
    worst = names.index(options.inside) if options.inside else poorest.node if poorest else None
    views = numbers.choose_views(labelling, worst, options) if options.embedding != "none" else ()
    runs, grids, points_of = [], {}, dict[str, Any]()  # runs that began with the same network share their points
    for place, source in enumerate(sources):
        snapshots = []
        for point in source.snapshots:
            spaces, measured = (reference, first) if point is newest else look(source, point)
            is_last = point is source.snapshots[-1]
            clouds = {}
            for view in views if is_last or point is source.snapshots[0] else ():
                part = _main(spaces).val.features.numpy()[view.rows]
                key = f"{view.key} {hashlib.sha256(part.tobytes()).hexdigest()}"
                if key not in points_of:
                    points_of[key] = embed(part, options.embedding, options.seed)  # type: ignore[arg-type]
                clouds[view.key] = points_of[key]
            snapshots.append(Snapshot(_main(spaces).name, point.epoch, measured, clouds, point.facts))
            if is_last and image is not None:
                features = spaces.get("projector", _main(spaces)).val.features
                title = source.name if several else ""
                grids[source.name] = nearest_in_batch(features.numpy(), labelling.coarse, names, options.seed, title)
        runs.append(Run(source.name, tuple(snapshots), run_colour(place)))
    seen = [point.views is not None for source in sources for point in source.snapshots]
    title = options.title or " · ".join(source.name for source in sources)
    protocol = protocol_of(labelling, count, options, seen)
    analysis = Analysis(title, tuple(runs), labelling, views, options, protocol)
    of_row = image if image is None or rows is None else lambda row: image(int(rows[row]))
    figures = all_figures(analysis, grids)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "report.html", folder / "analysis.json"]
    write_text(files[0], write_report(analysis, figures, of_row))
    write_text(files[1], json.dumps(record(analysis), indent=1, allow_nan=False) + "\n")
    if options.png:
        say(f"{len(figures)} figures as PNG")
        for figure in figures:
            files.append(folder / "figures" / f"{figure.key}.png")
            drawing.draw(figure, files[-1], of_row)
    return Outcome(analysis, tuple(figures), tuple(files))


def _main(spaces: Spaces) -> Features:
    """The representation, else whatever there is."""
    return spaces["backbone"] if "backbone" in spaces else next(iter(spaces.values()))


class Finding(NamedTuple):
    """One statement on a run, with the number behind it."""

    topic: str  # what it is about; findings of several runs stand together under it
    run: str  # whose
    value: str  # the number to print large
    unit: str  # behind it
    text: str  # the sentence
    warn: bool = False  # whether it is bad news


def findings(analysis: Analysis) -> list[Finding]:
    """Of every run's last snapshot, and of its way there."""
    return [Finding(topic, run.name, *said) for run in analysis.runs for topic, *said in _found(analysis, run)]


def _found(analysis: Analysis, run: Run) -> Iterator[tuple[Any, ...]]:
    """Topic, value, unit, sentence, and whether it is bad news."""
    labelling, numbers = analysis.labelling, run.last.spaces[analysis.spaces[0]]
    rank, dim, space = numbers.effective_rank, numbers.dim, SPACES[analysis.spaces[0]]
    if rank < max(2.0, 0.05 * min(dim, numbers.images)):
        text = f"The whole {space} fills only {rank:.1f} directions of {dim}: a global (dimensional) collapse."
        yield "Global collapse", f"{rank:.1f}", f"of {dim}", text, True
    fine, coarse = numbers.knn_acc1[labelling.level], numbers.knn_acc1[labelling.superlevel]
    nested = labelling.superlevel != labelling.level
    if math.isfinite(fine):
        more = f"; {coarse:.1f} % of its {labelling.superlevel}" if nested and math.isfinite(coarse) else ""
        text = f"of the images have the {labelling.level} that their nearest neighbours vote for{more}."
        yield "Neighbours agree", f"{fine:.1f}", "%", text
    if len(numbers.superclasses) > 1:
        worst = min(numbers.superclasses, key=lambda node: node.ratio)
        ranks = f"{worst.effective_rank:.1f}, where as many random images have {worst.reference:.1f}."
        name = labelling.names[labelling.superclass][worst.node]
        text = f"“{name}” is where it is poorest inside: an effective rank of {ranks}"
        yield "Poorest superclass inside", f"{worst.ratio:.2f}", "local / global", text, worst.ratio < 0.3
    if numbers.pairs:
        pair, names = numbers.pairs[0], labelling.names[-1]
        end = "have collapsed onto each other." if pair.mixing >= 0.9 else "are mixed most of all pairs."
        text = f"“{names[pair.first]}” and “{names[pair.second]}” {end}"
        yield "Closest to collapse", f"{pair.mixing:.2f}", "mixing", text, pair.mixing >= 0.9
    agreement = numbers.agreement
    if agreement is not None and math.isfinite(agreement.cophenetic):
        share = "" if math.isnan(agreement.recovered) else f", {100 * agreement.recovered:.0f} % of its nodes exactly"
        chance = f" (p = {agreement.p_value:.3f})" if math.isfinite(agreement.p_value) else ""
        text = f"cophenetic correlation of the emergent tree with the label tree{chance}{share}."
        yield "Emergent tree against the labels", f"{agreement.cophenetic:.2f}", "agreement", text
    if len(run.snapshots) > 2 and nested:
        first, second = (_reached(analysis, run, level) for level in (labelling.superlevel, labelling.level))
        if first is not None and second is not None:
            text = f"is when the {labelling.superlevel} level has made 90 % of its gain in kNN accuracy since the "
            text += f"first snapshot; the {labelling.level} level is there after {second}."
            yield "What emerges first", f"{first}", f"epoch{'s' * (first != 1)}", text


def _reached(analysis: Analysis, run: Run, level: str) -> int | None:
    """The epoch at which a level has made most of its way; None if it has made none, or nobody knows the epoch."""
    curve = [snapshot.spaces[analysis.spaces[0]].knn_acc1[level] for snapshot in run.snapshots]
    if not curve[-1] > curve[0]:
        return None
    goal = curve[0] + 0.9 * (curve[-1] - curve[0])
    return next(one.epoch for one, value in zip(run.snapshots, curve, strict=True) if value >= goal)


def record(analysis: Analysis) -> dict[str, Any]:
    """What `analysis.json` holds: protocol, labels, findings, and the numbers of every snapshot."""
    labelling, runs = analysis.labelling, []
    for run in analysis.runs:
        snapshots = []
        for one in run.snapshots:
            spaces = {SPACES.get(space, space): finite(_space(n), digits=6) for space, n in one.spaces.items()}
            snapshots.append({"name": one.name, "epoch": one.epoch, "facts": dict(one.facts), "spaces": spaces})
        runs.append({"name": run.name, "snapshots": snapshots})
    labels = {"levels": labelling.levels, "names": labelling.names, "superclass": labelling.superlevel}
    return {
        "kind": "analysis",
        "title": analysis.title,
        "protocol": analysis.protocol,
        "labels": {**labels, "given": labelling.levels[len(labelling.levels) - labelling.given :]},
        "findings": [one._asdict() for one in findings(analysis)],
        "runs": runs,
    }


def _space(numbers: Numbers) -> dict[str, Any]:
    chosen = numbers.selection
    cosine = numbers.cosine
    tree = numbers.tree
    agreement = numbers.agreement
    names = ("images", "dim", "knn_acc1", "effective_rank", "rankme", "lidar", "uniformity", "alpha_req")
    found: dict[str, Any] = {
        **{name: getattr(numbers, name) for name in names},
        "local_effective_rank": dict(zip(("lowest", "mean", "highest"), numbers.local_rank, strict=True)),
        "local_over_global": numbers.mean_ratio,
        "eigenvalues": numbers.eigenvalues[:512],
        "threshold": {"cosine": chosen.threshold, "images_above": chosen.selected}
        | {"precision": chosen.precision, "recall": chosen.recall},
        "profile": [
            {"level": node.level, "node": node.node, "images": node.count, "ratio": node.ratio}
            | {"effective_rank": node.effective_rank, "reference": node.reference}
            for node in numbers.profile
        ],
        "pairs": [vars(pair) for pair in numbers.pairs],
    }
    if cosine is not None:
        found["cosine"] = {"same": vars(cosine.same), "other": vars(cosine.other)}
        found["cosine"] |= {"ratio": cosine.ratio, "gap": cosine.gap}
    if tree is not None:
        found["tree"] = {"classes": numbers.classes, "merges": tree.merges, "fidelity": tree.fidelity}
    if agreement is not None:
        found["tree_agreement"] = vars(agreement)
    return found


def protocol_of(labelling: Labelling, total: int, options: AnalyzeCfg, seen: Sequence[bool]) -> dict[str, str]:
    """The sentences by topic, for the images of a labelling, of `total`; `seen`: whether each snapshot has views."""
    count = len(labelling.labels)
    most = options.max_anchors, min(options.max_anchors, COSINE_ANCHORS)
    drawn = f"random images (max_anchors, seed {options.seed}), each against all {count:,}"
    anchors, cosine_anchors = (f"all {count:,} images" if count <= n else f"{n:,} {drawn}" for n in most)
    facts: dict[str, Any] = {
        **vars(options),
        **{"count": count, "level": labelling.level, "superlevel": labelling.superlevel, "labels": labelling.protocol},
        **{"anchors": anchors, "cosine_anchors": cosine_anchors, "lidar_images": min(options.lidar_images, total)},
        "of": "" if count == total else f" of {total:,}, drawn at random (max_images, seed {options.seed})",
        "not_all": "" if all(seen) else " Not of snapshots whose checkpoint doesn't say how its run made views.",
    }
    found = {topic: text.format(**facts) for topic, text in words_of("protocol").items()}
    none = found.pop("no LiDAR")
    return found if any(seen) else {**found, "LiDAR": none}


SECTIONS = {
    "Overview": "",
    "Emergence": "What appears first, and what never does.",
    "Similarity": "What a cosine knows about the hierarchy.",
    "The embedding": "The images as points in the plane.",
    "The emergent tree": "The hierarchy that the model made up by itself.",
    "Local collapse": "Healthy on the whole, poor inside: where classes fall onto each other.",
    "Neighbours": "",
}


def write_report(analysis: Analysis, figures: Sequence[Figure], image: Images | None) -> str:
    """The page as text: findings stand at the top, then the table, then the figures by section."""
    from plotly.offline import get_plotlyjs

    plots = [panel for figure in figures for panel in figure.panels if isinstance(panel, Plot)]
    places = {id(plot): place for place, plot in enumerate(plots)}  # by which the page's script finds them
    panels = [as_plotly(plot) for plot in plots]

    @cache
    def thumbnail(row: int) -> Markup:
        assert image is not None  # else there are no figures with pictures
        picture = image(row).convert("RGB")
        small = max(picture.size) <= 48  # pixels, which are shown as squares
        picture.thumbnail((96, 96))
        stream, kind = io.BytesIO(), "png" if small else "jpeg"
        picture.save(stream, format=kind, optimize=True, quality=85)
        smooth = "" if small else ' class="smooth"'
        return Markup(f'<img{smooth} alt="image {row}" src="{embedded(stream.getvalue(), kind)}">')

    sections = []
    for name, lede in SECTIONS.items():
        inside = [figure for figure in figures if figure.section == name]
        if inside or name == "Overview":
            sections.append({"name": name, "slug": name.lower().replace(" ", "-"), "lede": lede, "figures": inside})
    columns, cells = _overview(analysis)
    found = findings(analysis)
    return render(
        "report.html",
        brief,
        analysis=analysis,
        count=analysis.runs[0].last.spaces[analysis.spaces[0]].images,
        colours={run.name: run.colour for run in analysis.runs},
        topics={topic: [one for one in found if one.topic == topic] for topic in dict.fromkeys(f.topic for f in found)},
        sections=sections,
        legend_of=legend_of,
        plot=lambda panel: places[id(panel)],
        panels=htmlsafe_json_dumps(panels, separators=(",", ":"), allow_nan=False),
        columns=columns,
        cells=cells,
        table_protocol=" ".join(analysis.protocol[topic] for topic in ("images", "knn", "rank", "LiDAR")),
        thumbnail=thumbnail,
        **{name: Markup(page_file(f"report.{name}")) for name in ("css", "js")},
        plotly=Markup(get_plotlyjs()),
    )


# Of every snapshot in each space: heading, meaning, digits, which end is better (if any), and where the number is.
_MEASURES: tuple[tuple[str, str, int, str, numbers.Value], ...] = (
    ("effective rank", "directions that carry variance, centred", 1, "high", "effective_rank"),
    ("RankMe", "the same without centring", 1, "high", "rankme"),
    ("local / global", "mean over the superclasses of their rank over that of as many images", 3, "high", "mean_ratio"),
    ("LiDAR", "directions that tell images apart, relative to how views of one differ", 1, "high", "lidar"),
    ("alpha-ReQ", "decay of the eigenvalues; about 1 goes with features that transfer", 2, "", "alpha_req"),
    ("uniformity", "log mean Gaussian potential; lower is more even", 2, "low", "uniformity"),
    ("same − other", "difference of mean cosines of same-superclass and other pairs", 3, "high", "cosine.gap"),
    ("threshold", "mean 0.99 quantile of each anchor's cosines", 3, "", "selection.threshold"),
    ("same superclass", "share of the images above the threshold, %", 1, "high", lambda n: 100 * n.selection.precision),
    ("tree agreement", "cophenetic correlation with the label tree", 3, "high", "agreement.cophenetic"),
    ("worst mixing", "of any two classes", 3, "low", lambda n: n.pairs[0].mixing if n.pairs else math.nan),
)


def _overview(analysis: Analysis) -> tuple[list[tuple[Any, ...]], list[list[dict[str, str]]]]:
    """The last snapshot of each run in numbers: headings with their meanings, and a row for each run and space.

    A cell has its class (the best of several runs in a space), what it is sorted by, whose colour it has, and its text.
    """
    levels, rows, held = analysis.labelling.levels, [], []
    columns = [(f"kNN, {level}", "leave-one-out top-1 accuracy, %", 2, "high") for level in levels]
    columns += [measure[:4] for measure in _MEASURES]
    for run in analysis.runs:
        for space, n in run.last.spaces.items():
            held.append((run.name, space, [*n.knn_acc1.values(), *(n.at(path) for *_, path in _MEASURES)]))
    for name, space, own in held:
        called = SPACES.get(space, space)
        cells = [{"mark": "text", "key": name, "run": name, "shown": name}]
        cells.append({"mark": "text", "key": called, "shown": called})
        rivals = zip(*(values for _, other, values in held if other == space), strict=True)
        for (*_, digits, better), value, values in zip(columns, own, rivals, strict=True):
            known = {other for other in values if math.isfinite(other)}
            is_best = len(known) > 1 and value == {"high": max(known), "low": min(known)}.get(better)
            key, shown = (str(value), f"{value:,.{digits}f}") if math.isfinite(value) else ("", "–")
            cells.append({"mark": "best" if is_best else "", "key": key, "shown": shown})
        rows.append(cells)
    return [("run", "", None), ("space", "", None), *(column[:3] for column in columns)], rows
