"""How classes lie in an embedding, without a classifier: clusters, pairs that collapse, local ranks, the emergent tree.

k-means against the labels of a level, and inside each class of the level above: Zhang et al., Use All The Labels (CVPR
2022), section 4.5.4 (category NMI, product NMI): https://arxiv.org/abs/2204.13207; Vinh, Epps, Bailey (JMLR 2010). NMI
has the arithmetic mean of the entropies, AMI is adjusted for chance.

The emergent tree, by agglomerative clustering: cophenetic correlation (Sokal, Rohlf, Taxon 1962), Baker's gamma (JASA
1974), Robinson-Foulds distance (Mathematical Biosciences 1981), Mantel's permutation test (Cancer Research 1967).
"""

import math
import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from torch import Tensor

from solo.errors import UserError
from solo.eval.embedding import effective_rank
from solo.eval.features import Array, draw, unit, unit_rows
from solo.eval.knn import nearest_others
from solo.taxonomy import Taxonomy

MINI_BATCHES_FROM = 20_000  # rows; above, whole passes take too long
MANY_CLUSTERS = 1000  # from here on k-means runs once, not three times
MOST_ADJUSTED = 2000  # clusters; the expectation behind AMI takes time with their square
FEWEST = 8  # images of a class or node that is judged
MOST_LEAVES = 10_000  # of a tree; their distances fill 400 MB


@dataclass(frozen=True)
class Agreement:
    """How far clusters and labels agree, 0 to 1."""

    nmi: float  # 0 to 1; NaN where there are fewer than two classes, or as many as rows
    ami: float  # at most 1, 0 on average for random clusters; likewise, and above 2,000 clusters
    groups: int = 1  # with `inside`, classes of the level above over which is averaged: those where it is defined


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
    count = len(np.unique(classes))
    if count < 2 or count == len(rows):
        return Agreement(math.nan, math.nan)
    return Agreement(*scores(classes, cluster(rows, count, seed)))


def agreement_inside(features: Array, labels: Array, above: Array, seed: int = 0) -> Agreement:
    """Means of `agreement` over those classes of the level above, (n,), in which it is defined, each by itself."""
    known = (labels >= 0) & (above >= 0)
    parts = [known & (above == group) for group in np.unique(above[known])]
    found = [agreement(features[part], labels[part], seed) for part in parts]
    defined = [(one.nmi, one.ami) for one in found if not math.isnan(one.nmi)]
    nmi, ami = np.mean(defined, axis=0).tolist() if defined else (math.nan, math.nan)
    return Agreement(nmi, ami, len(defined))


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
    means, known, counts = (x[counts >= FEWEST] for x in (means, known, counts))
    if len(known) < 2:
        return []
    # (m,) root mean square distance of unit rows to their mean: sqrt(E|x|^2 - |mean|^2).
    norms, used = np.linalg.norm(np.asarray(features, dtype=np.float32), axis=1), labels >= 0
    lengths = np.bincount(labels[used], norms[used] > 0)[known] / counts  # 1 but for zeros
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
    reference: float  # mean of three draws of equally many rows from all, as a rank grows with the rows

    @property
    def ratio(self) -> float:
        """Local over global: 1 is no local collapse, 0 a node mapped to one point."""
        return self.effective_rank / self.reference if self.reference > 0 else math.nan


