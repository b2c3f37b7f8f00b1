"""All measures of one model's features, for all classes and for those that pretraining has and has not seen.

Zhang et al., Use All The Labels (CVPR 2022), section 4: https://arxiv.org/abs/2204.13207. Numbers are as
`evaluate.json` holds them: in percent, rounded, `<name>_ci` their intervals, null undefined.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo.errors import UserError
from solo.eval import intervals, predictions
from solo.eval.classes import agreement, agreement_inside
from solo.eval.features import Array, Features, FeatureTable, draw
from solo.eval.intervals import UNDEFINED, Interval
from solo.eval.knn import hits, knn_ranking, neighbour_intervals
from solo.eval.linear import linear_ranking
from solo.eval.retrieval import Retrieval, retrieve, retrieve_graded
from solo.eval.tree import centroids, compare_with_labels, cpcc, emergent_tree
from solo.taxonomy import Taxonomy

MEASURES = ("linear", "knn", "retrieval", "clustering", "hierarchy")
_MOST_CLASSES = 10_000  # of an emergent tree
_PERMUTED_CLASSES = 500  # above, random re-labellings take too long
Numbers = dict[str, Any]


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

    Plain values: `classes`, `images`, `levels` (coarse first, a dict of numbers each; `<name>_ci` is the interval).
    Accuracies, top-k, R-precision and MAP@R are in percent, NMI and AMI in 0..1; None is what is not defined. A
    `UserError` without labels, or of fewer than two images.
    """
    if not features.levels:
        raise UserError(f"{features.name} has no labels to measure features by; solo analyze works without")
    if len(features.val) < 2:
        raise UserError(f"{features.name} has one image to measure, which can't be compared; give at least two")
    return [_measure(which, part, protocol, device) for which, part in parts(features)]


def parts(features: Features) -> Iterator[tuple[str, Features]]:
    """All rows, and those of seen and of unseen classes."""
    yield "all", features
    names = features.tree.class_names if features.tree else features.class_names(len(features.levels) - 1)
    unseen = torch.tensor([name in features.unseen for name in names] + [False])  # the last: of -1
    for which in ("seen", "unseen") if features.unseen else ():
        rows = []
        for table in (features.val, features.val if features.train is None else features.train):
            classes = _with_classes(features, table).labels[:, -1]
            rows.append((unseen[classes] == (which == "unseen")) & (classes >= 0))
        val, train = rows
        if int(val.sum()) < 2:  # one image has nothing to be compared with
            continue
        bank = features.train.rows(train) if features.train is not None and train.any() else None
        queries = None if features.queries is None else features.queries[val]
        yield which, replace(features, val=features.val.rows(val), train=bank, queries=queries)


def _with_classes(features: Features, table: FeatureTable) -> FeatureTable:
    """The last column of the labels is the class (leaf), -1 unknown; in a ragged tree that is one more."""
    tree = features.tree
    if tree is None or not tree.is_ragged:
        return table
    rows, which = np.unique(table.labels.numpy(), axis=0, return_inverse=True)
    classes = torch.tensor([tree.leaf_of(row) for row in rows.tolist()])[which.reshape(-1)]
    return replace(table, labels=torch.cat([table.labels, classes[:, None]], dim=1))


