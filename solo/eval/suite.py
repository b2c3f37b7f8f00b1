"""All measures of one model's features, for all classes and for those that pretraining has and has not seen.

Zhang et al., Use All The Labels (CVPR 2022), section 4: https://arxiv.org/abs/2204.13207.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo.errors import UserError
from solo.eval.clustering import agreement, agreement_inside
from solo.eval.features import Features, FeatureTable
from solo.eval.graded import GradedRetrieval, retrieve_graded
from solo.eval.hierarchy import consistent, hierarchy_scores
from solo.eval.intervals import UNDEFINED, Interval, coin, cuts, of_classes, of_mean
from solo.eval.json_numbers import Numbers, percent, plain, statistic, told
from solo.eval.knn import hits
from solo.eval.paths import calibration_error, cpcc, full_path, mean_per_class
from solo.eval.predict import intervals_of, knn_ranking, linear_ranking, neighbour_intervals
from solo.eval.retrieval import Retrieval, retrieve
from solo.eval.rows import draw
from solo.eval.scores import Judged, judge, mean_average_precision
from solo.eval.tree import centroids, compare_with_labels, emergent_tree
from solo.taxonomy import Taxonomy

MEASURES = ("linear", "knn", "retrieval", "clustering", "hierarchy")
_MOST_CLASSES = 10_000  # of an emergent tree
_PERMUTED_CLASSES = 500  # above, random re-labellings take too long


@dataclass(frozen=True)
class Protocol:
    """What is measured, and how."""

    # some of `MEASURES`; `hierarchy` looks at the predictions of `linear` and `knn`
    measures: tuple[str, ...] = MEASURES
    l2: float = 1e-4  # linear, strength of the penalty
    linear_steps: int = 1000  # linear, steps of L-BFGS at most
    k: int = 20  # kNN, neighbours that vote
    temperature: float = 0.07  # kNN, of the weights exp(cosine / temperature)
    top_k: tuple[int, ...] = (1, 5, 10)  # retrieval
    max_queries: int = 10_000  # retrieval; more are drawn at random
    intervals: bool = True  # whether the 95 % intervals are found, too
    seed: int = 0  # of all draws


def evaluate(features: Features, protocol: Protocol, device: torch.device) -> list[Numbers]:
    """Measure `features`: one entry for all classes, and if there are unseen ones, one each for seen and unseen.

    Returns:
        Plain values: `classes`, `images`, `levels` (coarse first, a dict of numbers each; `<name>_ci` is the interval).
        Accuracies, top-k, R-precision and MAP@R are in percent, NMI and AMI in 0..1; None is what is not defined.

    Raises:
        UserError: there are no labels, or fewer than two images.
    """
    if not features.levels:
        raise UserError(f"{features.name} has no labels to measure features by; solo analyze works without")
    if len(features.val) < 2:
        raise UserError(f"{features.name} has one image to measure, which can't be compared; give at least two")
    return [_measure(which, part, protocol, device) for which, part in parts(features)]


def parts(features: Features) -> Iterator[tuple[str, Features]]:
    """All rows, and those of seen and of unseen classes."""
    yield "all", features
    for name in ("seen", "unseen") if features.unseen else ():
        tables = [
            None if table is None else _of_classes(features, table, name) for table in (features.val, features.train)
        ]
        val, train = tables
        if val is None or int(val.sum()) < 2:  # one image has nothing to be compared with
            continue
        bank = features.train.rows(train) if features.train is not None and train is not None and train.any() else None
        queries = None if features.queries is None else features.queries[val]
        yield name, replace(features, val=features.val.rows(val), train=bank, queries=queries)


def _of_classes(features: Features, table: FeatureTable, which: str) -> Tensor:
    """(n,) bool: rows whose class is known, and seen or unseen."""
    leaves = torch.from_numpy(classes_of(features, table.labels))
    names = features.tree.class_names if features.tree else features.class_names(len(features.levels) - 1)
    unseen = torch.tensor([name in features.unseen for name in names] + [False])  # the last: of -1
    return (unseen[leaves] if which == "unseen" else ~unseen[leaves]) & (leaves >= 0)


def classes_of(features: Features, labels: Tensor) -> np.ndarray:
    """The class (leaf) of each row of labels (n, L), -1 unknown."""
    tree = features.tree
    if tree is None or not tree.is_ragged:
        return labels[:, -1].numpy()
    rows, which = np.unique(labels.numpy(), axis=0, return_inverse=True)
    return np.array([tree.leaf_of(row) for row in rows.tolist()])[which.reshape(-1)]


def _measure(which: str, features: Features, protocol: Protocol, device: torch.device) -> Numbers:
    val, train, queries, tree = features.val, features.train, features.queries, features.tree
    levels = [_counts(name, column) for name, column in zip(features.levels, val.labels.T, strict=True)]
    truth = _with_classes(features, val)
    bank = None if train is None else FeatureTable(train.features, _with_classes(features, train))
    toss = coin(val.features)
    classes = truth[:, -1].numpy()
    rankings: dict[str, list[Tensor]] = {}
    measured: list[list[Numbers]] = []
    judged: Judged | None = None
    if "linear" in protocol.measures and bank is not None:
        rankings["linear"], model = linear_ranking(
            bank, val.features, truth, protocol.l2, protocol.linear_steps, device
        )
        right = hits(rankings["linear"], truth)
        measured.append(_accuracies("linear", right, intervals_of(right, toss), protocol))
        measured.append(_per_class("linear", rankings["linear"], truth, protocol))
        measured.append([{"linear_gap": plain(gap, 6), "linear_gradient": plain(size, 6)} for gap, size in model.left])
        judged = judge(model, val.features, classes, tree)
        measured.append(_calibration(judged, rankings["linear"], truth, protocol))
    if "knn" in protocol.measures:
        rankings["knn"] = knn_ranking(bank, FeatureTable(val.features, truth), protocol.k, protocol.temperature, device)
        right = hits(rankings["knn"], truth)
        ends = intervals_of(right, toss)
        if bank is None and protocol.intervals:
            where, how = val.features.to(device), (protocol.k, protocol.temperature)
            ends = neighbour_intervals(where, truth, right, *how, cuts(len(val), protocol.seed))
        measured.append(_accuracies("knn", right, ends, protocol))
        measured.append(_per_class("knn", rankings["knn"], truth, protocol, bank is not None))
    if "retrieval" in protocol.measures:
        measured.append(_retrieval(features, protocol, device))
    if "clustering" in protocol.measures:
        measured.append([_clustering(val, level, protocol) for level in range(len(levels))])
    for numbers in measured:
        for row, found in zip(levels, numbers, strict=False):  # the classes of a ragged tree come last
            row |= found
    images = {"val": len(val), "train": 0 if train is None else len(train)}
    if queries is not None:
        images |= {"queries": int(queries.sum()), "gallery": int((~queries).sum())}
    result: Numbers = {"classes": which, "images": images, "levels": levels}
    if "hierarchy" in protocol.measures and tree is not None:
        result["hierarchy"] = _hierarchy(tree, rankings, val, classes, protocol, bank is not None)
        if judged is not None and tree.num_levels > 1:
            values = torch.from_numpy(judged.hops[np.isfinite(judged.hops)])
            result["hierarchy"]["linear"] |= percent({"hops": values}, {"hops": of_mean(values)}, protocol.intervals)
            result["hierarchy"]["crm"] = _mistakes(tree, classes, judged.careful)
        if "retrieval" in protocol.measures and tree.num_levels > 1:
            asked = _asked(features, protocol)
            graded = retrieve_graded(val.features.to(device), val.labels, **asked)
            result["hierarchy"]["retrieval"] = _of_queries(graded, protocol)
    if judged is not None and tree is None and len(levels) > 1 and int(truth.max()) < 2:
        result["several"] = _several(judged, truth.numpy(), levels, protocol)
    return result


def _per_class(
    name: str, ranking: Sequence[Tensor], truth: Tensor, protocol: Protocol, independent: bool = True
) -> list[Numbers]:
    """Accuracy averaged over the classes of each level."""
    found = []
    for top, column in zip(ranking, truth.numpy().T, strict=True):
        right = top[:, 0].numpy() == column
        ends = of_classes(right, column) if protocol.intervals and independent else None
        found.append(told(f"{name}_mean_per_class", mean_per_class(right, column), ends))
    return found


def _calibration(judged: Judged, ranking: Sequence[Tensor], truth: Tensor, protocol: Protocol) -> list[Numbers]:
    """Of each level's own classifier, and of the classes' probabilities added up to the level."""
    found = []
    for level, column in enumerate(truth.numpy().T):
        own = ranking[level][:, 0].numpy() == column, judged.confidence[:, level]
        both = {"linear_ece": own}
        if level < judged.summed.shape[1]:
            both["linear_ece_summed"] = judged.summed[:, level] == column, judged.summed_confidence[:, level]
        numbers: Numbers = {}
        for name, (right, confidence) in both.items():
            sure, hit = confidence[column >= 0], right[column >= 0]
            measure = lambda rows, sure=sure, hit=hit: calibration_error(sure[rows], hit[rows])  # noqa: E731
            numbers |= statistic(name, measure, len(hit), protocol.intervals)
        found.append(numbers)
    return found


def _several(judged: Judged, labels: np.ndarray, levels: list[Numbers], protocol: Protocol) -> Numbers:
    """Columns that say whether an image has a label: average precision, of each added to `levels`, and its mean."""
    for place, row in enumerate(levels):
        one = slice(place, place + 1)
        row["linear_ap"] = plain(100 * mean_average_precision(judged.first[:, one], labels[:, one]))
    numbers: Numbers = {"labels": labels.shape[1], "images": len(labels)}
    measure = lambda rows: mean_average_precision(judged.first[rows], labels[rows])  # noqa: E731
    numbers |= statistic("map", measure, len(labels), protocol.intervals, 0.125 / labels.shape[1])
    # The last of the eleven recalls is one image's, a label: that varies as no part of the images shows.
    eleven = mean_average_precision(judged.first, labels, 11)
    return numbers | told("map_11", eleven, UNDEFINED if protocol.intervals else None)


def _counts(name: str, column: Tensor) -> Numbers:
    known = column[column >= 0].numpy()
    return {"level": name, "classes": len(np.unique(known)), "images": len(known), "unknown": len(column) - len(known)}


def _with_classes(features: Features, table: FeatureTable) -> Tensor:
    """The labels, the last column of which is the class; in a ragged tree that is one more."""
    if features.tree is None or not features.tree.is_ragged:
        return table.labels
    classes = torch.from_numpy(classes_of(features, table.labels))
    return torch.cat([table.labels, classes[:, None]], dim=1)


def _accuracies(
    name: str, each: list[dict[str, Tensor]], ends: list[dict[str, Interval]], protocol: Protocol
) -> list[Numbers]:
    """Top-1 and top-5 with their intervals."""
    return [percent(*one, protocol.intervals, f"{name}_{{}}") for one in zip(each, ends, strict=True)]


def _hierarchy(
    tree: Taxonomy,
    rankings: dict[str, list[Tensor]],
    val: FeatureTable,
    classes: np.ndarray,
    protocol: Protocol,
    voters: bool,
) -> Numbers:
    """Of the predictions of each classifier, and of the tree of the classes' mean features."""
    numbers: Numbers = {}
    toss = coin(val.features)
    for name, ranking in rankings.items():
        own = _mistakes(tree, classes, ranking[-1][:, 0].numpy())
        if tree.num_levels > 1:
            predicted = torch.stack([top[:, 0] for top in ranking[: tree.num_levels]], dim=1).numpy()
            labels = val.labels.numpy()
            judged = {"consistency": consistent(tree, predicted, labels), "full_path": full_path(predicted, labels)}
            each = {key: torch.from_numpy(right) for key, right in judged.items()}
            # Where the measured images vote themselves, they are not independent.
            own |= percent(
                each, intervals_of([each], toss)[0] if voters or name == "linear" else {}, protocol.intervals
            )
        numbers[name] = own
    present = np.unique(classes[classes >= 0])
    if tree.num_levels > 1 and 2 < len(present) <= _MOST_CLASSES:
        means, leaves, _ = centroids(val.features.numpy(), classes)
        paths = np.array(tree.path_table())[leaves]
        permutations = 199 if len(leaves) <= _PERMUTED_CLASSES else 0
        agrees = compare_with_labels(emergent_tree(means), paths, permutations, protocol.seed)
        numbers["tree"] = {key: plain(getattr(agrees, key)) for key in ("cophenetic", "p_value", "gamma", "recovered")}
        numbers["tree"]["cpcc"] = plain(cpcc(tree, means, leaves))
    return numbers


