"""Figures of single snapshots: distributions, spectra, points in the plane, the emergent tree."""

import numpy as np

from solo.analysis.embedding import TITLES
from solo.analysis.figure import Cloud, Dendrogram, Figure, Group, Lines, Panel, Series
from solo.analysis.labelling import Labelling
from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.palette import OTHER, SAME, UNKNOWN, category_colours
from solo.analysis.runs import Analysis, View, time_of
from solo.eval.tree import EmergentTree

_FRAME = 2.5  # height of a panel of distributions, in those of the last snapshot
_LEAST_SHARE = 1e-8  # of the variance; below it there is only rounding
_MOST_LEAVES = 150  # of a drawn tree
_MOST_BINS = 200


def space_figures(analysis: Analysis) -> list[Figure]:
    """All of them; those without a number are left out."""
    found: list[Figure | None] = [
        clouds(analysis, view) for view in analysis.views if view.key in analysis.runs[0].last.clouds
    ]
    found += [distributions(analysis), spectra(analysis), trees(analysis)]
    return [figure for figure in found if figure is not None]


def distributions(analysis: Analysis) -> Figure | None:
    """The poster's distributions: cosines of same-superclass and of other pairs, at the end and at the start."""
    panels = []
    for run in analysis.runs:
        for space in analysis.spaces:
            series: list[Series] = []
            for snapshot, start in run.ends:
                cosine = snapshot.spaces[space].cosine
                if cosine is None:
                    return None
                same = f"same {analysis.labelling.superlevel}"
                for name, colour, part in ((same, SAME, cosine.same), ("other pairs", OTHER, cosine.other)):
                    share = part.histogram.numpy()
                    x = ((np.arange(len(share)) + 0.5) * 2 / len(share) - 1).tolist()
                    density = (share * len(share) / 2).tolist()
                    series.append(Series(name, x, density, colour, dash=start, area=not start, markers=False))
            title = analysis.titled(run, SPACES[space])
            top = _FRAME * max(max(one.y) for one in series if one.area)
            frame = (0.0, top) if top < max(max(one.y) for one in series) else None
            panels.append(Lines(title, "cosine", "density", tuple(series), y_range=frame, x_range=_filled(series)))
    return analysis.figure("cosine-distribution", panels)


def spectra(analysis: Analysis) -> Figure:
    """The eigenvalues of each space's covariance, as curves."""
    panels = []
    for space in analysis.spaces:
        series = []
        for run in analysis.runs:
            for snapshot, start in run.ends:
                values = snapshot.spaces[space].eigenvalues
                values = values[values >= _LEAST_SHARE]
                x = np.unique(np.geomspace(1, max(len(values), 1), _MOST_BINS).astype(int))[: len(values)].tolist()
                y = [float(values[place - 1]) for place in x]
                series.append(Series(run.name, x, y, run.colour, dash=start, markers=False))
        panels.append(Lines(SPACES[space].capitalize(), "direction", "share of variance", tuple(series), True, True))
    return analysis.figure("spectrum", panels)


def clouds(analysis: Analysis, view: View) -> Figure:
    """Figures 10 and 14: points of one view, of each run, at the start and at the end."""
    labelling, how = analysis.labelling, TITLES[analysis.embedding]
    level = -1 if view.fine else labelling.superclass
    labels, names = labelling.labels[view.rows, level], labelling.names[level]
    present = sorted(set(labels[labels >= 0].tolist())) if view.fine else range(len(names))
    groups = [
        Group(names[label], colour, rows)
        for label, colour in zip(present, category_colours(len(present)), strict=True)
        if len(rows := np.flatnonzero(labels == label))
    ]
    if (labels < 0).any():
        groups.append(Group("unlabelled", UNKNOWN, np.flatnonzero(labels < 0)))
    texts, common = _texts(labelling, view), _start_together(analysis, view)
    panels: list[Panel] = []
    for run in analysis.runs:
        for snapshot, start in reversed(run.ends):
            if view.key not in snapshot.clouds or (common and start and run is not analysis.runs[0]):
                continue
            title = analysis.titled(run, time_of(snapshot.epoch) if run.first.epoch != run.last.epoch else "")
            if common and start:
                title = time_of(snapshot.epoch).capitalize() + ", the same for all"
            panels.append(Cloud(title, snapshot.clouds[view.key], tuple(groups), texts))
    facts = {"how": how, "images_shown": f"{view.title[:1].lower()}{view.title[1:]}", "shown": len(view.rows)}
    facts |= {"coloured_by": labelling.levels[level], "most": analysis.max_points}
    return analysis.figure(f"points-{view.key}", panels, tuple((group.name, group.colour) for group in groups), **facts)


