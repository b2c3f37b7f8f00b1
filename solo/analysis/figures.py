"""The report's figures: over the epochs, then of single snapshots (points, trees, local collapse, neighbours)."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from solo.analysis import figure as fig
from solo.analysis.numbers import SPACES, Analysis, Numbers, Run, Value, View, time_of
from solo.analysis.plots import TITLES
from solo.eval.classes import EmergentTree, robinson_foulds, spearman
from solo.eval.features import Array, unit

_MOST_ROWS = 80  # nodes in a profile
_BATCH, _ANCHORS, _RETRIEVED = 128, 7, 5  # as in figure 15 of the paper


def all_figures(analysis: Analysis, neighbours: dict[str, fig.Pictures]) -> list[fig.Figure]:
    """Those with something to see; `nearest_in_batch` gives each run's neighbours, if images can be shown.

    The paper's figures 7 to 9 and 11 to 13, the poster's, those of the tree over epochs, if there are several; then of
    first and last snapshots.
    """
    trend, superlevel = partial(_trend, analysis), analysis.labelling.superlevel
    found: defaultdict[str, list[fig.Plot]] = defaultdict(list)
    for level in analysis.labelling.levels[-3:]:
        found["knn"].append(trend(level, "accuracy (%)", analysis.spaces[0], _accuracy(level)))
    ranks = {"all images": "effective_rank", f"inside a {superlevel}": "local_rank"}
    cosines = {f"same {superlevel}": "cosine.same.mean", "other": "cosine.other.mean"}
    for space in analysis.spaces:
        name = SPACES[space]
        found["effective-rank"].append(trend(f"Effective rank, {name}", "directions", space, ranks))
        found["effective-rank"].append(trend(f"Local over global, {name}", "ratio", space, "mean_ratio"))
        found["lidar"].append(trend(name.capitalize(), "LiDAR", space, "lidar"))
        found["cosine"].append(trend(name.capitalize(), "mean cosine", space, cosines))
        if any(math.isfinite(_ratio(run.last.spaces[space])) for run in analysis.runs):
            found["cosine-ratio"].append(trend(f"Ratio, {name}", "same / other", space, _ratio))
        found["cosine-ratio"].append(trend(f"Difference, {name}", "same − other", space, "cosine.gap"))
    found["threshold"] = [
        trend("Adaptive threshold", "cosine", space, "selection.threshold"),
        trend("Images above it", "per anchor", space, "selection.selected"),
        trend("Of these, same superclass", "%", space, lambda n: 100 * n.selection.precision),
    ]
    found["tree-drift"] = _tree_over_time(analysis, trend)
    found["batch-size"] = _batch_sizes(analysis)
    bands = " Bands: 95 % intervals over the images, from random halves; runs see the same ones, so smaller "
    bands = f"{bands}differences can be real." if analysis.over_time else ""
    made = [analysis.figure(key, panels, bands=bands) for key, panels in found.items()]
    made += [_clouds(analysis, view) for view in analysis.views]
    made += [_distributions(analysis), _spectra(analysis), _trees(analysis), _profile(analysis), _confusable(analysis)]
    if neighbours:
        panels, space = [*neighbours.values()], SPACES[analysis.spaces[-1]]
        made.append(_examples(analysis))
        made.append(analysis.figure("neighbours", panels, retrieved=_RETRIEVED, batch=_BATCH, neighbour_space=space))
    return [figure for figure in made if figure.panels]


def _accuracy(level: str) -> Value:
    return lambda n: (n.knn_interval[level][0], n.knn_acc1[level], n.knn_interval[level][1])


def _ratio(numbers: Numbers) -> float:
    """The ratio of figure 13; NaN where it is a number over almost nothing."""
    found = numbers.cosine
    return found.ratio if found is not None and found.other.mean >= 0.02 else math.nan


def _tree_over_time(analysis: Analysis, trend: Callable[..., fig.Plot]) -> list[fig.Plot]:
    space = analysis.spaces[0]
    panels = [
        trend("Agreement with the labels", "cophenetic correlation", space, "agreement.cophenetic"),
        trend("Agreement of ranks", "Baker's gamma", space, "agreement.gamma"),
    ]
    if analysis.over_time:
        like, changed = (defaultdict[int, float](lambda: math.nan) for _ in range(2))  # of a snapshot's numbers
        for run in analysis.runs:
            of = [snapshot.spaces[space] for snapshot in run.snapshots]
            for before, one in zip([None, *of], of, strict=False):
                if one.tree and of[-1].tree:
                    like[id(one)] = spearman(one.tree.cophenetic, of[-1].tree.cophenetic)
                if one.tree and before and before.tree:
                    changed[id(one)] = robinson_foulds(one.tree, before.tree)
        panels.append(trend("Likeness to the last epoch's tree", "Baker's gamma", space, lambda n: like[id(n)]))
        panels.append(trend("Changed since the snapshot before", "share of subtrees", space, lambda n: changed[id(n)]))
    return panels


def _batch_sizes(analysis: Analysis) -> list[fig.Plot]:
    """Figure 7: accuracy against batch size, where the runs differ in it."""
    sizes = {run.name: float(run.last.facts["batch_size"]) for run in analysis.runs if run.last.facts.get("batch_size")}
    ticks = tuple(sorted({*sizes.values()}))
    if len(ticks) < 2:
        return []
    objectives: dict[str, list[Run]] = {}
    for run in sorted((run for run in analysis.runs if run.name in sizes), key=lambda run: sizes[run.name]):
        objectives.setdefault(str(run.last.facts.get("objective", "all runs")), []).append(run)
    panels = []
    for level in analysis.labelling.levels[-2:]:
        series = []
        for name, runs in objectives.items():
            values = [run.last.spaces[analysis.spaces[0]].knn_acc1[level] for run in runs]
            series.append(fig.Series(name, [sizes[run.name] for run in runs], values, runs[0].colour))
        panels.append(fig.Plot(level, "batch size", "accuracy (%)", tuple(series), log_x=True, x_ticks=ticks))
    return panels


def _trend(analysis: Analysis, title: str, y: str, space: str, values: Value | Mapping[str, Value]) -> fig.Plot:
    """Lines over epochs, a run each, with bands where a value has ends; of several named values all but one broken.

    Where there is no time: dots, a row for each value, or for each run of the only one.
    """
    found: dict[str, list[list[tuple[float, float, float]]]] = {}  # name -> runs -> snapshots
    for name, of in (values if isinstance(values, Mapping) else {"": values}).items():
        each = [[snapshot.spaces[space].at(of) for snapshot in run.snapshots] for run in analysis.runs]
        found[name] = [[one if isinstance(one, tuple) else (one, one, one) for one in run] for run in each]
    if not analysis.over_time:
        marks = {
            name: [(run.name, one[-1][1], run.colour) for run, one in zip(analysis.runs, each, strict=True)]
            for name, each in found.items()
        }
        if not isinstance(values, Mapping):
            marks = {mark[0]: [mark] for mark in marks[""]}
        return fig.dots(title, y, [fig.DotRow(name, row) for name, row in marks.items()], from_zero=False)
    epochs = [float(s.epoch or 0) for run in analysis.runs if len(run.snapshots) > 1 for s in run.snapshots]
    series = []
    for place, runs in enumerate(found.values()):
        for run, points in zip(analysis.runs, runs, strict=True):
            low, shown, high = ([point[end] for point in points] for end in range(3))
            if len(points) == 1:  # a model without a history: a level line
                at = [min(epochs), max(epochs)]
                series.append(fig.Series(run.name, at, shown * 2, run.colour, dash=True, markers=False))
                continue
            band = (low, high) if low != shown else (None, None)
            at = [float(s.epoch or 0) for s in run.snapshots]
            series.append(fig.Series(run.name, at, shown, run.colour, place > 0, *band))
    return fig.Plot(title, "epochs trained", y, tuple(series))


def _distributions(analysis: Analysis) -> fig.Figure:
    """The poster's distributions: cosines of same-superclass and of other pairs, at the end and at the start."""
    panels = []
    for run in analysis.runs:
        for space in analysis.spaces:
            series: list[fig.Series] = []
            for snapshot, start in run.ends:
                cosine = snapshot.spaces[space].cosine
                if cosine is None:
                    return analysis.figure("cosine-distribution", ())
                same = f"same {analysis.labelling.superlevel}"
                for name, colour, part in ((same, fig.SAME, cosine.same), ("other pairs", fig.OTHER, cosine.other)):
                    share = part.histogram.numpy()
                    x = ((np.arange(len(share)) + 0.5) * 2 / len(share) - 1).tolist()
                    density = (share * len(share) / 2).tolist()
                    series.append(fig.Series(name, x, density, colour, dash=start, area=not start, markers=False))
            top = 2.5 * max(max(one.y) for one in series if one.area)  # of the last snapshot
            frame = (0.0, top) if top < max(max(one.y) for one in series) else None
            filled = np.concatenate([np.asarray(one.x)[np.asarray(one.y) > 1e-3] for one in series])
            ends = (max(filled.min() - 0.05, -1.02), min(filled.max() + 0.05, 1.02)) if len(filled) else (-1.0, 1.0)
            title = analysis.titled(run, SPACES[space])
            panels.append(fig.Plot(title, "cosine", "density", tuple(series), y_range=frame, x_range=ends))
    return analysis.figure("cosine-distribution", panels)


