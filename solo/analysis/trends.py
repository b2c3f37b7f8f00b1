"""Figures over the epochs of one or more runs; a table of dots where every run has a single snapshot."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from solo.analysis.figure import DotRow, Dots, Figure, Lines, Panel, Series
from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.runs import Analysis, Run, Snapshot
from solo.eval.tree import EmergentTree, robinson_foulds, tree_similarity

Value = Callable[[Snapshot], float]
Band = Callable[[Snapshot], tuple[float, float, float]]
Entry = tuple[str, bool, Value]
_EMERGENCE = "Emergence"
_LEAST_COSINE = 0.02
_BANDS = (
    " Bands: 95 % intervals over the images, from random halves; runs see the same ones, so smaller differences can be "
    "real."
)


def trend_figures(analysis: Analysis) -> list[Figure]:
    """All of them; those without a number are left out."""
    makers = (accuracy, ranks, lidars, cosines, ratio, thresholds, tree_over_time, batch_sizes)
    return [figure for figure in (make(analysis) for make in makers) if figure is not None]


def accuracy(analysis: Analysis) -> Figure:
    """Figure 11: kNN accuracy of each level."""
    space = analysis.spaces[0]

    def panel(level: str) -> Panel:
        bands = {0: lambda snapshot: _interval(snapshot.spaces[space], level)}
        return _trend(analysis, level, "accuracy (%)", [("", False, _in(space, lambda n: n.knn[level]))], bands)

    levels = analysis.labelling.levels
    return Figure(
        "knn",
        _EMERGENCE,
        "Who are the neighbours? kNN accuracy at every level",
        "Coarse levels usually come first: a network tells superclasses apart long before their classes. "
        "Where a fine level stalls while the coarse one is near 100 %, look for local collapse below.",
        f"{analysis.protocol['knn']}{_BANDS if analysis.over_time else ''}",
        tuple(panel(level) for level in levels[-3:]),
    )


def ranks(analysis: Analysis) -> Figure:
    """The poster's figure: effective rank of all samples and inside each superclass."""
    panels: list[Panel] = []
    for space in analysis.spaces:
        entries = [("all images", False, _in(space, lambda n: n.effective_rank))]
        entries.append((f"inside a {analysis.labelling.superlevel}", True, _in(space, lambda n: local_rank(n)[1])))
        title = f"Effective rank, {SPACES[space]}"
        bands = {1: _band_in(space)}
        panels.append(_trend(analysis, title, "directions", entries, bands))
        share = [("", False, _in(space, mean_ratio))]
        panels.append(_trend(analysis, f"Local over global, {SPACES[space]}", "ratio", share))
    return Figure(
        "effective-rank",
        _EMERGENCE,
        "Healthy on the whole, collapsed inside? Effective rank",
        "Solid: all images. Broken: inside the superclasses (mean; the band spans the lowest and the highest). Global "
        "collapse pulls the solid line down; local collapse only the broken one. The ratio compares each superclass "
        "with as many random images: 1 is no local collapse, 0 a superclass mapped to one point.",
        analysis.protocol["rank"],
        tuple(panels),
    )


def lidars(analysis: Analysis) -> Figure:
    """LiDAR of both spaces; its panels are empty where no snapshot has views."""
    panels = [
        _trend(analysis, SPACES[space].capitalize(), "LiDAR", [("", False, _in(space, lambda n: n.lidar))])
        for space in analysis.spaces
    ]
    return Figure(
        "lidar",
        _EMERGENCE,
        "How many directions tell images apart? LiDAR",
        "An effective rank, too, but of what differs between images relative to what differs between views of one: "
        "directions that only carry the augmentation don't count.",
        analysis.protocol["LiDAR"],
        tuple(panels),
    )


def cosines(analysis: Analysis) -> Figure | None:
    """Figure 12: mean cosine of same-superclass and of other negatives."""
    if not _has_cosines(analysis):
        return None
    panels = []
    for space in analysis.spaces:
        entries = [
            (
                f"same {analysis.labelling.superlevel}",
                False,
                _in(space, lambda n: n.cosine.same.mean if n.cosine else math.nan),
            )
        ]
        entries.append(("other", True, _in(space, lambda n: n.cosine.other.mean if n.cosine else math.nan)))
        panels.append(_trend(analysis, SPACES[space].capitalize(), "mean cosine", entries))
    return Figure(
        "cosine",
        "Similarity",
        "Do relatives stand closer? Cosine of same-superclass and other negatives",
        "Solid: pairs of images that share a superclass; broken: all other pairs. The hierarchy emerges where the two "
        "move apart.",
        analysis.protocol["cosine"],
        tuple(panels),
    )