def _measure(which: str, features: Features, protocol: Protocol, device: torch.device) -> Numbers:
    val, tree, levels = _with_classes(features, features.val), features.tree, list[Numbers]()
    bank = None if features.train is None else _with_classes(features, features.train)
    truth, classes = val.labels, val.labels[:, -1].numpy()
    for name, column in zip(features.levels, features.val.labels.T, strict=True):
        known = column[column >= 0]
        unknown = len(column) - len(known)
        levels.append({"level": name, "classes": len(known.unique()), "images": len(known), "unknown": unknown})
    queries, gallery = torch.arange(len(val)), None
    if features.queries is not None:
        queries, gallery = features.queries.nonzero()[:, 0], ~features.queries
    halves = intervals.cuts(len(val), protocol.seed) if protocol.intervals else None
    queries = queries[draw(len(queries), protocol.max_queries, protocol.seed)]
    asked: dict[str, Any] = {"queries": queries, "is_gallery": gallery, "cuts": halves}
    rankings: dict[str, list[Tensor]] = {}
    measured: list[list[Numbers]] = []
    judged: predictions.Judged | None = None
    if "linear" in protocol.measures and bank is not None:
        rankings["linear"], model = linear_ranking(
            bank, val.features, truth, protocol.l2, protocol.linear_steps, device
        )
        judged = predictions.judge(model, val.features, classes, tree)
        measured.append(_accuracies("linear", rankings["linear"], val, protocol))
        measured.append([{"linear_gap": plain(gap, 6), "linear_gradient": plain(size, 6)} for gap, size in model.left])
        measured.append(_calibration(judged, rankings["linear"], truth.numpy(), protocol))
    if "knn" in protocol.measures:
        rankings["knn"] = knn_ranking(bank, val, protocol.k, protocol.temperature, device)
        ends = None
        if bank is None and halves is not None:
            right = hits(rankings["knn"], truth)
            ends = neighbour_intervals(val, right, protocol.k, protocol.temperature, halves, device)
        measured.append(_accuracies("knn", rankings["knn"], val, protocol, ends, independent=bank is not None))
    if "retrieval" in protocol.measures:
        found = retrieve(val.features.to(device), features.val.labels, top_k=protocol.top_k, **asked)
        measured.append([_of_queries(one, protocol, "retrieval_top") for one in found])
    if "clustering" in protocol.measures:
        measured.append([_clustering(features.val, level, protocol.seed) for level in range(len(levels))])
    for numbers in measured:
        for row, own in zip(levels, numbers, strict=False):  # the classes of a ragged tree come last
            row |= own
    images = {"val": len(val), "train": 0 if bank is None else len(bank)}
    if gallery is not None:
        images |= {"queries": int((~gallery).sum()), "gallery": int(gallery.sum())}
    result: Numbers = {"classes": which, "images": images, "levels": levels}
    if "hierarchy" in protocol.measures and tree is not None:
        result["hierarchy"] = _hierarchy(tree, rankings, features.val, classes, protocol, bank is not None)
        if judged is not None and tree.num_levels > 1:
            values = torch.from_numpy(judged.hops[np.isfinite(judged.hops)])
            result["hierarchy"]["linear"] |= percent({"hops": values}, {"hops": intervals.of_mean(values)}, protocol)
            result["hierarchy"]["crm"] = _mistakes(tree, classes, judged.careful)
        if "retrieval" in protocol.measures and tree.num_levels > 1:
            graded = retrieve_graded(val.features.to(device), features.val.labels, **asked)
            result["hierarchy"]["retrieval"] = _of_queries(graded, protocol)
    if judged is not None and tree is None and len(levels) > 1 and int(truth.max()) < 2:
        result["several"] = _several(judged, truth.numpy(), levels, protocol)
    return result


def _accuracies(
    name: str,
    ranking: list[Tensor],
    val: FeatureTable,
    protocol: Protocol,
    ends: list[dict[str, Interval]] | None = None,
    independent: bool = True,
) -> list[Numbers]:
    """Top-1 and top-5 of each level and accuracy averaged over its classes; `ends`, where images aren't independent."""
    each, found = hits(ranking, val.labels), []
    ends = _independent(each, val) if ends is None else ends
    for level, column in enumerate(val.labels.numpy().T):
        right = ranking[level][:, 0].numpy() == column
        own = intervals.of_classes(right, column) if protocol.intervals and independent else None
        numbers = percent(each[level], ends[level], protocol, f"{name}_")
        found.append(numbers | told(f"{name}_mean_per_class", predictions.mean_per_class(right, column), own))
    return found


def _independent(each: list[dict[str, Tensor]], val: FeatureTable) -> list[dict[str, Interval]]:
    """Intervals of the shares of hits of independent images."""
    toss = intervals.coin(val.features)
    return [
        {name: intervals.of_independent(float(hit.double().mean()), len(hit), toss) for name, hit in one.items()}
        for one in each
    ]


