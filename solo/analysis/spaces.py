"""Figures of single snapshots: distributions, spectra, points in the plane, the emergent tree, the collapse profile."""

from __future__ import annotations

import math

import numpy as np

from solo.analysis.embedding import TITLES
from solo.analysis.figure import Cloud, Dendrogram, DotRow, Dots, Figure, Group, Lines, Panel, Series
from solo.analysis.labelling import Labelling
from solo.analysis.matrices import similarity
from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.palette import OTHER, SAME, UNKNOWN, category_colours
from solo.analysis.runs import Analysis, Run, Snapshot, View
from solo.eval.tree import EmergentTree

_FRAME = 2.5  # height of a panel of distributions, in those of the last snapshot
_LEAST_SHARE = 1e-8  # of the variance; below it there is only rounding
_MOST_ROWS = 80  # nodes in a profile
_MOST_LEAVES = 150  # leaves of a drawn tree
_MOST_BINS = 200


def space_figures(analysis: Analysis) -> list[Figure]:
    """All of them; those without a number are left out."""
    found: list[Figure | None] = [
        clouds(analysis, view) for view in analysis.views if view.key in analysis.runs[0].last.clouds
    ]
    found += [distributions(analysis), spectra(analysis), trees(analysis), similarity(analysis), profile(analysis)]
    return [figure for figure in found if figure is not None]


def distributions(analysis: Analysis) -> Figure | None:
    """The poster's distributions: cosines of same-superclass and of other pairs, at the end and at the start."""
    panels = []
    for run in analysis.runs:
        for space in analysis.spaces:
            series: list[Series] = []
            for snapshot, start in ((run.last, False), *(((run.first, True),) if len(run.snapshots) > 1 else ())):
                cosine = snapshot.spaces[space].cosine
                if cosine is None:
                    return None
                kinds = (
                    (f"same {analysis.labelling.superlevel}", SAME, cosine.same),
                    ("other pairs", OTHER, cosine.other),
                )
                for name, colour, part in kinds:
                    share = part.histogram.numpy()
                    x = ((np.arange(len(share)) + 0.5) * 2 / len(share) - 1).tolist()
                    density = (share * len(share) / 2).tolist()
                    series.append(Series(name, x, density, colour, dash=start, area=not start, markers=False))
            title = _titled(analysis, run, SPACES[space])
            top = _FRAME * max(max(one.y) for one in series if one.area)
            frame = (0.0, top) if top < max(max(one.y) for one in series) else None
            panels.append(Lines(title, "cosine", "density", tuple(series), y_range=frame, x_range=_filled(series)))
    return Figure(
        "cosine-distribution",
        "Similarity",
        "Two kinds of negatives: distribution of cosines",
        "Filled: the last snapshot; broken: the first, whose narrow peak may leave the frame. The less the two filled "
        "hills overlap, the better a threshold on the cosine finds an anchor's relatives.",
        analysis.protocol["cosine"],
        tuple(panels),
    )


def spectra(analysis: Analysis) -> Figure:
    """The eigenvalues of each space's covariance, as curves."""
    panels = []
    for space in analysis.spaces:
        series = []
        for run in analysis.runs:
            for snapshot, start in ((run.last, False), *(((run.first, True),) if len(run.snapshots) > 1 else ())):
                values = snapshot.spaces[space].eigenvalues
                values = values[values >= _LEAST_SHARE]
                kept = np.unique(np.geomspace(1, max(len(values), 1), _MOST_BINS).astype(int))[: len(values)]
                y = [float(values[place - 1]) for place in kept] if len(values) else []
                series.append(Series(run.name, kept[: len(y)].tolist(), y, run.colour, dash=start, markers=False))
        panels.append(Lines(SPACES[space].capitalize(), "direction", "share of variance", tuple(series), True, True))
    return Figure(
        "spectrum",
        "Emergence",
        "How many directions carry something? Spectrum of the covariance",
        "A line that falls off a cliff is a collapse onto few directions; a gentle slope near −1 on these axes "
        "(alpha-ReQ of about 1) goes with features that transfer. Broken: the first snapshot.",
        analysis.protocol["spectrum"],
        tuple(panels),
    )