def trees(analysis: Analysis) -> Figure | None:
    """The emergent tree of each run's last snapshot."""
    panels, labelling = [], analysis.labelling
    for run in analysis.runs:
        numbers = run.last.spaces[analysis.spaces[0]]
        if numbers.tree is None or numbers.tree.num_leaves > _MOST_LEAVES:
            return None
        note = f"agreement with the labels {numbers.agreement.cophenetic:.2f}" if numbers.agreement else ""
        panels.append(_dendrogram(numbers.tree, numbers, labelling, analysis.titled(run, note)))
    names, level = labelling.names[labelling.superclass], labelling.level
    classes = level[:-1] + {"s": "ses", "y": "ies"}.get(level[-1:], f"{level[-1:]}s")
    legend = tuple(zip(names, category_colours(len(names)), strict=True)) if len(names) <= 40 else ()
    return analysis.figure("tree", panels, legend, classes=classes)


def _dendrogram(tree: EmergentTree, numbers: Numbers, labelling: Labelling, title: str) -> Dendrogram:
    order, m = tree.order(), tree.num_leaves
    parents = labelling.parents()
    palette = [*category_colours(len(labelling.names[labelling.superclass])), UNKNOWN]  # the last: of -1
    group = [parents[label] for label in numbers.classes.tolist()]  # of each leaf, then of each merge
    place = dict(zip(order, map(float, range(m)), strict=True))
    height = [0.0] * m
    links, colours = [], []
    for step, (left, right, at, _) in enumerate(tree.merges.tolist()):
        a, b = int(left), int(right)
        links.append(((height[a], at, at, height[b]), (place[a], place[a], place[b], place[b])))
        group.append(group[a] if group[a] == group[b] else -1)
        colours.append(palette[group[-1]] if group[-1] >= 0 else "")
        place[m + step] = (place[a] + place[b]) / 2
        height.append(at)
    names = [labelling.names[-1][label] for label in numbers.classes.tolist()]
    return Dendrogram(
        title,
        "cosine distance at which they join",
        tuple(links),
        tuple(colours),
        tuple(names[leaf] for leaf in order),
        tuple(palette[group[leaf]] for leaf in order),
    )


def _start_together(analysis: Analysis, view: View) -> bool:
    """Whether several runs began with the same network, so that its picture is needed once."""
    first = [run.first.clouds.get(view.key) for run in analysis.runs if len(run.snapshots) > 1]
    return len(first) == len(analysis.runs) > 1 and all(
        one is not None and first[0] is not None and np.array_equal(one, first[0]) for one in first
    )


def _texts(labelling: Labelling, view: View) -> list[str]:
    found = []
    for fine, coarse in zip(labelling.fine[view.rows], labelling.coarse[view.rows], strict=True):
        parts = [labelling.names[-1][fine] if fine >= 0 else "", labelling.names[labelling.superclass][coarse]]
        found.append(" · ".join(dict.fromkeys(part for part in parts if part)))
    return found


def _filled(series: list[Series]) -> tuple[float, float]:
    """The part of the axis where something is."""
    x = np.concatenate([np.asarray(s.x)[np.asarray(s.y) > 1e-3] for s in series])
    return (max(float(x.min()) - 0.05, -1.02), min(float(x.max()) + 0.05, 1.02)) if len(x) else (-1.0, 1.0)
