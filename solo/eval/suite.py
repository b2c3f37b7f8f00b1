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
from solo.eval import classes as by_class
from solo.eval import intervals, predictions
from solo.eval.features import Array, Features, FeatureTable, draw
from solo.eval.intervals import UNDEFINED, Interval
from solo.eval.knn import hits, knn_ranking, neighbour_intervals
from solo.eval.linear import linear_ranking
from solo.eval.retrieval import Retrieval, retrieve, retrieve_graded
from solo.taxonomy import Taxonomy

MEASURES = ("linear", "knn", "retrieval", "clustering", "hierarchy")
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """What is measured, and how."""

    measures: tuple[str, ...] = MEASURES  # `hierarchy` looks at the predictions of `linear` and `knn`
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
    Shares are in percent, NMI and AMI in 0..1, None undefined. A `UserError` without labels, or of one image.
    """
    if not features.levels:
        raise UserError(f"{features.name} has no labels to measure features by; solo analyze works without")
    if len(features.val) < 2:
        raise UserError(f"{features.name} has one image to measure, which can't be compared; give at least two")
    return [_Part(part, protocol, device).measure(which) for which, part in parts(features)]


def parts(features: Features) -> Iterator[tuple[str, Features]]:
    """All rows, and those of seen and of unseen classes."""
    yield "all", features
    names = features.tree.class_names if features.tree else features.class_names(len(features.levels) - 1)
    for which in ("seen", "unseen") if features.unseen else ():
        wanted = torch.tensor([(name in features.unseen) == (which == "unseen") for name in names] + [False])
        tables = (features.val, features.train or features.val)
        val, train = (wanted[_with_classes(features, table).labels[:, -1]] for table in tables)  # -1 takes the last
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


class _Part:
    """The images of one entry, and what is measured of them."""

    def __init__(self, features: Features, protocol: Protocol, device: torch.device) -> None:
        self.features, self.protocol, self.device, self.tree = features, protocol, device, features.tree
        self.val = _with_classes(features, features.val)
        self.bank = None if features.train is None else _with_classes(features, features.train)
        self.labels, self.classes = features.val.labels, self.val.labels[:, -1].numpy()
        self.halves = intervals.cuts(len(self.val), protocol.seed) if protocol.intervals else None
        self.votes = protocol.k, protocol.temperature
        self.rankings: dict[str, list[Tensor]] = {}
        self.judged: predictions.Judged | None = None
        self.gallery = None if features.queries is None else ~features.queries

    def measure(self, which: str) -> Numbers:
        """The entry."""
        levels, measures, tree = list[Numbers](), self.protocol.measures, self.tree
        for name, column in zip(self.features.levels, self.labels.T, strict=True):
            known = column[column >= 0]
            unknown = len(column) - len(known)
            levels.append({"level": name, "classes": len(known.unique()), "images": len(known), "unknown": unknown})
        measured: list[list[Numbers]] = []
        if "linear" in measures and self.bank is not None:
            measured.append(self.linear(self.bank))
        if "knn" in measures:
            self.rankings["knn"] = knn_ranking(self.bank, self.val, *self.votes, self.device)
            measured.append(self.accuracies("knn"))
        if "retrieval" in measures:
            found, *halves = [retrieve(**one, top_k=self.protocol.top_k) for one in self.asked()]
            by_level = [[half[level] for half in halves] for level in range(len(found))]
            measured.append([self.of_queries(*each, "retrieval_top") for each in zip(found, by_level, strict=True)])
        if "clustering" in measures:
            measured.append([self.clustering(level) for level in range(len(levels))])
        for numbers in measured:
            for row, own in zip(levels, numbers, strict=False):  # the classes of a ragged tree come last
                row |= own
        images = {"val": len(self.val), "train": 0 if self.bank is None else len(self.bank)}
        if self.gallery is not None:
            images |= {"queries": int((~self.gallery).sum()), "gallery": int(self.gallery.sum())}
        result: Numbers = {"classes": which, "images": images, "levels": levels}
        if "hierarchy" in measures and tree is not None:
            result["hierarchy"] = self.hierarchy(tree)
        if self.judged is not None and tree is None and len(levels) > 1 and int(self.labels.max()) < 2:
            result["several"] = self.several(self.judged, levels)
        return result

    def linear(self, bank: FeatureTable) -> list[Numbers]:
        """Accuracies, the way to the optimum, and calibration: of a level, and of the classes added up to it."""
        how = self.protocol.l2, self.protocol.linear_steps, self.device
        ranking, model = linear_ranking(bank, self.val.features, self.val.labels, *how)
        judged = predictions.judge(model, self.val.features, self.classes, self.tree)
        self.rankings["linear"], self.judged = ranking, judged
        found = self.accuracies("linear")
        for level, (numbers, (gap, size)) in enumerate(zip(found, model.left, strict=True)):
            numbers |= {"linear_gap": plain(gap, 6), "linear_gradient": plain(size, 6)}
            both = {"linear_ece": (ranking[level][:, 0].numpy(), judged.confidence[:, level])}
            if level < judged.summed.shape[1]:
                both["linear_ece_summed"] = judged.summed[:, level], judged.summed_confidence[:, level]
            column = self.val.labels[:, level].numpy()
            for name, (best, confidence) in both.items():
                columns = confidence[column >= 0], (best == column)[column >= 0]
                numbers |= self.statistic(name, predictions.calibration_error, columns)
        return found

    def accuracies(self, name: str) -> list[Numbers]:
        """Top-1 and top-5 of each level by a ranking, and the mean over its classes."""
        each, found = hits(self.rankings[name], self.val.labels), []
        if self.bank is None and self.halves is not None:  # the measured images vote themselves
            ends = neighbour_intervals(self.val, each, *self.votes, self.halves, self.device)
        else:
            ends = [self.independent(one) for one in each]
        for level, column in enumerate(self.val.labels.numpy().T):
            right, key = self.rankings[name][level][:, 0].numpy() == column, f"{name}_mean_per_class"
            mean = predictions.mean_per_class(right, column)
            sure = self.told(key, mean, intervals.of_classes(right, column)) if self.bank is not None else {}
            found.append(self.percent(each[level], ends[level], f"{name}_") | {key: plain(100 * mean)} | sure)
        return found

    def independent(self, right: Mapping[str, Tensor]) -> dict[str, Interval]:
        """Intervals of the shares of hits (n,) of independent images."""
        toss = intervals.coin(self.val.features)
        return {key: intervals.of_independent(float(hit.double().mean()), len(hit), toss) for key, hit in right.items()}

    def clustering(self, level: int) -> Numbers:
        """Of a level and, below the first, inside the classes of the one above."""
        features, labels, seed = self.val.features.numpy(), self.labels.numpy(), self.protocol.seed
        whole = by_class.agreement(features, labels[:, level], seed)
        numbers: Numbers = {"nmi": plain(whole.nmi), "ami": plain(whole.ami)}
        if level:
            inside = by_class.agreement_inside(features, labels[:, level], labels[:, level - 1], seed)
            numbers |= {"nmi_inside": plain(inside.nmi), "ami_inside": plain(inside.ami)}
            numbers["groups_inside"] = inside.groups
        return numbers

    def several(self, judged: predictions.Judged, levels: list[Numbers]) -> Numbers:
        """Columns that say whether an image has a label: average precision, of each added to `levels`, and its mean."""
        labels = self.labels.numpy()
        for place, row in enumerate(levels):
            one = slice(place, place + 1)
            row["linear_ap"] = plain(100 * predictions.mean_average_precision(judged.first[:, one], labels[:, one]))
        numbers: Numbers = {"labels": labels.shape[1], "images": len(labels)}
        columns, unseen = (judged.first, labels), 0.125 / labels.shape[1]
        numbers |= self.statistic("map", predictions.mean_average_precision, columns, unseen)
        # The last of the eleven recalls is one image's, a label: that varies as no part of the images shows.
        return numbers | self.told("map_11", predictions.mean_average_precision(*columns, 11))

    def hierarchy(self, tree: Taxonomy) -> Numbers:
        """Of the predictions of each classifier, the tree of the classes' mean features, and graded retrieval."""
        numbers: Numbers = {}
        nested, labels = tree.num_levels > 1, self.labels.numpy()
        for name, ranking in self.rankings.items():
            numbers[name] = _mistakes(tree, self.classes, ranking[-1][:, 0].numpy())
            if nested:
                predicted = torch.stack([top[:, 0] for top in ranking[: tree.num_levels]], dim=1).numpy()
                consistent = predictions.consistent(tree, predicted, labels)
                right = {"consistency": consistent, "full_path": predictions.full_path(predicted, labels)}
                each = {key: torch.from_numpy(one) for key, one in right.items()}
                # Where the measured images vote themselves, they are not independent.
                ends = self.independent(each) if self.bank is not None else {}
                numbers[name] |= self.percent(each, ends)
        if nested and 2 < len(np.unique(self.classes[self.classes >= 0])) <= by_class.MOST_LEAVES:
            means, leaves, _ = by_class.centroids(self.val.features.numpy(), self.classes)
            paths = np.array(tree.path_table())[leaves]
            emerged, permutations = by_class.emergent_tree(means), 199 if len(leaves) <= 500 else 0  # else slow
            agrees = by_class.compare_with_labels(emerged, paths, permutations, self.protocol.seed)
            numbers["tree"] = {key: plain(value) for key, value in vars(agrees).items()}
            numbers["tree"]["cpcc"] = plain(by_class.cpcc(tree, means, leaves))
        if nested and self.judged is not None:
            values = torch.from_numpy(self.judged.hops[np.isfinite(self.judged.hops)])
            numbers["linear"] |= self.percent({"hops": values}, {"hops": intervals.of_mean(values)})
            numbers["crm"] = _mistakes(tree, self.classes, self.judged.careful)
        if nested and "retrieval" in self.protocol.measures:
            graded, *halves = [retrieve_graded(**one) for one in self.asked()]
            numbers["retrieval"] = self.of_queries(graded, halves)
        return numbers

    def asked(self) -> Iterator[dict[str, Any]]:
        """What is retrieved, as arguments: among all images and, for the intervals, among those of each half."""
        queries = torch.arange(len(self.val)) if self.gallery is None else (~self.gallery).nonzero()[:, 0]
        queries = queries[draw(len(queries), self.protocol.max_queries, self.protocol.seed)]
        whole = {"features": self.val.features.to(self.device), "labels": self.labels.to(self.device)}
        yield {**whole, "queries": queries, "is_gallery": self.gallery}
        for half in self.halves if self.halves is not None else ():
            own = {name: table[half.to(self.device)] for name, table in whole.items()}
            gallery = None if self.gallery is None else self.gallery[half]
            yield {**own, "queries": torch.isin(half, queries).nonzero()[:, 0], "is_gallery": gallery}

    def of_queries(self, one: Retrieval, halves: Sequence[Retrieval], top: str = "") -> Numbers:
        """Means over the queries, and how many, with intervals by `halves`; `top` is the name of the top-k."""
        counts = {"queries": len(one.rows), "queries_alone": one.alone, "queries_unknown": one.unknown}
        ends = intervals.of_halves(one.values, [half.values for half in halves]) if halves else {}
        numbers = self.percent(one.values, ends) | counts
        return {f"{top}{key[3:]}" if top and key.startswith("top") else key: value for key, value in numbers.items()}

    def percent(self, values: Mapping[str, Tensor], ends: Mapping[str, Interval], prefix: str = "") -> Numbers:
        """Mean of the values of each image, in percent, with its interval; None where they are not defined."""
        numbers: Numbers = {}
        for key, each in values.items():
            numbers |= self.told(f"{prefix}{key}", float(each.double().mean()), ends.get(key, UNDEFINED))
        return numbers

    def statistic(self, name: str, of: Callable[..., float], columns: Sequence[Array], unseen: float = 0.2) -> Numbers:
        """The same of a number, 0 to 1 or NaN, that is no mean over images but of columns with a row for each."""
        ends = UNDEFINED
        if self.protocol.intervals:
            ends = intervals.of_statistic(lambda rows: of(*(x[rows] for x in columns)), len(columns[0]), unseen)
        return self.told(name, of(*columns), ends)

    def told(self, name: str, value: float, ends: Interval = UNDEFINED) -> Numbers:
        """One number of 0 to 1 in percent and, if asked for, its interval, null where there is none to tell."""
        numbers: Numbers = {name: plain(100 * value)}
        if self.protocol.intervals:
            numbers[f"{name}_ci"] = [plain(100 * end) for end in ends] if all(map(math.isfinite, ends)) else None
        return numbers