def collapse_profile(features: Tensor, labels: Tensor, seed: int = 0) -> list[NodeRank]:
    """Effective rank inside every node of the label tree, and of equally many rows from everywhere.

    Features are (N, D), the rows as they are (scale them to length 1 first to look at directions only), labels (N,) or
    (N, L), coarse first, -1 unknown. The root comes first, then every node that has rows, level by level.
    """
    labels = (labels[:, None] if labels.ndim == 1 else labels).cpu()
    if features.ndim != 2 or len(features) != len(labels) or len(features) == 0:
        raise ValueError(f"give features (N, D) and labels (N,) or (N, L), not {features.shape} and {labels.shape}")
    generator, whole = torch.Generator().manual_seed(seed), effective_rank(features)

    @cache
    def reference(count: int) -> float:
        picks = [torch.randperm(len(features), generator=generator)[:count] for _ in range(3)]
        return sum(effective_rank(features[pick.to(features.device)]) for pick in picks) / 3

    found = [NodeRank(-1, 0, -1, len(features), whole, whole)]
    for level, column in enumerate(labels.T):
        for node in torch.unique(column[column >= 0]).tolist():
            rows, ranks = (column == node).nonzero()[:, 0], (math.nan, math.nan)
            if len(rows) >= FEWEST:
                ranks = effective_rank(features[rows.to(features.device)]), reference(len(rows))
            parent = int(labels[rows[0], level - 1]) if level else -1
            found.append(NodeRank(level, node, parent, len(rows), *ranks))
    return found


