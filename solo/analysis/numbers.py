"""What is known of runs: who belongs to whom, all numbers of each embedding, snapshots, and which images are drawn.

A flat data set gets its superclasses, and one without labels its classes too, from one embedding, the same ones for all
models and epochs, so that these stay comparable.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solo.analysis.figure import Figure, Legend, Panel, is_empty, words_of
from solo.args.eval_schema import AnalyzeCfg
from solo.errors import UserError
from solo.eval import classes as by_class
from solo.eval import embedding as measures
from solo.eval.classes import EmergentTree, TreeAgreement, centroids, compare_with_labels, emergent_tree
from solo.eval.features import Array, Features, FeatureTable, draw
from solo.eval.intervals import UNDEFINED, Interval, cuts
from solo.eval.knn import hits, level_rankings, neighbour_intervals

SPACES = {"backbone": "representation", "projector": "projection"}
COSINE_ANCHORS = 4000  # each against all images: hundreds of millions of pairs are enough for a distribution
_RANDOM_SUPERCLASSES = 5  # as in figure 10 of the paper


@dataclass(frozen=True)
class Labelling:
    """Labels of n images at L levels."""

    labels: Array  # (n, L) node numbers, coarse first, -1 unknown
    levels: tuple[str, ...]  # names of the levels
    names: tuple[tuple[str, ...], ...]  # of the nodes of each level
    superclass: int  # the column of the superclasses; the classes are the last column. Equal to it in a tiny label set
    given: int  # how many of the last columns are labels of the data; the others emerged
    protocol: str  # one sentence on where they come from

    @property
    def fine(self) -> Array:
        """(n,) class of each image."""
        return np.asarray(self.labels[:, -1])

    @property
    def coarse(self) -> Array:
        """(n,) superclass of each image."""
        return np.asarray(self.labels[:, self.superclass])

    @property
    def level(self) -> str:
        """Name of the classes' level."""
        return self.levels[-1]

    @property
    def superlevel(self) -> str:
        """Name of the superclasses' level."""
        return self.levels[self.superclass]

    def parents(self) -> Array:
        """Superclass of each class, -1 where no image says it."""
        found, known = np.full(len(self.names[-1]), -1), (self.fine >= 0) & (self.coarse >= 0)
        np.maximum.at(found, self.fine[known], self.coarse[known])  # of several superclasses the last one
        return found