def _spectra(analysis: Analysis) -> fig.Figure:
    panels = []
    for space in analysis.spaces:
        series = []
        for run in analysis.runs:
            for snapshot, start in run.ends:
                values = snapshot.spaces[space].eigenvalues
                values = values[values >= 1e-8]  # below it there is only rounding
                x = np.unique(np.geomspace(1, max(len(values), 1), 200).astype(int))[: len(values)].tolist()
                y = [float(values[place - 1]) for place in x]
                series.append(fig.Series(run.name, x, y, run.colour, dash=start, markers=False))
        panels.append(fig.Plot(SPACES[space].capitalize(), "direction", "share of variance", tuple(series), True, True))
    return analysis.figure("spectrum", panels)


def _clouds(analysis: Analysis, view: View) -> fig.Figure:
    """Figures 10 and 14: points of one view, of each run, at the start and at the end."""
    labelling = analysis.labelling
    level = -1 if view.key == "inside" else labelling.superclass
    labels, names = labelling.labels[view.rows, level], labelling.names[level]
    present = sorted(set(labels[labels >= 0].tolist())) if level == -1 else range(len(names))
    groups = [
        (names[label], colour, rows)
        for label, colour in zip(present, fig.category_colours(len(present)), strict=True)
        if len(rows := np.flatnonzero(labels == label))
    ]
    if (labels < 0).any():
        groups.append(("unlabelled", fig.UNKNOWN, np.flatnonzero(labels < 0)))
    texts = []
    for fine, coarse in zip(labelling.fine[view.rows], labelling.coarse[view.rows], strict=True):
        parts = [labelling.names[-1][fine] if fine >= 0 else "", labelling.names[labelling.superclass][coarse]]
        texts.append(" · ".join(dict.fromkeys(part for part in parts if part)))
    # Several runs that began with the same network show it once.
    starts = [run.snapshots[0].clouds[view.key] for run in analysis.runs if len(run.snapshots) > 1]
    common = len(starts) == len(analysis.runs) > 1 and all(np.array_equal(one, starts[0]) for one in starts)
    panels: list[fig.Panel] = []
    for run in analysis.runs:
        for snapshot, start in reversed(run.ends):
            if common and start and run is not analysis.runs[0]:
                continue
            title = analysis.titled(run, time_of(snapshot.epoch) if run.snapshots[0].epoch != run.last.epoch else "")
            if common and start:
                title = time_of(snapshot.epoch).capitalize() + ", the same for all"
            panels.append(fig.cloud(title, snapshot.clouds[view.key], groups, texts))
    shown = f"{view.title[:1].lower()}{view.title[1:]}"
    facts = {"how": TITLES[analysis.options.embedding], "images_shown": shown, "shown": len(view.rows)}
    facts |= {"coloured_by": labelling.levels[level], "most": analysis.options.max_points}
    legend = {name: colour for name, colour, _ in groups}
    return analysis.figure(f"points-{view.key}", panels, legend, **facts)


