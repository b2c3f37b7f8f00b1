"""How classes lie in an embedding, without a classifier: clusters, classes that collapse onto each other, local ranks.

k-means against the labels of a level, and inside each class of the level above: Zhang et al., Use All The Labels (CVPR
2022), section 4.5.4 (category NMI, product NMI): https://arxiv.org/abs/2204.13207; Vinh, Epps, Bailey, Information
theoretic measures for clusterings comparison (JMLR 2010). Both measures are scikit-learn's: NMI with the arithmetic
mean of the entropies, AMI adjusted for chance.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo.eval.embedding import effective_rank
from solo.eval.features import Array, draw, unit, unit_rows
from solo.eval.knn import nearest_others
from solo.eval.tree import centroids

MINI_BATCHES_FROM = 20_000  # rows; above, whole passes take too long
MANY_CLUSTERS = 1000  # from here on k-means runs once, not three times
MOST_ADJUSTED = 2000  # clusters; the expectation behind AMI takes time with their square
FEWEST = 8  # images of a class or node that is judged
_DRAWS = 3  # random subsets that each reference rank is the mean of


@dataclass(frozen=True)
class Agreement:
    """How far clusters and labels agree, 0 to 1."""

    nmi: float  # 0 to 1; NaN where there are fewer than two classes, or as many as rows: then nothing can go wrong
    ami: float  # at most 1, 0 on average for random clusters; likewise, and above 2,000 clusters
    classes: float  # clusters asked for; with `inside`, their mean
    groups: int  # 1; with `inside`, classes of the level above over which is averaged: those where it is defined
    unknown: int  # rows left out because a label is unknown


def cluster(features: Array, count: int, seed: int = 0) -> Array:
    """Clusters (n,) that k-means (the best of three runs, in mini-batches above 20,000 rows) finds among unit rows."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = unit_rows(torch.from_numpy(features)).numpy()
    options: dict[str, Any] = {"n_init": 3 if count <= MANY_CLUSTERS else 1, "random_state": seed}
    large = len(rows) > MINI_BATCHES_FROM
    model = MiniBatchKMeans(count, batch_size=max(4096, 2 * count), **options) if large else KMeans(count, **options)
    with warnings.catch_warnings():  # fewer distinct rows than clusters: a collapsed model, which the measure says
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit(rows).labels_)


def agreement(features: Array, labels: Array, seed: int = 0) -> Agreement:
    """As many clusters of rows (n, d) as there are classes in their labels (n,), -1 unknown, against these."""
    known = labels >= 0
    rows, classes = (features, labels) if known.all() else (features[known], labels[known])
    count, unknown = len(np.unique(classes)), int(len(labels) - known.sum())
    if count < 2 or count == len(rows):
        return Agreement(math.nan, math.nan, count, 1, unknown)
    return Agreement(*scores(classes, cluster(rows, count, seed)), count, 1, unknown)


def agreement_inside(features: Array, labels: Array, above: Array, seed: int = 0) -> Agreement:
    """Means of `agreement` over those classes of the level above, (n,), in which it is defined, each by itself."""
    known = (labels >= 0) & (above >= 0)
    parts = [known & (above == group) for group in np.unique(above[known])]
    found = [agreement(features[part], labels[part], seed) for part in parts]
    defined = [(one.nmi, one.ami, one.classes) for one in found if not math.isnan(one.nmi)]
    nmi, ami, classes = np.mean(defined, axis=0).tolist() if defined else (math.nan, math.nan, 0)
    return Agreement(nmi, ami, classes, len(defined), int(len(labels) - known.sum()))


def scores(labels: Array, clusters: Array) -> tuple[float, float]:
    """NMI and AMI of two (n,) numberings; AMI is NaN above 2,000 clusters, both where each row is its own class."""
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    classes = len(np.unique(labels))
    if classes in (1, len(labels)):
        return math.nan, math.nan
    nmi = float(normalized_mutual_info_score(labels, clusters))
    if max(classes, len(np.unique(clusters))) > MOST_ADJUSTED:
        return nmi, math.nan
    return nmi, float(adjusted_mutual_info_score(labels, clusters))


