"""Which classes collapse onto each other: mixing of neighbourhoods and separation of centroids, for every pair.

Works on clusters as on labels. Nothing here needs a classifier: two classes that lie in one place have the same
neighbours.
"""

from dataclasses import dataclass

import numpy as np
import torch

from solo.eval.knn import nearest_others
from solo.eval.rows import Array, draw, unit
from solo.eval.tree import centroids

FEWEST = 8  # images of a class that is judged


@dataclass(frozen=True)
class Neighbours:
    """The nearest other rows of some rows, by cosine."""

    queries: Array  # (q,) row numbers
    rows: Array  # (q, k) their neighbours' row numbers, the most similar first, never the query itself
    similarity: Array  # (q, k) cosines


@dataclass(frozen=True)
class ConfusablePair:
    """Two classes and how far they are one."""

    first: int  # label
    second: int  # label, larger
    # 0 (no neighbour in the other class) to 1 (neighbours as if the two were one class), whatever the sizes
    mixing: float
    # distance of the centroids over the root mean square distance to the own centroid, of unit rows; 0: same place,
    # inf: two points without spread
    separation: float
    cosine: float  # of the centroids
    # (row of first, row of second) that are neighbours, the most similar first, each row once
    examples: tuple[tuple[int, int], ...]


def neighbours(features: Array, k: int = 20, most: int = 10_000, seed: int = 0) -> Neighbours:
    """The `k` nearest other rows of rows (n, d), or of `most` drawn at random; the bank is all rows."""
    n = len(features)
    queries = draw(n, most, seed)
    bank = torch.as_tensor(np.asarray(features))
    similarity, rows = nearest_others(bank, min(k, n - 1), queries=queries)
    return Neighbours(queries.numpy(), rows.numpy(), similarity.numpy())


def confusable_pairs(
    features: Array, labels: Array, near: Neighbours, most: int = 20, examples: int = 6
) -> list[ConfusablePair]:
    """The pairs of classes that collapse onto each other most, the worst first; of classes with at least 8 images.

    At most `most`, sorted by mixing, then by separation; `near` are the neighbours of the same rows (n, d), whose
    labels (n,) are classes or clusters, -1 left out.
    """
    means, known, counts = centroids(features, labels)
    means, known = means[counts >= FEWEST], known[counts >= FEWEST]
    if len(known) < 2:
        return []
    spread = _spread(features, labels, means, known)
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
        shown = _examples(labels, near, *pair, examples)
        cosine = float(rows[a] @ rows[b])
        found.append(ConfusablePair(*pair, float(mixing[a, b]), float(separation[place]), cosine, shown))
    return found


def mixing_matrix(labels: Array, near: Neighbours, known: Array | None = None) -> Array:
    """(m, m) symmetric mixing of each pair of labels, the diagonal 1.

    For labels a and b, p_ab is the share of b among those neighbours of a's rows that are a or b; mixing is
    p_ab + p_ba, clipped to 1: for two classes in one place p_ab = n_b / (n_a + n_b), so that their sum is 1. NaN for
    classes of fewer than 8 images, of which it would say little.
    """
    known = np.unique(labels[labels >= 0]) if known is None else known
    table = neighbour_counts(labels, near, known)
    own = np.diag(table)[:, None]
    with np.errstate(invalid="ignore"):
        share = np.where(table > 0, table / (table + own), 0.0)
    mixing: Array = np.minimum(share + share.T, 1.0)
    np.fill_diagonal(mixing, 1.0)
    few = np.bincount(labels[labels >= 0], minlength=int(max(known, default=0)) + 1)[known] < FEWEST
    mixing[few] = mixing[:, few] = np.nan
    return mixing


def neighbour_counts(labels: Array, near: Neighbours, known: Array) -> Array:
    """(m, m) how many neighbours of label b (column) the rows of label a (row) have together."""
    place = np.full(int(max(labels.max(), 0)) + 1, -1)
    place[known] = np.arange(len(known))
    places = np.where(labels >= 0, place[labels], -1)
    theirs = places[near.rows]
    mine = np.broadcast_to(places[near.queries][:, None], theirs.shape)
    used = (mine >= 0) & (theirs >= 0)
    table: Array = np.bincount(mine[used] * len(known) + theirs[used], minlength=len(known) ** 2)
    return table.reshape(len(known), len(known)).astype(float)


def _spread(features: Array, labels: Array, means: Array, known: Array) -> Array:
    """(m,) root mean square distance of unit rows to their mean: sqrt(E|x|^2 - |mean|^2)."""
    norms, used = np.linalg.norm(np.asarray(features, dtype=np.float32), axis=1), labels >= 0
    lengths = np.bincount(labels[used], norms[used] > 0)[known] / np.bincount(labels[used])[known]  # 1 but for zeros
    spread: Array = np.sqrt(np.maximum(lengths - (means**2).sum(axis=1), 0))
    spread[spread < 1e-7] = 0.0  # rounding of float32 rows
    return spread


def _examples(labels: Array, near: Neighbours, a: int, b: int, most: int) -> tuple[tuple[int, int], ...]:
    mine, theirs = labels[near.queries][:, None], labels[near.rows]
    met = ((mine == a) & (theirs == b)) | ((mine == b) & (theirs == a))
    query, column = np.nonzero(met)
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    for place in np.argsort(-near.similarity[query, column], kind="stable"):
        pair = int(near.queries[query[place]]), int(near.rows[query[place], column[place]])
        first, second = pair if labels[pair[0]] == a else pair[::-1]
        if not {first, second} & seen and len(found) < most:
            seen |= {first, second}
            found.append((first, second))
        if len(found) == most:
            break
    return tuple(found)