def _trees(analysis: Analysis) -> fig.Figure:
    """The emergent tree of each run's last snapshot, none if one is too large to be drawn."""
    panels: list[fig.Plot] = []
    labelling, classes = analysis.labelling, analysis.labelling.level
    for run in analysis.runs:
        numbers = run.last.spaces[analysis.spaces[0]]
        if numbers.tree is None or numbers.tree.num_leaves > 150:  # as of all runs, which have the same classes
            break
        note = f"agreement with the labels {numbers.agreement.cophenetic:.2f}" if numbers.agreement else ""
        panels.append(_dendrogram(analysis, numbers.tree, numbers.classes.tolist(), analysis.titled(run, note)))
    names = labelling.names[labelling.superclass]
    classes = classes[:-1] + {"s": "ses", "y": "ies"}.get(classes[-1:], f"{classes[-1:]}s")
    legend = dict(zip(names, fig.category_colours(len(names)), strict=True)) if len(names) <= 40 else None
    return analysis.figure("tree", panels, legend, classes=classes)


def _dendrogram(analysis: Analysis, tree: EmergentTree, classes: list[int], title: str) -> fig.Plot:
    """The tree from right (the root) to left (the leaves), a bracket for each merge."""
    labelling, order, m = analysis.labelling, tree.order(), tree.num_leaves
    palette = [*fig.category_colours(len(labelling.names[labelling.superclass])), fig.UNKNOWN]  # the last: of -1
    parents = labelling.parents()
    group = [parents[label] for label in classes]  # of each leaf, then of each merge
    place = dict(zip(order, map(float, range(m)), strict=True))
    height = [0.0] * m
    brackets: dict[str, tuple[list[float], list[float]]] = {}  # colour -> heights and positions, a gap after each
    for step, (left, right, at, _) in enumerate(tree.merges.tolist()):
        a, b = int(left), int(right)
        group.append(group[a] if group[a] == group[b] else -1)
        x, y = brackets.setdefault(palette[group[-1]] if group[-1] >= 0 else "", ([], []))
        x += [height[a], at, at, height[b], math.nan]
        y += [place[a], place[a], place[b], place[b], math.nan]
        place[m + step] = (place[a] + place[b]) / 2
        height.append(at)
    series = tuple(fig.Series("", x, y, colour, markers=False) for colour, (x, y) in brackets.items())
    leaves = tuple(fig.Name(labelling.names[-1][classes[leaf]], palette[group[leaf]]) for leaf in order)
    across, what = (0.0, 1.03 * max(height) or 1.0), "cosine distance at which they join"
    return fig.Plot(title, what, "", series, x_range=across, y_range=(-0.7, m - 0.3), rows=leaves)


