"""Figures over the epochs of one or more runs; a table of dots where every run has a single snapshot."""

import math
from collections.abc import Callable, Mapping

from solo.analysis.figure import DotRow, Dots, Figure, Lines, Panel, Series
from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.runs import Analysis, Run
from solo.eval.tree import EmergentTree, robinson_foulds, tree_similarity

# A number, or its lower end, itself and its upper end.
Value = Callable[[Numbers], "float | tuple[float, float, float]"]
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

    def of(level: str) -> Value:
        return lambda n: (n.knn_interval[level][0], n.knn[level], n.knn_interval[level][1])

    levels, space = analysis.labelling.levels[-3:], analysis.spaces[0]
    panels = [_trend(analysis, level, "accuracy (%)", space, of(level)) for level in levels]
    return analysis.figure("knn", panels, bands=_BANDS if analysis.over_time else "")


def ranks(analysis: Analysis) -> Figure:
    """The poster's figure: effective rank of all samples and inside each superclass."""
    panels: list[Panel] = []
    for space in analysis.spaces:
        both = {
            "all images": lambda n: n.effective_rank,
            f"inside a {analysis.labelling.superlevel}": lambda n: n.local_rank,
        }
        panels.append(_trend(analysis, f"Effective rank, {SPACES[space]}", "directions", space, both))
        title = f"Local over global, {SPACES[space]}"
        panels.append(_trend(analysis, title, "ratio", space, lambda n: n.mean_ratio))
    return analysis.figure("effective-rank", panels)


def lidars(analysis: Analysis) -> Figure:
    """LiDAR of both spaces; its panels are empty where no snapshot has views."""
    panels = [_trend(analysis, SPACES[s].capitalize(), "LiDAR", s, lambda n: n.lidar) for s in analysis.spaces]
    return analysis.figure("lidar", panels)


def cosines(analysis: Analysis) -> Figure:
    """Figure 12: mean cosine of same-superclass and of other negatives."""
    both = {
        f"same {analysis.labelling.superlevel}": lambda n: n.cosine.same.mean if n.cosine else math.nan,
        "other": lambda n: n.cosine.other.mean if n.cosine else math.nan,
    }
    panels = [_trend(analysis, SPACES[space].capitalize(), "mean cosine", space, both) for space in analysis.spaces]
    return analysis.figure("cosine", panels)


def ratio(analysis: Analysis) -> Figure:
    """Figure 13: their ratio, and their difference."""
    panels = []
    for space in analysis.spaces:
        if any(math.isfinite(_ratio(run.last.spaces[space])) for run in analysis.runs):
            panels.append(_trend(analysis, f"Ratio, {SPACES[space]}", "same / other", space, _ratio))
        title = f"Difference, {SPACES[space]}"
        gap: Value = lambda n: n.cosine.gap if n.cosine else math.nan  # noqa: E731
        panels.append(_trend(analysis, title, "same − other", space, gap))
    return analysis.figure("cosine-ratio", panels)


def thresholds(analysis: Analysis) -> Figure:
    """Figures 8 and 9: the adaptive threshold, how many images are above it, and how many of them are relatives."""
    space = analysis.spaces[-1]
    panels = [
        _trend(analysis, "Adaptive threshold", "cosine", space, lambda n: n.selection.threshold),
        _trend(analysis, "Images above it", "per anchor", space, lambda n: n.selection.selected),
        _trend(analysis, "Of these, same superclass", "%", space, lambda n: 100 * n.selection.precision),
    ]
    return analysis.figure("threshold", panels)


def tree_over_time(analysis: Analysis) -> Figure:
    """Agreement of the emergent tree with the labels, and its drift."""
    space = analysis.spaces[0]
    panels = [
        _trend(analysis, title, y, space, lambda n, key=key: getattr(n.agreement, key, math.nan))  # type: ignore[misc]
        for title, y, key in (
            ("Agreement with the labels", "cophenetic correlation", "cophenetic"),
            ("Agreement of ranks", "Baker's gamma", "gamma"),
        )
    ]
    if analysis.over_time:
        of = [[snapshot.spaces[space] for snapshot in run.snapshots] for run in analysis.runs]
        last = {id(one): run[-1] for run in of for one in run}
        before = {id(one): previous for run in of for previous, one in zip(run, run[1:], strict=False)}
        like = _against(last, tree_similarity)
        panels.append(_trend(analysis, "Likeness to the last epoch's tree", "Baker's gamma", space, like))
        changed = _against(before, robinson_foulds)
        panels.append(_trend(analysis, "Changed since the snapshot before", "share of subtrees", space, changed))
    return analysis.figure("tree-drift", panels)