def find_labelling(reference: Features, options: AnalyzeCfg) -> Labelling:
    """Labels, completed from the model that suggests what is missing; a `UserError` where there is no such level."""
    superclass = options.superclass
    labels = reference.val.labels.numpy()
    levels = reference.levels
    features = reference.val.features.numpy()
    if not levels or (labels < 0).all():
        n = len(features)
        if n < 8:
            raise UserError(f"{reference.name}: {n} images are too few to look for clusters; give at least 8")
        members = by_class.cluster(features, min(options.clusters or max(10, min(60, n // 20)), n // 2), options.seed)
        _, numbers, sizes = np.unique(members, return_inverse=True, return_counts=True)
        fine, count = np.argsort(np.argsort(-sizes, kind="stable"))[numbers], len(sizes)  # the largest cluster first
        where = f"{count} k-means clusters of unit features of {reference.name} (seed {options.seed})"
        text = f"no labels; {where}, the same for all models"
        clustered = tuple(f"cluster {number + 1}" for number in range(count))
        found = Labelling(fine[:, None], ("cluster",), (clustered,), 0, 0, text)
        return found if count < 4 else _grouped(found, features, f"{text}; groups: cut of the tree of their centroids")
    names = tuple(reference.class_names(level) for level in range(len(levels)))
    text = f"{', '.join(levels)}: labels of the data set"
    if superclass is None and len(levels) == 1:
        found = Labelling(labels, levels, names, 0, 1, f"{text}, without a level above")
        how = f"groups of classes, cut from the tree of class centroids of {reference.name}, the same for all models"
        few = len(np.unique(labels[labels >= 0])) < 4
        return found if few else _grouped(found, features, f"{text}; superclasses are not given: {how}")
    if superclass is None:
        superclass, text = -2, f"{text}; superclasses are the level '{levels[-2]}'"
    columns = {key: at for at, level in enumerate(levels) for key in (level, at, at - len(levels))}
    if superclass not in columns:
        known = ", ".join(levels)
        raise UserError(f"superclass={superclass!r} is no level of the labels; choose {known}, or an index")
    return Labelling(labels, levels, names, columns[superclass], len(levels), text)


def _grouped(flat: Labelling, features: Array, protocol: str) -> Labelling:
    """Four classes or more with groups above, from the tree of their centroids; of given ones named by members."""
    fine = flat.fine
    means, known, _ = centroids(features, fine)
    tree, m = emergent_tree(means), len(means)
    # Cut at the widest gap into 2/3 to 2 times the square root of its leaves.
    heights = tree.merges[::-1, 2]  # of the root first; k groups stand between heights k - 2 and k - 1
    some = range(math.ceil(2 * math.sqrt(m) / 3), min(math.floor(2 * math.sqrt(m)), m - 1) + 1)
    groups = np.full(int(known.max()) + 2, -1)  # the last: of -1
    groups[known] = tree.cut(max(some, key=lambda k: (heights[k - 2] - heights[k - 1], -k)))
    labels = np.stack([groups[fine], fine], axis=1)
    names = []
    for group in range(int(groups.max()) + 1):
        members = [flat.names[0][label] for label in known if groups[label] == group]
        names.append(", ".join(members[:2]) + (f" +{len(members) - 2}" if len(members) > 2 else ""))
        if not flat.given:
            names[-1] = f"group {chr(ord('A') + group) if group < 26 else group + 1}"
    return Labelling(labels, ("group", flat.level), (tuple(names), flat.names[0]), 0, flat.given, protocol)


@dataclass(frozen=True)
class Numbers:
    """What is known of one embedding; see the modules of `solo.eval` for units and ranges."""

    images: int  # how many
    dim: int  # numbers of each
    effective_rank: float  # centred
    rankme: float  # not centred
    alpha_req: float  # decay of the covariance's eigenvalues
    lidar: float  # of augmented views; NaN where there are none
    uniformity: float  # over at most 5,000 images
    eigenvalues: Array  # of the covariance as shares of their sum, the largest first, without zeros
    knn_acc1: dict[str, float]  # top-1 accuracy in percent of each level, leave-one-out
    knn_interval: dict[str, Interval]  # its 95 % interval, in percent; NaN where not all images are looked at
    cosine: measures.CosineDistributions | None  # of the superclasses; None with fewer than two labelled images
    selection: measures.Selection  # what the adaptive threshold would select
    profile: list[by_class.NodeRank]  # ranks inside every node of the label tree
    tree: EmergentTree | None  # of class centroids; None with fewer than two classes
    classes: Array  # (m,) the classes that are the tree's leaves
    agreement: TreeAgreement | None  # of the tree with the given labels; None where no level above the classes is given
    mixing: Array  # (m, m) of the classes, empty for more than 200
    pairs: list[by_class.ConfusablePair]  # classes that collapse onto each other, the worst first

    def at(self, of: "Value") -> Any:
        """What a function gives, or the number at a path such as `cosine.gap`; NaN where a part of it isn't there."""
        if not isinstance(of, str):
            return of(self)
        found: Any = self
        for name in of.split("."):
            found = getattr(found, name, math.nan)
        return found

    @property
    def superclasses(self) -> list[by_class.NodeRank]:
        """The profile's superclasses of enough images to compare local with global rank."""
        return [node for node in self.profile if node.level == 0 and math.isfinite(node.ratio)]

    @property
    def local_rank(self) -> tuple[float, float, float]:
        """Lowest, mean and highest effective rank inside the superclasses."""
        found = [n.effective_rank for n in self.profile if n.level == 0 and math.isfinite(n.effective_rank)]
        return (min(found), sum(found) / len(found), max(found)) if found else (math.nan,) * 3

    @property
    def mean_ratio(self) -> float:
        """Mean over the superclasses of local over global effective rank."""
        found = [node.ratio for node in self.superclasses]
        return sum(found) / len(found) if found else math.nan

    def mixing_of(self, a: int, b: int) -> float:
        """Of two of the classes, a < b; NaN where it isn't known."""
        if len(self.mixing):
            return float(self.mixing[tuple(np.searchsorted(self.classes, (a, b)))])
        return next((pair.mixing for pair in self.pairs if (pair.first, pair.second) == (a, b)), math.nan)


# A number's path, or what gives it, or its lower end, itself and its upper end.
Value = str | Callable[[Numbers], "float | tuple[float, float, float]"]


def measure(features: Tensor, labelling: Labelling, options: AnalyzeCfg, views: Tensor | None) -> Numbers:
    """Measure one embedding (n, d), finite, n >= 2; LiDAR of augmented views (m, q, d) of some of its images."""
    rows = features.numpy()
    near = by_class.neighbours(rows, options.k, options.max_anchors, options.seed)
    labels = torch.from_numpy(labelling.labels)
    fine, coarse = labelling.fine, labels[:, labelling.superclass]
    similarity, found = torch.from_numpy(near.similarity), torch.from_numpy(near.rows)
    votes = level_rankings(similarity, found, labels, labels, temperature=options.temperature)
    right = hits(votes, labels[torch.from_numpy(near.queries)])  # leave-one-out, of each level
    accuracies = [100 * float(one["acc1"].double().mean()) if len(one["acc1"]) else math.nan for one in right]
    intervals = [UNDEFINED] * len(right)
    if len(near.queries) == len(features):
        table, halves = FeatureTable(features, labels), cuts(len(features), options.seed)
        ends = neighbour_intervals(table, right, options.k, options.temperature, halves, features.device)
        intervals = [(100 * one["acc1"][0], 100 * one["acc1"][1]) for one in ends]
    means, classes, _ = centroids(rows, fine)
    tree = emergent_tree(means) if 2 <= len(classes) <= 10_000 else None
    agreement = None
    if tree is not None and labelling.given > 1:
        known, first = np.unique(fine, return_index=True)  # a class's first image says where it belongs
        agreement = compare_with_labels(tree, labelling.labels[first[known >= 0]])
    values = measures.spectrum(features, center=True)
    shares = values[values > 0].square()
    anchors: Any = {"max_anchors": min(options.max_anchors, COSINE_ANCHORS), "seed": options.seed}
    return Numbers(
        images=len(rows),
        dim=rows.shape[1],
        effective_rank=measures.entropy_rank(values),
        rankme=measures.rankme(features),
        alpha_req=measures.power_law(values.square()),
        lidar=math.nan if views is None else measures.lidar(views),
        uniformity=measures.uniformity(features[draw(len(features), 5000, options.seed)]),
        eigenvalues=(shares / shares.sum() if len(shares) else shares).numpy(),
        knn_acc1=dict(zip(labelling.levels, accuracies, strict=True)),
        knn_interval=dict(zip(labelling.levels, intervals, strict=True)),
        cosine=measures.cosine_distributions(features, coarse, **anchors) if int((coarse >= 0).sum()) > 1 else None,
        selection=measures.selection(features, coarse, quantile=options.quantile, **anchors),
        profile=by_class.collapse_profile(features, labels[:, labelling.superclass :]),
        tree=tree,
        classes=classes,
        agreement=agreement,
        mixing=by_class.mixing_matrix(fine, near, classes) if 0 < len(classes) <= 200 else np.empty((0, 0)),
        pairs=by_class.confusable_pairs(rows, fine, near),
    )


class View(NamedTuple):
    """Images that are drawn as points, together."""

    key: str  # short name; those `inside` a superclass are coloured by class, others by superclass
    title: str  # which images
    rows: Array  # their row numbers


@dataclass(frozen=True)
class Snapshot:
    """One model at one time."""

    name: str  # as the source calls it
    epoch: int | None  # epochs trained; None where nobody knows
    spaces: dict[str, Numbers]  # numbers of the `backbone` and the `projector`
    # points (len(view.rows), 2) of each view's key, of the backbone; empty where it isn't drawn
    clouds: dict[str, Array] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # how the features came about


@dataclass(frozen=True)
class Run:
    """One or more snapshots of one training, in order."""

    name: str
    snapshots: tuple[Snapshot, ...]
    colour: str  # in every figure

    @property
    def last(self) -> Snapshot:
        """The latest snapshot: what single-model figures show."""
        return self.snapshots[-1]

    @property
    def ends(self) -> list[tuple[Snapshot, bool]]:
        """The latest snapshot, and the earliest where there are two; the flag is True for the latter."""
        return [(self.last, False), *([(self.snapshots[0], True)] if len(self.snapshots) > 1 else [])]


@dataclass(frozen=True)
class Analysis:
    """Everything the figures and the report are made of."""

    title: str  # of the report
    runs: tuple[Run, ...]  # at least one
    labelling: Labelling  # the same for all
    views: tuple[View, ...]  # what is drawn as points
    options: AnalyzeCfg  # how it was analysed
    protocol: dict[str, str]  # sentences that hold for every number, by topic

    @property
    def over_time(self) -> bool:
        """Whether any run has several snapshots."""
        return any(len(run.snapshots) > 1 for run in self.runs)

    @property
    def spaces(self) -> list[str]:
        """The spaces that every snapshot has, the representation first."""
        held = [snapshot.spaces for run in self.runs for snapshot in run.snapshots]
        return [space for space in SPACES if all(space in one for one in held)] or [*self.runs[0].last.spaces][:1]

    def figure(self, key: str, panels: Sequence[Panel], legend: Legend = None, **facts: Any) -> Figure:
        """What there is to see in panels, under the words of `page/figures.yaml` for `key`, filled with `facts`."""
        spaces = [SPACES[space] for space in (self.spaces[0], self.spaces[-1])]
        facts |= {"main_space": spaces[0], "space": spaces[0].capitalize(), "last_space": spaces[1].capitalize()}
        facts |= {"level": self.labelling.level, "superlevel": self.labelling.superlevel, "seed": self.options.seed}
        words = {name: text.format(**facts, **self.protocol) for name, text in words_of("figures")[key].items()}
        return Figure(key, **words, panels=tuple(one for one in panels if not is_empty(one)), legend=legend)

    def titled(self, run: Run, text: str = "") -> str:
        """The title of a run's panel: its name, where there are several, and more."""
        return ", ".join(part for part in (run.name if len(self.runs) > 1 else "", text) if part)


def time_of(epoch: int | None) -> str:
    """So many epochs, in words; empty where nobody knows."""
    if epoch == 0:
        return "before training"
    return "" if epoch is None else f"after {epoch} epoch{'s' * (epoch != 1)}"


def choose_views(labelling: Labelling, worst: int | None, options: AnalyzeCfg) -> tuple[View, ...]:
    """Figure 10: all images by superclass; of five random ones; and inside one by class (`worst`, or the largest)."""
    known = np.flatnonzero(labelling.coarse >= 0)
    present = np.unique(labelling.coarse[known])
    found = [View("all", "All images", known if len(known) else np.arange(len(labelling.labels)))]
    if len(present) > _RANDOM_SUPERCLASSES + 1:
        chosen = np.random.default_rng(options.seed).choice(present, _RANDOM_SUPERCLASSES, replace=False)
        inside = np.flatnonzero(np.isin(labelling.coarse, chosen))
        found.append(View("some", f"{_RANDOM_SUPERCLASSES} random superclasses", inside))
    if labelling.superlevel != labelling.level and len(present):
        parents = labelling.parents()
        sizes = {int(group): int((parents == group).sum()) for group in present}
        group = worst if worst in sizes and sizes[worst] > 1 else max(sizes, key=lambda key: sizes[key])
        if sizes[group] > 1:
            inside = np.flatnonzero((labelling.coarse == group) & (labelling.fine >= 0))
            found.append(View("inside", f"Inside “{labelling.names[labelling.superclass][group]}”", inside))
    most = options.max_points
    drawn = [one._replace(rows=one.rows[draw(len(one.rows), most, options.seed).numpy()]) for one in found]
    return tuple(one for one in drawn if len(one.rows) >= 2)