def _profile(analysis: Analysis) -> fig.Figure:
    labelling, panels = analysis.labelling, []
    for space in analysis.spaces:
        # Of each node of the labels, which all runs share, what every run says; the first one is the root.
        nodes = list(zip(*(run.last.spaces[space].profile for run in analysis.runs), strict=True))[1:]
        order = [of for of in nodes if of[0].level == 0]
        if len(nodes) <= _MOST_ROWS:
            below = [[of for of in nodes if of[0].level == 1 and of[0].parent == top[0].node] for top in order]
            order = [of for top, children in zip(order, below, strict=True) for of in (top, *children)]
        if len(order) > _MOST_ROWS:
            order.sort(key=lambda of: min(node.ratio for node in of))
        rows = []
        for of in order[:_MOST_ROWS]:
            marks = [(run.name, node.ratio, run.colour) for run, node in zip(analysis.runs, of, strict=True)]
            name = labelling.names[labelling.superclass + of[0].level][of[0].node]
            rows.append(fig.DotRow(name, marks, of[0].level))
        title = SPACES[space].capitalize() + (f", the {_MOST_ROWS} lowest" if len(order) > len(rows) else "")
        panels.append(fig.dots(title, "local / global effective rank", rows, reference=1.0))
    return analysis.figure("collapse-profile", panels)