def clouds(analysis: Analysis, view: View) -> Figure:
    """Figures 10 and 14: points of one view, of each run, at the start and at the end."""
    labelling = analysis.labelling
    level = labelling.level if view.fine else labelling.superlevel
    labels, names, colours = _coloured(labelling, view)
    groups = [
        Group(names[label] if label >= 0 else "unlabelled", colours[label] if label >= 0 else UNKNOWN, rows)
        for label in sorted(set(labels.tolist()), key=lambda label: (label < 0, label))
        if len(rows := np.flatnonzero(labels == label))
    ]
    texts = _texts(labelling, view)
    common = _start_together(analysis, view)
    panels: list[Panel] = []
    for run in analysis.runs:
        for snapshot in (run.first, run.last) if len(run.snapshots) > 1 else (run.last,):
            if view.key not in snapshot.clouds or (common and snapshot is run.first and run is not analysis.runs[0]):
                continue
            title = _titled(analysis, run, _time_of(snapshot) if run.first.epoch != run.last.epoch else "")
            if common and snapshot is run.first:
                title = _time_of(snapshot).capitalize() + ", the same for all"
            panels.append(Cloud(title, snapshot.clouds[view.key], tuple(groups), texts))
    count = f"{len(view.rows):,} images"
    return Figure(
        f"points-{view.key}",
        "The embedding",
        f"{TITLES[analysis.embedding]}: {view.title[:1].lower()}{view.title[1:]}, coloured by {level}",
        _CLOUD_CAPTIONS[view.key],
        f"{TITLES[analysis.embedding]} of the {SPACES[analysis.spaces[0]]}; {count}, at most {analysis.max_points:,} "
        f"drawn at random (seed {analysis.seed}), the same for all panels; each panel has its own axes, and only "
        "neighbourhoods carry meaning, not distances between far groups.",
        tuple(panels),
        tuple((group.name, group.colour) for group in groups),
    )


_CLOUD_CAPTIONS = {
    "all": "Superclasses gather first. Before training, neighbours share pixels; afterwards they should share meaning.",
    "some": "Fewer colours, the same question: do the islands belong to one superclass each?",
    "inside": "Local collapse lives here: classes of one superclass that lie on top of each other can't be told apart, "
    "however tidy the whole looks.",
}


def trees(analysis: Analysis) -> Figure | None:
    """The emergent tree of each run's last snapshot."""
    panels = []
    for run in analysis.runs:
        numbers = run.last.spaces[analysis.spaces[0]]
        if numbers.tree is None or numbers.tree.num_leaves > _MOST_LEAVES:
            return None
        note = ""
        if numbers.agreement is not None:
            note = f"agreement with the labels {numbers.agreement.cophenetic:.2f}"
        panels.append(_dendrogram(numbers.tree, numbers, analysis.labelling, _titled(analysis, run, note)))
    superlevel = analysis.labelling.superlevel
    return Figure(
        "tree",
        "The emergent tree",
        f"Which {_plural(analysis.labelling.level)} does the embedding put together?",
        f"Names and branches have the colour of their {superlevel}; a branch is coloured only while everything below "
        "it belongs to one. Colours that reach far to the right are superclasses that the embedding found by itself.",
        analysis.protocol["tree"],
        tuple(panels),
        _superclass_legend(analysis.labelling),
    )


def profile(analysis: Analysis) -> Figure:
    """The collapse profile: local over global rank of every node."""
    labelling, panels = analysis.labelling, []
    for space in analysis.spaces:
        nodes = {
            (node.level, node.node): node for node in analysis.runs[0].last.spaces[space].profile if node.level >= 0
        }
        fine_level = max((level for level, _ in nodes), default=0)
        order = [key for key in nodes if key[0] == 0]
        if 0 < fine_level and len(nodes) <= _MOST_ROWS:
            order = [
                key
                for top in order
                for key in (top, *(child for child in nodes if child[0] == 1 and nodes[child].parent == top[1]))
            ]
        by_run = [
            (run, {(node.level, node.node): node for node in run.last.spaces[space].profile}) for run in analysis.runs
        ]
        if len(order) > _MOST_ROWS:
            order = sorted(order, key=lambda key: min(_ratio(found.get(key)) for _, found in by_run))[:_MOST_ROWS]
        rows = []
        for level, node in order:
            names = labelling.names[labelling.superclass + level]
            marks = tuple((run.name, _ratio(found.get((level, node))), run.colour) for run, found in by_run)
            rows.append(DotRow(names[node], marks, level))
        title = f"{SPACES[space].capitalize()}" + (f", the {_MOST_ROWS} lowest" if len(nodes) > len(rows) else "")
        panels.append(Dots(title, "local / global effective rank", tuple(rows), reference=1.0))
    return Figure(
        "collapse-profile",
        "Local collapse",
        "Where does it collapse? Local against global rank of every node",
        "Each row is a node of the label tree; its dot is the effective rank of its images over that of as many images "
        "drawn from everywhere. At the dotted line the node is as rich as the whole; far left, it has collapsed.",
        analysis.protocol["rank"],
        tuple(panels),
    )