def _mistakes(tree: Taxonomy, classes: np.ndarray, best: np.ndarray) -> Numbers:
    """How far predicted classes (n,) are from the true ones (n,)."""
    found = hierarchy_scores(tree, classes, best)
    own = {key: plain(getattr(found, key)) for key in ("severity", "distance", "precision", "recall", "f1")}
    return own | {"mistakes": found.mistakes, "images": found.images, "unknown": found.unknown}


def _asked(features: Features, protocol: Protocol) -> dict[str, Any]:
    """Queries, gallery and halves."""
    which, count = features.queries, len(features.val)
    queries = torch.arange(count) if which is None else which.nonzero()[:, 0]
    queries = queries[draw(len(queries), protocol.max_queries, protocol.seed)]
    halves = cuts(count, protocol.seed) if protocol.intervals else None
    return {"queries": queries, "is_gallery": None if which is None else ~which, "cuts": halves}


def _of_queries(one: Retrieval | GradedRetrieval, protocol: Protocol) -> Numbers:
    counts = {"queries": len(one.rows), "queries_alone": one.alone, "queries_unknown": one.unknown}
    return percent(one.values(), one.intervals, protocol.intervals) | counts


def _retrieval(features: Features, protocol: Protocol, device: torch.device) -> list[Numbers]:
    asked, val = _asked(features, protocol), features.val
    found = retrieve(val.features.to(device), val.labels, top_k=protocol.top_k, **asked)
    numbers = (_of_queries(one, protocol) for one in found)
    return [{f"retrieval_{key}" if key.startswith("top") else key: x for key, x in one.items()} for one in numbers]


def _clustering(val: FeatureTable, level: int, protocol: Protocol) -> Numbers:
    features, labels = val.features.numpy(), val.labels.numpy()
    whole = agreement(features, labels[:, level], protocol.seed)
    numbers: Numbers = {"nmi": plain(whole.nmi), "ami": plain(whole.ami)}
    if level:
        inside = agreement_inside(features, labels[:, level], labels[:, level - 1], protocol.seed)
        numbers |= {"nmi_inside": plain(inside.nmi), "ami_inside": plain(inside.ami), "groups_inside": inside.groups}
    return numbers