@dataclass(frozen=True)
class EmergentTree:
    """A binary tree over m leaves, numbered 0 to m - 1."""

    # (m - 1, 4), SciPy's linkage: nodes that join (leaves, then merges from m on), height, not decreasing, leaves
    merges: Array
    distances: Array  # (m (m - 1) / 2,) what it was built from, in SciPy's condensed form

    @property
    def num_leaves(self) -> int:
        """The number of leaves, at least 2."""
        return len(self.merges) + 1

    @cached_property
    def cophenetic(self) -> Array:
        """(m (m - 1) / 2,) height at which each pair of leaves is first joined, condensed."""
        return np.asarray(hierarchy.cophenet(self.merges))

    @property
    def fidelity(self) -> float:
        """Correlation of `cophenetic` with `distances`, up to 1: how much the embedding is like a tree at all."""
        return pearson(self.cophenetic, self.distances)

    @cached_property
    def clades(self) -> tuple[frozenset[int], ...]:
        """The leaves below each merge, in the order of the merges; the last one is everybody."""
        below: list[frozenset[int]] = [frozenset([leaf]) for leaf in range(self.num_leaves)]
        for left, right in self.merges[:, :2].astype(int):
            below.append(below[left] | below[right])
        return tuple(below[self.num_leaves :])

    def order(self) -> list[int]:
        """The leaves from top to bottom of a drawing without crossings, similar neighbours beside each other."""
        few = self.num_leaves <= 500
        ordered = hierarchy.optimal_leaf_ordering(self.merges, self.distances) if few else self.merges
        return [int(leaf) for leaf in hierarchy.leaves_list(ordered)]

    def cut(self, clusters: int) -> Array:
        """(m,) cluster of each leaf when all but the last `clusters` - 1 merges are done, numbered by first leaf."""
        step = np.arange(len(self.merges), dtype=float)
        found = hierarchy.fcluster(self.merges, len(self.merges) - clusters, "monocrit", monocrit=step)
        _, first, number = np.unique(found, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[number]


@dataclass(frozen=True)
class TreeAgreement:
    """How far an emergent tree is the label tree."""

    cophenetic: float  # correlation of joining heights and distances in the label tree, -1 to 1; NaN of one level
    p_value: float  # share of random re-labellings of the leaves, the identity included, that agree at least as well
    gamma: float  # Baker's gamma, the rank correlation of the same two, -1 to 1
    recovered: float  # share of the label tree's inner nodes whose leaves are exactly one subtree, 0 to 1; NaN without


def centroids(features: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Means (m, d) of the unit rows (n, d) of each label (n,), -1 left out; these labels (m,), rows behind each."""
    at = np.flatnonzero(labels >= 0)
    known, place, counts = np.unique(labels[at], return_inverse=True, return_counts=True)
    sums = torch.zeros(len(known), features.shape[1], dtype=torch.float64)
    for start in range(0, len(at), 8192):  # bounds the float64 copy
        part = slice(start, start + 8192)
        sums.index_add_(0, torch.from_numpy(place[part]), torch.from_numpy(unit(features[at[part]])))
    return sums.numpy() / counts[:, None], known, counts


def emergent_tree(points: Array) -> EmergentTree:
    """Join the two closest groups of points (m, d) again and again, by their mean cosine distance, 0 to 2."""
    allowed = 2 <= len(points) <= MOST_LEAVES
    if not allowed or not np.isfinite(points).all():
        what = "values that are not finite" if allowed else f"{len(points):,} points"
        raise UserError(f"a tree needs 2 to {MOST_LEAVES:,} finite points, got {what}; draw some, or use centroids")
    rows = unit(points)
    away = np.maximum(1 - rows @ rows.T, 0)
    np.fill_diagonal(away, 0)
    distances = squareform(away, checks=False)
    return EmergentTree(hierarchy.linkage(distances, method="average"), distances)


def compare_with_labels(tree: EmergentTree, paths: Array, permutations: int = 199, seed: int = 0) -> TreeAgreement:
    """Agreement of a tree with the labels (m, L) of its leaves, coarse first, -1 unknown or below the end of a branch.

    `permutations` random re-labellings, drawn with `seed`, are behind `p_value`; 0 leaves it NaN.
    """
    left, right = np.triu_indices(len(paths), k=1)
    same = (paths[left] == paths[right]) & (paths[left] >= 0)
    away, heights = paths.shape[1] - np.cumprod(same, axis=1).sum(axis=1), tree.cophenetic  # levels below the ancestor
    correlation, p_value = pearson(heights, away), math.nan
    if permutations and not math.isnan(correlation):
        rng, square = np.random.default_rng(seed), squareform(away)
        centred = heights - heights.mean()
        threshold = float(centred @ away) * (1 - 1e-12)  # all permutations have the same variances: compare products
        orders = (rng.permutation(len(square)) for _ in range(permutations))
        as_good = sum(float(centred @ square[order[left], order[right]]) >= threshold for order in orders)
        p_value = (1 + as_good) / (permutations + 1)
    members = [np.flatnonzero(column == node) for column in paths.T for node in np.unique(column[column >= 0])]
    nodes = {frozenset(leaves.tolist()) for leaves in members if 1 < len(leaves) < tree.num_leaves}
    recovered = len(nodes & set(tree.clades)) / len(nodes) if nodes else math.nan
    return TreeAgreement(correlation, p_value, spearman(heights, away), recovered)


def cpcc(tree: Taxonomy, means: Array, leaves: Array, most: int = 2_000) -> float:
    """Cophenetic correlation, -1 to 1: of distances of classes' means (m, d) with those of `leaves` (m,) in the tree.

    Pearson's over all pairs, NaN with fewer than three classes or without variance; of more than `most` classes as many
    are drawn. Zeng, des Combes, Zhao (ICLR 2023).
    """
    chosen = draw(len(leaves), most).numpy()
    means, leaves = means[chosen].astype(np.float64), leaves[chosen]
    if len(leaves) < 3:
        return math.nan
    apart = [np.linalg.norm(mean - means[place:], axis=1) for place, mean in enumerate(means, start=1)]
    in_tree = [tree.distance(leaf, leaves[place:]) for place, leaf in enumerate(leaves, start=1)]
    return pearson(np.concatenate(apart), np.concatenate(in_tree).astype(np.float64))


def robinson_foulds(a: EmergentTree, b: EmergentTree) -> float:
    """Share of subtrees that only one of two trees over the same leaves has, 0 (same shape) to 1; 0 under 3 leaves."""
    if a.num_leaves != b.num_leaves:
        raise ValueError(f"the trees have {a.num_leaves} and {b.num_leaves} leaves; give trees over the same leaves")
    one, two = set(a.clades[:-1]), set(b.clades[:-1])
    return len(one ^ two) / (len(one) + len(two)) if one else 0.0


def pearson(x: Array, y: Array) -> float:
    """Pearson's correlation of (n,) and (n,); NaN where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else math.nan


def spearman(x: Array, y: Array) -> float:
    """Spearman's rank correlation, ties by their mean rank; NaN where one of them is constant."""
    return pearson(rankdata(x), rankdata(y))
