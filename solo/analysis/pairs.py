"""Local collapse: ranks inside the nodes, the classes that fall onto each other; and the neighbours of some images."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from solo.analysis.figure import DotRow, Dots, Figure, Picture, PictureRow, Pictures
from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.runs import Analysis
from solo.eval.profile import NodeRank
from solo.eval.rows import Array, unit

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


def worst_pairs(analysis: Analysis) -> list[tuple[int, int]]:
    """Pairs of classes in the order of their highest mixing in any run."""
    best: dict[tuple[int, int], float] = {}
    for run in analysis.runs:
        for pair in run.last.spaces[analysis.spaces[0]].pairs:
            key = (pair.first, pair.second)
            best[key] = max(best.get(key, 0.0), pair.mixing)
    return sorted(best, key=lambda key: -best[key])[:_PAIRS]


def confusable(analysis: Analysis) -> Figure:
    """The classes that collapse onto each other most, in every run."""
    names = analysis.labelling.names[-1]
    rows = []
    for a, b in worst_pairs(analysis):
        marks = tuple(
            (run.name, _mixing_of(run.last.spaces[analysis.spaces[0]], a, b), run.colour) for run in analysis.runs
        )
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