def _calibration(judged: predictions.Judged, ranking: list[Tensor], truth: Array, protocol: Protocol) -> list[Numbers]:
    """Of each level's own classifier, and of the classes' probabilities added up to the level."""
    found = []
    for level, column in enumerate(truth.T):
        both = {"linear_ece": (ranking[level][:, 0].numpy(), judged.confidence[:, level])}
        if level < judged.summed.shape[1]:
            both["linear_ece_summed"] = judged.summed[:, level], judged.summed_confidence[:, level]
        numbers: Numbers = {}
        for name, (best, confidence) in both.items():
            columns = confidence[column >= 0], (best == column)[column >= 0]
            numbers |= statistic(name, predictions.calibration_error, columns, protocol)
        found.append(numbers)
    return found


def _several(judged: predictions.Judged, labels: Array, levels: list[Numbers], protocol: Protocol) -> Numbers:
    """Columns that say whether an image has a label: average precision, of each added to `levels`, and its mean."""
    for place, row in enumerate(levels):
        one = slice(place, place + 1)
        row["linear_ap"] = plain(100 * predictions.mean_average_precision(judged.first[:, one], labels[:, one]))
    numbers: Numbers = {"labels": labels.shape[1], "images": len(labels)}
    columns, unseen = (judged.first, labels), 0.125 / labels.shape[1]
    numbers |= statistic("map", predictions.mean_average_precision, columns, protocol, unseen)
    # The last of the eleven recalls is one image's, a label: that varies as no part of the images shows.
    eleven = predictions.mean_average_precision(*columns, 11)
    return numbers | told("map_11", eleven, UNDEFINED if protocol.intervals else None)


def _hierarchy(
    tree: Taxonomy,
    rankings: dict[str, list[Tensor]],
    val: FeatureTable,
    classes: Array,
    protocol: Protocol,
    voters: bool,
) -> Numbers:
    """Of the predictions of each classifier, and of the tree of the classes' mean features."""
    numbers: Numbers = {}
    for name, ranking in rankings.items():
        numbers[name] = _mistakes(tree, classes, ranking[-1][:, 0].numpy())
        if tree.num_levels > 1:
            predicted = torch.stack([top[:, 0] for top in ranking[: tree.num_levels]], dim=1).numpy()
            labels = val.labels.numpy()
            judged = {
                "consistency": predictions.consistent(tree, predicted, labels),
                "full_path": predictions.full_path(predicted, labels),
            }
            each = {key: torch.from_numpy(right) for key, right in judged.items()}
            # Where the measured images vote themselves, they are not independent.
            ends = _independent([each], val)[0] if voters or name == "linear" else {}
            numbers[name] |= percent(each, ends, protocol)
    present = np.unique(classes[classes >= 0])
    if tree.num_levels > 1 and 2 < len(present) <= _MOST_CLASSES:
        means, leaves, _ = centroids(val.features.numpy(), classes)
        paths = np.array(tree.path_table())[leaves]
        permutations = 199 if len(leaves) <= _PERMUTED_CLASSES else 0
        agrees = compare_with_labels(emergent_tree(means), paths, permutations, protocol.seed)
        numbers["tree"] = {key: plain(value) for key, value in vars(agrees).items()}
        numbers["tree"]["cpcc"] = plain(cpcc(tree, means, leaves))
    return numbers


def _mistakes(tree: Taxonomy, classes: Array, best: Array) -> Numbers:
    """How far predicted classes (n,) are from the true ones (n,)."""
    found = vars(predictions.hierarchy_scores(tree, classes, best))
    return {key: plain(value) if isinstance(value, float) else value for key, value in found.items()}


def _of_queries(one: Retrieval, protocol: Protocol, top: str = "") -> Numbers:
    counts = {"queries": len(one.rows), "queries_alone": one.alone, "queries_unknown": one.unknown}
    numbers = percent(one.values, one.intervals, protocol) | counts
    return {f"{top}{key[3:]}" if top and key.startswith("top") else key: value for key, value in numbers.items()}