@dataclass(frozen=True)
class Neighbours:
    """The nearest other rows of some rows, by cosine."""

    queries: Array  # (q,) row numbers
    rows: Array  # (q, k) their neighbours' row numbers, the most similar first, never the query itself
    similarity: Array  # (q, k) cosines


def neighbours(features: Array, k: int = 20, most: int = 10_000, seed: int = 0) -> Neighbours:
    """The `k` nearest other rows of rows (n, d), or of `most` drawn at random; the bank is all rows."""
    queries = draw(len(features), most, seed)
    similarity, rows = nearest_others(torch.as_tensor(features), min(k, len(features) - 1), queries=queries)
    return Neighbours(queries.numpy(), rows.numpy(), similarity.numpy())


@dataclass(frozen=True)
class ConfusablePair:
    """Two classes and how far they are one."""

    first: int  # label
    second: int  # label, larger
    mixing: float  # 0 (no neighbour in the other class) to 1 (as if the two were one class), whatever the sizes
    separation: float  # distance of the centroids over the spread (RMS) around them, of unit rows; inf without spread
    cosine: float  # of the centroids
    examples: tuple[tuple[int, int], ...]  # rows of both that are neighbours, the most similar first, each row once


def confusable_pairs(
    features: Array, labels: Array, near: Neighbours, most: int = 20, examples: int = 6
) -> list[ConfusablePair]:
    """The pairs of classes that collapse onto each other most, the worst first; of classes with at least 8 images.

    At most `most`, by mixing, then by separation; labels (n,) are classes or clusters, -1 left out.
    """
    means, known, counts = centroids(features, labels)
    means, known = means[counts >= FEWEST], known[counts >= FEWEST]
    if len(known) < 2:
        return []
    # (m,) root mean square distance of unit rows to their mean: sqrt(E|x|^2 - |mean|^2).
    norms, used = np.linalg.norm(np.asarray(features, dtype=np.float32), axis=1), labels >= 0
    lengths = np.bincount(labels[used], norms[used] > 0)[known] / np.bincount(labels[used])[known]  # 1 but for zeros
    spread = np.sqrt(np.maximum(lengths - (means**2).sum(axis=1), 0))
    spread[spread < 1e-7] = 0.0  # rounding of float32 rows
    mixing = mixing_matrix(labels, near, known)
    left, right = np.triu_indices(len(known), k=1)
    pairs = mixing[left, right]
    if len(pairs) > most:  # those that can be among the first: distances of all would take far longer
        chosen = pairs >= np.partition(pairs, -most)[-most]
        left, right = left[chosen], right[chosen]
    away = np.linalg.norm(means[left] - means[right], axis=1)
    within = np.sqrt((spread[left] ** 2 + spread[right] ** 2) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        separation = np.where(away <= 1e-12, 0.0, away / within)
    rows = unit(means)
    found = []
    for place in np.lexsort((separation, -mixing[left, right]))[:most]:
        a, b = int(left[place]), int(right[place])
        pair = int(known[a]), int(known[b])
        cosine, shown = float(rows[a] @ rows[b]), _examples(labels, near, *pair, examples)
        found.append(ConfusablePair(*pair, float(mixing[a, b]), float(separation[place]), cosine, shown))
    return found


def mixing_matrix(labels: Array, near: Neighbours, known: Array | None = None) -> Array:
    """(m, m) symmetric mixing of each pair of labels, the diagonal 1.

    For labels a and b, p_ab is the share of b among the neighbours of a's rows that are a or b; mixing is p_ab + p_ba,
    clipped to 1, the sum for two classes in one place. NaN for classes of fewer than 8 images.
    """
    known = np.unique(labels[labels >= 0]) if known is None else known
    place = np.full(int(max(labels.max(), 0)) + 2, -1)  # the last one is that of the label -1
    place[known] = np.arange(len(known))
    places = place[labels]
    mine, theirs = np.broadcast_arrays(places[near.queries][:, None], places[near.rows])
    used = (mine >= 0) & (theirs >= 0)
    # How many neighbours of label b (column) the rows of label a (row) have together.
    table = np.bincount(mine[used] * len(known) + theirs[used], minlength=len(known) ** 2).astype(float)
    table = table.reshape(len(known), len(known))
    with np.errstate(invalid="ignore"):
        share = np.where(table > 0, table / (table + np.diag(table)[:, None]), 0.0)
    mixing: Array = np.minimum(share + share.T, 1.0)
    np.fill_diagonal(mixing, 1.0)
    few = np.bincount(labels[labels >= 0], minlength=int(max(known, default=0)) + 1)[known] < FEWEST
    mixing[few] = mixing[:, few] = np.nan
    return mixing


def _examples(labels: Array, near: Neighbours, a: int, b: int, most: int) -> tuple[tuple[int, int], ...]:
    mine, theirs = labels[near.queries][:, None], labels[near.rows]
    query, column = np.nonzero(((mine == a) & (theirs == b)) | ((mine == b) & (theirs == a)))
    found: list[tuple[int, int]] = []
    for place in np.argsort(-near.similarity[query, column], kind="stable"):
        if len(found) == most:
            break
        pair = int(near.queries[query[place]]), int(near.rows[query[place], column[place]])
        first, second = pair if labels[pair[0]] == a else pair[::-1]
        if not {first, second} & {row for one in found for row in one}:
            found.append((first, second))
    return tuple(found)


@dataclass(frozen=True)
class NodeRank:
    """One node of the tree."""

    level: int  # index of its level, 0 the coarsest; -1 is the root, all images
    node: int  # its index at that level, 0 for the root
    parent: int  # index of its parent at the level above, -1 for the root and what stands below it
    count: int  # its rows
    effective_rank: float  # of its rows, centred, 1 to min(count, D); NaN with fewer than 8 rows
    reference: float  # mean of equally many rows drawn from all: only that is fair, a rank grows with the rows

    @property
    def ratio(self) -> float:
        """Local over global: 1 is no local collapse, 0 a node mapped to one point."""
        return self.effective_rank / self.reference if self.reference > 0 else math.nan


@torch.no_grad()
def collapse_profile(features: Tensor, labels: Tensor, seed: int = 0) -> list[NodeRank]:
    """Effective rank inside every node of the label tree, and of equally many rows from everywhere.

    Global collapse shows in the whole; the classes of one superclass collapse locally, where the whole looks healthy.
    Features are (N, D), the rows as they are (scale them to length 1 first to look at directions only), labels (N,) or
    (N, L), coarse first, -1 unknown. The root comes first, then every node that has rows, level by level.
    """
    labels = (labels[:, None] if labels.ndim == 1 else labels).cpu()
    if features.ndim != 2 or len(features) != len(labels) or len(features) == 0:
        raise ValueError(f"give features (N, D) and labels (N,) or (N, L), not {features.shape} and {labels.shape}")
    generator = torch.Generator().manual_seed(seed)
    references: dict[int, float] = {}
    whole = effective_rank(features)
    found = [NodeRank(-1, 0, -1, len(features), whole, whole)]
    for level, column in enumerate(labels.T):
        for node in torch.unique(column[column >= 0]).tolist():
            rows = (column == node).nonzero()[:, 0]
            parent, count, own = int(labels[rows[0], level - 1]) if level else -1, len(rows), math.nan
            if count >= FEWEST:
                own = effective_rank(features[rows.to(features.device)])
                if count not in references:
                    picks = [torch.randperm(len(features), generator=generator)[:count] for _ in range(_DRAWS)]
                    ranks = [effective_rank(features[pick.to(features.device)]) for pick in picks]
                    references[count] = sum(ranks) / len(ranks)
            found.append(NodeRank(level, node, parent, count, own, references.get(count, math.nan)))
    return found