def _mistakes(tree: Taxonomy, classes: Array, best: Array) -> Numbers:
    """How far predicted classes (n,) are from the true ones (n,)."""
    found = vars(predictions.hierarchy_scores(tree, classes, best))
    return {key: plain(value) if isinstance(value, float) else value for key, value in found.items()}


def plain(value: float, digits: int = 4) -> float | None:
    """For JSON: rounded, None where it is not defined."""
    return round(float(value), digits) if math.isfinite(value) else None


Tables = tuple[FeatureTable, FeatureTable]  # of the images that vote and teach, and of those that are judged


def verdict(start: Tables, end: Tables, protocol: Protocol, device: torch.device) -> dict[str, Any]:
    """Did training make features better? Two networks, by kNN and by a linear classifier, of the same images in order.

    Labels are one column of classes, -1 unknown; of the protocol `k`, `temperature`, `l2` and `linear_steps` are read.
    For `knn` and `linear` the accuracies, their difference and its interval, `paired_images` over the judged images (it
    knows nothing of other seeds); `says`, which is `better` or `worse` if one measure says so and the other doesn't
    disagree, `mixed` if they do, else `no difference`; and all of it as `text`.
    """
    how = protocol.l2, protocol.linear_steps, device
    rankings = {
        "kNN": [knn_ranking(*tables, protocol.k, protocol.temperature, device) for tables in (start, end)],
        "linear": [linear_ranking(bank, judged.features, judged.labels, *how)[0] for bank, judged in (start, end)],
    }
    found, said, lines = dict[str, Any](), set[str](), list[str]()
    for name, (first, last) in rankings.items():
        before = 100 * hits(first, start[1].labels)[0]["acc1"].double()
        after = 100 * hits(last, end[1].labels)[0]["acc1"].double()
        change = intervals.paired_images((after - before).tolist(), 100)
        ends = {"start": float(before.mean()), "end": float(after.mean()), "difference": change.mean}
        found[name.lower()] = {key: plain(value) for key, value in ends.items()}
        found[name.lower()]["ci"] = [plain(change.low), plain(change.high)]
        size = f"{abs(change.mean):.1f} +- {(change.high - change.low) / 2:.1f}"
        none = f"no difference ({'' if change.mean >= 0 else '-'}{size})"
        words = none if change.says == "no difference" else f"{change.says} by {size}"
        lines.append(f"{name}: {ends['start']:.2f} % -> {ends['end']:.2f} %, {words}")
        said |= {change.says} - {"no difference"}
    says = "no difference" if not said else "mixed" if len(said) > 1 else said.pop()
    text = f"{says}{': stop' if says == 'worse' else ''} ({'; '.join(lines)})"
    return {"says": says, "text": text, **found, "images": len(after), "bank": len(start[0])}