def ratio(analysis: Analysis) -> Figure | None:
    """Figure 13: their ratio, and their difference."""
    if not _has_cosines(analysis):
        return None
    panels = []
    for space in analysis.spaces:
        if any(math.isfinite(_ratio(run.last.spaces[space])) for run in analysis.runs):
            entries = [("", False, _in(space, _ratio))]
            panels.append(_trend(analysis, f"Ratio, {SPACES[space]}", "same / other", entries))
        gap = [("", False, _in(space, lambda n: n.cosine.gap if n.cosine else math.nan))]
        panels.append(_trend(analysis, f"Difference, {SPACES[space]}", "same − other", gap))
    return Figure(
        "cosine-ratio",
        "Similarity",
        "How hierarchical is a cosine? Same-superclass against other pairs",
        "A rising curve means that similarity itself tells superclasses apart, which HEX's threshold relies on. "
        "The ratio is left out where the other pairs' mean cosine is below 0.02, where it says nothing.",
        analysis.protocol["cosine"],
        tuple(panels),
    )


def thresholds(analysis: Analysis) -> Figure:
    """Figures 8 and 9: the adaptive threshold, how many images are above it, and how many of them are relatives."""
    space = analysis.spaces[-1]
    panels = [
        _trend(analysis, "Adaptive threshold", "cosine", [("", False, _in(space, lambda n: n.selection.threshold))]),
        _trend(analysis, "Images above it", "per anchor", [("", False, _in(space, lambda n: n.selection.selected))]),
    ]
    if any(math.isfinite(run.last.spaces[space].selection.precision) for run in analysis.runs):
        of = [("", False, _in(space, lambda n: 100 * n.selection.precision))]
        panels.append(_trend(analysis, "Of these, same superclass", "%", of))
    return Figure(
        "threshold",
        "Similarity",
        "What would HEX pick? The adaptive threshold",
        "The threshold is read from the similarities alone. The right-hand panel says how often it is right: the share "
        "of the selected images that belong to the anchor's superclass.",
        f"{SPACES[space].capitalize()} space. {analysis.protocol['threshold']}",
        tuple(panels),
    )


def tree_over_time(analysis: Analysis) -> Figure | None:
    """Agreement of the emergent tree with the labels, and its drift."""
    space = analysis.spaces[0]
    snapshots = [snapshot for run in analysis.runs for snapshot in run.snapshots]
    panels: list[Panel] = []
    if all(snapshot.spaces[space].agreement is not None for snapshot in snapshots):
        cophenetic = _in(space, lambda n: n.agreement.cophenetic if n.agreement else math.nan)
        panels.append(
            _trend(analysis, "Agreement with the labels", "cophenetic correlation", [("", False, cophenetic)])
        )
        gamma = _in(space, lambda n: n.agreement.gamma if n.agreement else math.nan)
        panels.append(_trend(analysis, "Agreement of ranks", "Baker's gamma", [("", False, gamma)]))
    if analysis.over_time and all(snapshot.spaces[space].tree is not None for snapshot in snapshots):
        last = {id(s): run.last for run in analysis.runs for s in run.snapshots}
        before = {id(s): p for run in analysis.runs for p, s in zip(run.snapshots, run.snapshots[1:], strict=False)}
        like = _against(space, last, tree_similarity)
        panels.append(_trend(analysis, "Likeness to the last epoch's tree", "Baker's gamma", [("", False, like)]))
        changed = _against(space, before, robinson_foulds)
        panels.append(
            _trend(analysis, "Changed since the snapshot before", "share of subtrees", [("", False, changed)])
        )
    if not panels:
        return None
    return Figure(
        "tree-drift",
        "The emergent tree",
        "When does the tree settle? Agreement with the labels, and drift",
        "Agreement: how well the heights at which classes join follow their distance in the label tree (1: perfectly, "
        "0: not at all). Drift: how much of the tree still changes; a tree that has settled has found its hierarchy.",
        analysis.protocol["tree"],
        tuple(panels),
    )