def _clustering(val: FeatureTable, level: int, seed: int) -> Numbers:
    features, labels = val.features.numpy(), val.labels.numpy()
    whole = agreement(features, labels[:, level], seed)
    numbers: Numbers = {"nmi": plain(whole.nmi), "ami": plain(whole.ami)}
    if level:
        inside = agreement_inside(features, labels[:, level], labels[:, level - 1], seed)
        numbers |= {"nmi_inside": plain(inside.nmi), "ami_inside": plain(inside.ami), "groups_inside": inside.groups}
    return numbers


def plain(value: float, digits: int = 4) -> float | None:
    """For JSON: rounded, None where it is not defined."""
    return round(float(value), digits) if math.isfinite(value) else None


def told(name: str, value: float, ends: Interval | None) -> Numbers:
    """One number of 0 to 1 in percent and, unless it is None, its interval, null where there is none to tell."""
    numbers: Numbers = {name: plain(100 * value)}
    if ends is not None:
        numbers[f"{name}_ci"] = [plain(100 * end) for end in ends] if all(map(math.isfinite, ends)) else None
    return numbers


def percent(
    values: Mapping[str, Tensor], ends: Mapping[str, Interval], protocol: Protocol, prefix: str = ""
) -> Numbers:
    """Mean of the values of each image, in percent, with its interval; None where they are not defined."""
    numbers: Numbers = {}
    for key, each in values.items():
        known = ends.get(key, UNDEFINED) if protocol.intervals else None
        numbers |= told(f"{prefix}{key}", float(each.double().mean()), known)
    return numbers


def statistic(
    name: str, of: Callable[..., float], columns: Sequence[Array], protocol: Protocol, unseen: float = 0.2
) -> Numbers:
    """The same of a number, 0 to 1 or NaN, that is no mean over images but of columns with a row for each."""
    ends = None
    if protocol.intervals:
        ends = intervals.of_statistic(lambda rows: of(*(x[rows] for x in columns)), len(columns[0]), unseen)
    return told(name, of(*columns), ends)


Tables = tuple[FeatureTable, FeatureTable]  # of the images that vote and teach, and of those that are judged


def verdict(start: Tables, end: Tables, protocol: Protocol, device: torch.device) -> dict[str, Any]:
    """Did training make features better? Two networks, by kNN and by a linear classifier, of the same images in order.

    Labels are one column of classes, -1 unknown; of the protocol `k`, `temperature`, `l2` and `linear_steps` are read.
    For `knn` and `linear` the accuracies, their difference and its interval, `paired_images` over the judged images (it
    knows nothing of other seeds); `says`, which is `better` or `worse` if one measure says so and the other doesn't
    disagree, `mixed` if they do, else `no difference`; and all of it as `text`.
    """
    right: dict[str, list[Tensor]] = {"knn": [], "linear": []}
    for bank, judged in (start, end):
        how = protocol.l2, protocol.linear_steps, device
        rankings = {
            "knn": knn_ranking(bank, judged, protocol.k, protocol.temperature, device),
            "linear": linear_ranking(bank, judged.features, judged.labels, *how)[0],
        }
        for name, ranking in rankings.items():
            right[name].append(100 * hits(ranking, judged.labels)[0]["acc1"].double())
    found, said, lines = dict[str, Any](), set[str](), list[str]()
    for name, (before, after) in right.items():
        change = intervals.paired_images((after - before).tolist(), 100)
        ends = {"start": float(before.mean()), "end": float(after.mean()), "difference": change.mean}
        found[name] = {key: plain(value) for key, value in ends.items()}
        found[name]["ci"] = [plain(change.low), plain(change.high)]
        size = f"{abs(change.mean):.1f} +- {(change.high - change.low) / 2:.1f}"
        none = f"no difference ({'' if change.mean >= 0 else '-'}{size})"
        words = none if change.says == "no difference" else f"{change.says} by {size}"
        title = "kNN" if name == "knn" else name
        lines.append(f"{title}: {ends['start']:.2f} % -> {ends['end']:.2f} %, {words}")
        said |= {change.says} - {"no difference"}
    says = "no difference" if not said else "mixed" if len(said) > 1 else said.pop()
    text = f"{says}{': stop' if says == 'worse' else ''} ({'; '.join(lines)})"
    return {"says": says, "text": text, **found, "images": len(right["knn"][0]), "bank": len(start[0])}