def batch_sizes(analysis: Analysis) -> Figure | None:
    """Figure 7: accuracy against batch size, where the runs differ in it."""
    sizes = {run.name: float(run.last.facts.get("batch_size") or 0) for run in analysis.runs}
    ticks = tuple(sorted({size for size in sizes.values() if size}))
    if len(ticks) < 2:
        return None
    objectives: dict[str, list[Run]] = {}
    for run in sorted(analysis.runs, key=lambda run: sizes[run.name]):
        if sizes[run.name]:
            objectives.setdefault(str(run.last.facts.get("objective", "all runs")), []).append(run)
    panels = []
    for level in analysis.labelling.levels[-2:]:
        series = []
        for name, runs in objectives.items():
            values = [run.last.spaces[analysis.spaces[0]].knn[level] for run in runs]
            series.append(Series(name, [sizes[run.name] for run in runs], values, runs[0].colour))
        panels.append(Lines(level, "batch size", "accuracy (%)", tuple(series), log_x=True, x_ticks=ticks))
    return analysis.figure("batch-size", panels)


def _trend(analysis: Analysis, title: str, y: str, space: str, values: Value | Mapping[str, Value]) -> Panel:
    """Lines over epochs, a run each, with bands where a value has ends; of several named values all but one broken.

    Where there is no time: dots, a row for each value, or for each run of the only one.
    """
    named = values if isinstance(values, Mapping) else {"": values}

    def with_ends(value: float | tuple[float, float, float]) -> tuple[float, float, float]:
        return value if isinstance(value, tuple) else (value, value, value)

    found = {
        name: [[with_ends(value(snapshot.spaces[space])) for snapshot in run.snapshots] for run in analysis.runs]
        for name, value in named.items()
    }
    if not analysis.over_time:
        marks = {
            name: [(run.name, one[-1][1], run.colour) for run, one in zip(analysis.runs, each, strict=True)]
            for name, each in found.items()
        }
        if len(named) == 1:
            marks = {mark[0]: [mark] for mark in marks[next(iter(named))]}
        return Dots(title, y, tuple(DotRow(name, tuple(row)) for name, row in marks.items()), from_zero=False)
    epochs = [float(s.epoch or 0) for run in analysis.runs if len(run.snapshots) > 1 for s in run.snapshots]
    series = []
    for place, each in enumerate(found.values()):
        for run, points in zip(analysis.runs, each, strict=True):
            low, shown, high = ([point[end] for point in points] for end in range(3))
            if len(points) == 1:  # a model without a history: a level line
                series.append(Series(run.name, [min(epochs), max(epochs)], shown * 2, run.colour, True, markers=False))
                continue
            band = (low, high) if low != shown else (None, None)
            at = [float(s.epoch or 0) for s in run.snapshots]
            series.append(Series(run.name, at, shown, run.colour, place > 0, *band))
    return Lines(title, "epochs trained", y, tuple(series))


def _against(others: Mapping[int, Numbers], compare: Callable[[EmergentTree, EmergentTree], float]) -> Value:
    """A comparison of a snapshot's tree with that of another one; NaN where there is none."""

    def value(numbers: Numbers) -> float:
        other = others.get(id(numbers))
        return compare(numbers.tree, other.tree) if numbers.tree and other and other.tree else math.nan

    return value


def _ratio(numbers: Numbers) -> float:
    """The ratio of figure 13; NaN where it is a number over almost nothing."""
    found = numbers.cosine
    return found.ratio if found is not None and found.other.mean >= _LEAST_COSINE else math.nan