def batch_sizes(analysis: Analysis) -> Figure | None:
    """Figure 7: accuracy against batch size, where the runs differ in it."""
    space = analysis.spaces[0]
    sizes = {run.name: run.last.facts.get("batch_size") for run in analysis.runs}
    if len({size for size in sizes.values() if size}) < 2:
        return None
    objectives: dict[str, list[Run]] = {}
    for run in analysis.runs:
        if sizes[run.name]:
            objectives.setdefault(str(run.last.facts.get("objective", "all runs")), []).append(run)
    panels, ticks = [], tuple(sorted({float(size) for size in sizes.values() if size}))
    for level in analysis.labelling.levels[-2:]:
        series = []
        for name, runs in objectives.items():
            ordered = sorted(runs, key=lambda run: sizes[run.name] or 0)
            values = [run.last.spaces[space].knn[level] for run in ordered]
            series.append(Series(name, [float(sizes[run.name] or 0) for run in ordered], values, ordered[0].colour))
        panels.append(Lines(level, "batch size", "accuracy (%)", tuple(series), log_x=True, x_ticks=ticks))
    return Figure(
        "batch-size",
        _EMERGENCE,
        "Does the batch size matter? kNN accuracy against it",
        "Each line is one objective; its dots are runs that differ in their batch size.",
        analysis.protocol["knn"],
        tuple(panels),
    )


def local_rank(numbers: Numbers) -> tuple[float, float, float]:
    """Lowest, mean and highest effective rank inside the superclasses."""
    found = [node.effective_rank for node in numbers.profile if node.level == 0 and math.isfinite(node.effective_rank)]
    return (min(found), sum(found) / len(found), max(found)) if found else (math.nan,) * 3


def mean_ratio(numbers: Numbers) -> float:
    """Mean over the superclasses of local over global effective rank."""
    found = [node.ratio for node in numbers.profile if node.level == 0 and math.isfinite(node.ratio)]
    return sum(found) / len(found) if found else math.nan


def _trend(
    analysis: Analysis, title: str, y: str, entries: Sequence[Entry], bands: Mapping[int, Band] | None = None
) -> Panel:
    """Lines over epochs, a run each, for every entry (name, broken line, value).

    Where there is no time: dots, a row for each entry, or for each run of the only one.
    """
    if not analysis.over_time:
        marks = [[(run.name, value(run.last), run.colour) for run in analysis.runs] for _, _, value in entries]
        rows = [DotRow(name, tuple(found)) for (name, _, _), found in zip(entries, marks, strict=True)]
        if len(entries) == 1:
            rows = [DotRow(mark[0], (mark,)) for mark in marks[0]]
        return Dots(title, y, tuple(rows), from_zero=False)
    epochs = [float(s.epoch or 0) for run in analysis.runs if len(run.snapshots) > 1 for s in run.snapshots]
    series = []
    for index, (_, dash, value) in enumerate(entries):
        for run in analysis.runs:
            x, shown = [float(s.epoch or 0) for s in run.snapshots], [value(s) for s in run.snapshots]
            if len(x) == 1:  # a model without a history: a level line
                series.append(Series(run.name, [min(epochs), max(epochs)], shown * 2, run.colour, True, markers=False))
                continue
            edges = [bands[index](s) for s in run.snapshots] if bands and index in bands else []
            low, high = ([edge[0] for edge in edges], [edge[2] for edge in edges]) if edges else (None, None)
            series.append(Series(run.name, x, shown, run.colour, dash, low, high))
    return Lines(title, "epochs trained", y, tuple(series))


def _in(space: str, value: Callable[[Numbers], float]) -> Value:
    return lambda snapshot: value(snapshot.spaces[space])


def _band_in(space: str) -> Band:
    return lambda snapshot: local_rank(snapshot.spaces[space])


def _interval(numbers: Numbers, level: str) -> tuple[float, float, float]:
    """The interval of a kNN accuracy, with the accuracy in between, in percent."""
    low, high = numbers.knn_interval[level]
    return low, numbers.knn[level], high


def _against(
    space: str, others: Mapping[int, Snapshot], compare: Callable[[EmergentTree, EmergentTree], float]
) -> Value:
    """A comparison of a snapshot's tree with that of another one; NaN where there is none."""

    def value(snapshot: Snapshot) -> float:
        other = others.get(id(snapshot))
        here, there = snapshot.spaces[space].tree, other.spaces[space].tree if other else None
        return compare(here, there) if here is not None and there is not None else math.nan

    return value


def _has_cosines(analysis: Analysis) -> bool:
    return all(n.cosine is not None for run in analysis.runs for s in run.snapshots for n in s.spaces.values())


def _ratio(numbers: Numbers) -> float:
    """The ratio of figure 13; NaN where it is a number over almost nothing."""
    found = numbers.cosine
    return found.ratio if found is not None and found.other.mean >= _LEAST_COSINE else math.nan