def _confusable(analysis: Analysis) -> fig.Figure:
    names, best = analysis.labelling.names[-1], dict[tuple[int, int], float]()
    spaces = [run.last.spaces[analysis.spaces[0]] for run in analysis.runs]
    for pair in (pair for numbers in spaces for pair in numbers.pairs):
        best[pair.first, pair.second] = max(best.get((pair.first, pair.second), 0.0), pair.mixing)
    rows = []
    for a, b in sorted(best, key=lambda key: -best[key])[:12]:
        marks = [(run.name, n.mixing_of(a, b), run.colour) for run, n in zip(analysis.runs, spaces, strict=True)]
        rows.append(fig.DotRow(f"{names[a]} · {names[b]}", marks))
    return analysis.figure("confusable", [fig.dots("", "mixing", rows)])


def _examples(analysis: Analysis) -> fig.Figure:
    names, panels = analysis.labelling.names[-1], []
    for run in analysis.runs:
        rows = []
        for pair in run.last.spaces[analysis.spaces[0]].pairs[:4]:
            pictures: list[fig.Picture] = []
            for first, second in pair.examples[:3]:
                pictures += [fig.Picture(first, names[pair.first]), fig.Picture(second, names[pair.second])]
            if pictures:
                title = f"{names[pair.first]} · {names[pair.second]}"
                rows.append(fig.PictureRow(title, tuple(pictures), f"mixing {pair.mixing:.2f}"))
        if rows:
            panels.append(fig.Pictures(analysis.titled(run), tuple(rows)))
    return analysis.figure("confusable-examples", panels)


def nearest_in_batch(features: Array, labels: Array, names: Sequence[str], seed: int, title: str) -> fig.Pictures:
    """Figure 15: anchors of a random batch, the same for every run, with its images of highest cosine.

    Features are (n, d), labels (n,) superclasses, -1 unknown.
    """
    rng = np.random.default_rng(seed)
    batch = rng.choice(len(features), min(_BATCH, len(features)), replace=False)
    first = sorted(np.unique(labels[batch], return_index=True)[1].tolist())  # the first image of each superclass
    anchors = [*first, *(place for place in range(len(batch)) if place not in first)][:_ANCHORS]
    z = unit(features[batch])
    called = [*names, "unlabelled"]  # the last: of -1
    rows = []
    for place in anchors:
        order = [other for other in np.argsort(-(z @ z[place]), kind="stable") if other != place][:_RETRIEVED]
        mine = labels[batch[place]]
        pictures = [fig.Picture(int(batch[place]), "anchor")]
        for other in order:
            theirs = labels[batch[other]]
            good = None if mine < 0 or theirs < 0 else bool(mine == theirs)
            pictures.append(fig.Picture(int(batch[other]), called[theirs], good))
        rows.append(fig.PictureRow(called[mine], tuple(pictures)))
    return fig.Pictures(title, tuple(rows))
