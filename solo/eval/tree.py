"""The emergent tree: which classes, clusters or images an embedding joins first, and how that agrees with the labels.

Agglomerative clustering by SciPy. The measures: cophenetic correlation (Sokal, Rohlf: The comparison of dendrograms by
objective methods, Taxon 1962), Baker's gamma (Baker: Stability of two hierarchical grouping techniques, JASA 1974),
Robinson-Foulds distance (Robinson, Foulds: Comparison of phylogenetic trees, Mathematical Biosciences 1981), Mantel's
permutation test (Cancer Research 1967).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from solo.errors import UserError
from solo.eval.features import Array, draw, unit
from solo.taxonomy import Taxonomy

MOST_LEAVES = 10_000  # whose distances fill 400 MB


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
        from scipy.cluster.hierarchy import cophenet

        heights: Array = cophenet(self.merges)
        return heights

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
        from scipy.cluster.hierarchy import leaves_list, optimal_leaf_ordering

        ordered = optimal_leaf_ordering(self.merges, self.distances) if self.num_leaves <= 500 else self.merges
        return [int(leaf) for leaf in leaves_list(ordered)]

    def cut(self, clusters: int) -> Array:
        """(m,) cluster of each leaf when all but the last `clusters` - 1 merges are done, numbered by first leaf."""
        from scipy.cluster.hierarchy import cut_tree

        return np.asarray(cut_tree(self.merges, clusters)[:, 0])


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
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    allowed = 2 <= len(points) <= MOST_LEAVES
    if not allowed or not np.isfinite(points).all():
        what = "values that are not finite" if allowed else f"{len(points):,} points"
        raise UserError(f"a tree needs 2 to {MOST_LEAVES:,} finite points, got {what}; draw some, or use centroids")
    rows = unit(points)
    away = np.maximum(1 - rows @ rows.T, 0)
    np.fill_diagonal(away, 0)
    distances: Array = squareform(away, checks=False)
    return EmergentTree(linkage(distances, method="average"), distances)


def compare_with_labels(tree: EmergentTree, paths: Array, permutations: int = 199, seed: int = 0) -> TreeAgreement:
    """Agreement of a tree with the labels (m, L) of its leaves, coarse first, -1 unknown or below the end of a branch.

    `permutations` random re-labellings, drawn with `seed`, are behind `p_value`; 0 leaves it NaN.
    """
    from scipy.spatial.distance import squareform

    away, heights = label_distances(paths), tree.cophenetic
    correlation, p_value = pearson(heights, away), math.nan
    if permutations and not math.isnan(correlation):
        rng, square = np.random.default_rng(seed), squareform(away)
        left, right = np.triu_indices(len(square), k=1)
        centred = heights - heights.mean()
        threshold = float(centred @ away) * (1 - 1e-12)  # all permutations have the same variances: compare products
        orders = (rng.permutation(len(square)) for _ in range(permutations))
        as_good = sum(float(centred @ square[order[left], order[right]]) >= threshold for order in orders)
        p_value = (1 + as_good) / (permutations + 1)
    members = [np.flatnonzero(column == node) for column in paths.T for node in np.unique(column[column >= 0])]
    nodes = {frozenset(leaves.tolist()) for leaves in members if 1 < len(leaves) < tree.num_leaves}
    recovered = len(nodes & set(tree.clades)) / len(nodes) if nodes else math.nan
    return TreeAgreement(correlation, p_value, spearman(heights, away), recovered)


def label_distances(paths: Array) -> Array:
    """(m (m - 1) / 2,) levels below the lowest common ancestor of each pair, 0 (same leaf) to L, condensed."""
    left, right = np.triu_indices(len(paths), k=1)
    same = (paths[left] == paths[right]) & (paths[left] >= 0)
    return np.asarray(paths.shape[1] - np.cumprod(same, axis=1).sum(axis=1))


def cpcc(tree: Taxonomy, means: Array, leaves: Array, most: int = 2_000) -> float:
    """Cophenetic correlation, -1 to 1: of distances of classes' means (m, d) with those of `leaves` (m,) in the tree.

    Pearson's over all pairs, NaN with fewer than three classes or without variance; of more than `most` classes as many
    are drawn. Zeng, des Combes, Zhao: Learning structured representations by embedding class hierarchy (ICLR 2023).
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


def tree_similarity(a: EmergentTree, b: EmergentTree) -> float:
    """Baker's gamma of two trees over the same leaves, -1 to 1: rank correlation of their joining heights."""
    return spearman(a.cophenetic, b.cophenetic)


def pearson(x: Array, y: Array) -> float:
    """Pearson's correlation of (n,) and (n,); NaN where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else math.nan


def spearman(x: Array, y: Array) -> float:
    """Spearman's rank correlation, ties by their mean rank; NaN where one of them is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(x), rankdata(y))