def _dendrogram(tree: EmergentTree, numbers: Numbers, labelling: Labelling, title: str) -> Dendrogram:
    order = tree.order()
    m = tree.num_leaves
    parents = labelling.parents()
    palette = category_colours(len(labelling.names[labelling.superclass]))
    of_leaf = [parents[label] for label in numbers.classes.tolist()]
    place = {leaf: float(position) for position, leaf in enumerate(order)}
    height: dict[int, float] = dict.fromkeys(range(m), 0.0)
    group: dict[int, int] = dict(enumerate(of_leaf))
    links, colours = [], []
    for step, (left, right, at, _) in enumerate(tree.merges.tolist()):
        a, b = int(left), int(right)
        links.append(((height[a], at, at, height[b]), (place[a], place[a], place[b], place[b])))
        group[m + step] = group[a] if group[a] == group[b] else -1
        colours.append(palette[group[m + step]] if group[m + step] >= 0 else "")
        place[m + step], height[m + step] = (place[a] + place[b]) / 2, at
    names = [labelling.names[-1][label] for label in numbers.classes.tolist()]
    leaf_colours = [palette[parent] if parent >= 0 else UNKNOWN for parent in of_leaf]
    return Dendrogram(
        title,
        "cosine distance at which they join",
        tuple(links),
        tuple(colours),
        tuple(names[leaf] for leaf in order),
        tuple(leaf_colours[leaf] for leaf in order),
    )


def _start_together(analysis: Analysis, view: View) -> bool:
    """Whether several runs began with the same network, so that its picture is needed once."""
    first = [run.first.clouds.get(view.key) for run in analysis.runs if len(run.snapshots) > 1]
    return len(first) == len(analysis.runs) > 1 and all(
        one is not None and first[0] is not None and np.array_equal(one, first[0]) for one in first
    )


def _coloured(labelling: Labelling, view: View) -> tuple[np.ndarray, tuple[str, ...], dict[int, str]]:  # type: ignore[type-arg]
    """Labels of the view's images, names and colours of what occurs among them."""
    level = -1 if view.fine else labelling.superclass
    labels, names = labelling.labels[view.rows, level], labelling.names[level]
    present = sorted(set(labels[labels >= 0].tolist())) if view.fine else list(range(len(names)))
    return labels, names, dict(zip(present, category_colours(len(present)), strict=True))


def _texts(labelling: Labelling, view: View) -> list[str]:
    found = []
    for row in view.rows:
        fine, coarse = labelling.fine[row], labelling.coarse[row]
        parts = [labelling.names[-1][fine] if fine >= 0 else "", labelling.names[labelling.superclass][coarse]]
        found.append(" · ".join(dict.fromkeys(part for part in parts if part)))
    return found


def _superclass_legend(labelling: Labelling) -> tuple[tuple[str, str], ...]:
    names = labelling.names[labelling.superclass]
    return tuple(zip(names, category_colours(len(names)), strict=True)) if len(names) <= 40 else ()


def _filled(series: list[Series]) -> tuple[float, float]:
    """The part of the axis where something is."""
    x = np.concatenate([np.asarray(s.x)[np.asarray(s.y) > 1e-3] for s in series])
    return (max(float(x.min()) - 0.05, -1.02), min(float(x.max()) + 0.05, 1.02)) if len(x) else (-1.0, 1.0)


def _titled(analysis: Analysis, run: Run, text: str) -> str:
    name = run.name if len(analysis.runs) > 1 else ""
    return ", ".join(part for part in (name, text) if part)


def _time_of(snapshot: Snapshot) -> str:
    if snapshot.epoch == 0:
        return "before training"
    return "" if snapshot.epoch is None else f"after {snapshot.epoch} epoch{'s' * (snapshot.epoch != 1)}"


def _ratio(node: object) -> float:
    return float(getattr(node, "ratio", math.nan))


def _plural(name: str) -> str:
    return f"{name}es" if name.endswith("s") else f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
