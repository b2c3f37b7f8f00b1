"""Figures of single snapshots: distributions, spectra, points, the emergent tree, local collapse, neighbours."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from solo.analysis.embedding import TITLES
from solo.analysis.figure import (
    Cloud,
    Dendrogram,
    DotRow,
    Dots,
    Figure,
    Group,
    Lines,
    Panel,
    Picture,
    PictureRow,
    Pictures,
    Series,
)
from solo.analysis.labelling import Labelling
from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.palette import OTHER, SAME, UNKNOWN, category_colours
from solo.analysis.runs import Analysis, View, time_of
from solo.eval.classes import NodeRank
from solo.eval.rows import Array, unit
from solo.eval.tree import EmergentTree

_FRAME = 2.5  # height of a panel of distributions, in those of the last snapshot
_LEAST_SHARE = 1e-8  # of the variance; below it there is only rounding
_MOST_LEAVES = 150  # of a drawn tree
_MOST_BINS = 200


def space_figures(analysis: Analysis) -> list[Figure]:
    """All of them; those without a number are left out."""
    drawn = analysis.runs[0].last.clouds
    found: list[Figure | None] = [clouds(analysis, view) for view in analysis.views if view.key in drawn]
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
            filled = np.concatenate([np.asarray(one.x)[np.asarray(one.y) > 1e-3] for one in series])
            ends = (max(filled.min() - 0.05, -1.02), min(filled.max() + 0.05, 1.02)) if len(filled) else (-1.0, 1.0)
            panels.append(Lines(title, "cosine", "density", tuple(series), y_range=frame, x_range=ends))
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


_MOST_ROWS = 80  # nodes in a profile
_PAIRS = 12  # rows of dots
_SHOWN = 4  # pairs with pictures, of each run
_BATCH, _ANCHORS, _RETRIEVED = 128, 7, 5  # as in figure 15 of the paper


def pair_figures(analysis: Analysis, neighbours: dict[str, Pictures], pictures: bool) -> list[Figure]:
    """All of them; `neighbours` of each run are from `nearest_in_batch`, and need `pictures`, as examples do."""
    found = [profile(analysis), confusable(analysis)]
    if pictures:
        found.append(examples(analysis))
        found.append(neighbour_grid(analysis, neighbours))
    return found


def profile(analysis: Analysis) -> Figure:
    """The collapse profile: local over global rank of every node."""
    labelling, panels = analysis.labelling, []
    for space in analysis.spaces:
        by_run = [
            (run, {(node.level, node.node): node for node in run.last.spaces[space].profile if node.level >= 0})
            for run in analysis.runs
        ]
        nodes = by_run[0][1]
        order = [key for key in nodes if key[0] == 0]
        if max((level for level, _ in nodes), default=0) and len(nodes) <= _MOST_ROWS:
            below = {top: [key for key in nodes if key[0] == 1 and nodes[key].parent == top[1]] for top in order}
            order = [key for top, children in below.items() for key in (top, *children)]
        if len(order) > _MOST_ROWS:
            order = sorted(order, key=lambda key: min(_ratio(found, key) for _, found in by_run))[:_MOST_ROWS]
        rows = tuple(
            DotRow(
                labelling.names[labelling.superclass + key[0]][key[1]],
                tuple((run.name, _ratio(found, key), run.colour) for run, found in by_run),
                key[0],
            )
            for key in order
        )
        title = SPACES[space].capitalize() + (f", the {_MOST_ROWS} lowest" if len(nodes) > len(rows) else "")
        panels.append(Dots(title, "local / global effective rank", rows, reference=1.0))
    return analysis.figure("collapse-profile", panels)


def _ratio(nodes: Mapping[tuple[int, int], NodeRank], key: tuple[int, int]) -> float:
    return nodes[key].ratio if key in nodes else math.nan


def confusable(analysis: Analysis) -> Figure:
    """The classes that collapse onto each other most, in every run."""
    names, space = analysis.labelling.names[-1], analysis.spaces[0]
    best: dict[tuple[int, int], float] = {}
    for pair in (pair for run in analysis.runs for pair in run.last.spaces[space].pairs):
        best[pair.first, pair.second] = max(best.get((pair.first, pair.second), 0.0), pair.mixing)
    rows = []
    for a, b in sorted(best, key=lambda key: -best[key])[:_PAIRS]:
        marks = tuple((run.name, _mixing_of(run.last.spaces[space], a, b), run.colour) for run in analysis.runs)
        rows.append(DotRow(f"{names[a]} · {names[b]}", marks))
    return analysis.figure("confusable", [Dots("", "mixing", tuple(rows))] if rows else [])


def examples(analysis: Analysis) -> Figure:
    """Images of confusable pairs that are each other's neighbours."""
    names = analysis.labelling.names[-1]
    panels = []
    for run in analysis.runs:
        rows = []
        for pair in run.last.spaces[analysis.spaces[0]].pairs[:_SHOWN]:
            pictures = [
                Picture(row, names[label])
                for first, second in pair.examples[:3]
                for row, label in ((first, pair.first), (second, pair.second))
            ]
            if pictures:
                title = f"{names[pair.first]} · {names[pair.second]}"
                rows.append(PictureRow(title, tuple(pictures), f"mixing {pair.mixing:.2f}"))
        if rows:
            panels.append(Pictures(analysis.titled(run), tuple(rows)))
    return analysis.figure("confusable-examples", panels)


def neighbour_grid(analysis: Analysis, neighbours: dict[str, Pictures]) -> Figure:
    """Figure 15: the images of a random batch that are closest to some anchors."""
    panels = [neighbours[run.name] for run in analysis.runs if run.name in neighbours]
    space = SPACES[analysis.spaces[-1]]
    return analysis.figure("neighbours", panels, retrieved=_RETRIEVED, batch=_BATCH, neighbour_space=space)


def nearest_in_batch(features: Array, labels: Array, names: Sequence[str], seed: int, title: str) -> Pictures:
    """Anchors of a random batch of rows (n, d), the same for every run, with its images of the highest cosine.

    `labels` (n,) are superclasses, -1 unknown.
    """
    rng = np.random.default_rng(seed)
    batch = rng.choice(len(features), min(_BATCH, len(features)), replace=False)
    anchors: list[int] = []
    for fresh in (True, False):
        for place, row in enumerate(batch):
            new = labels[row] not in labels[batch[anchors]] if anchors else True
            if len(anchors) < _ANCHORS and place not in anchors and (new or not fresh):
                anchors.append(place)
    z = unit(features[batch])
    rows = []
    for place in anchors:
        order = [other for other in np.argsort(-(z @ z[place]), kind="stable") if other != place][:_RETRIEVED]
        mine = labels[batch[place]]
        pictures = [Picture(int(batch[place]), "anchor")]
        for other in order:
            theirs = labels[batch[other]]
            name = names[theirs] if theirs >= 0 else "unlabelled"
            good = None if mine < 0 or theirs < 0 else bool(mine == theirs)
            pictures.append(Picture(int(batch[other]), name, good))
        rows.append(PictureRow(names[mine] if mine >= 0 else "unlabelled", tuple(pictures)))
    return Pictures(title, tuple(rows))


def _mixing_of(numbers: Numbers, a: int, b: int) -> float:
    if len(numbers.mixing):
        place = {int(label): index for index, label in enumerate(numbers.classes)}
        return float(numbers.mixing[place[a], place[b]]) if a in place and b in place else float("nan")
    return next((pair.mixing for pair in numbers.pairs if (pair.first, pair.second) == (a, b)), float("nan"))
