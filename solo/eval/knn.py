"""Weighted k-nearest-neighbour classification, in chunks, on any device.

Wu, Xiong, Yu, Lin: Unsupervised feature learning via non-parametric instance discrimination,
https://arxiv.org/abs/1805.01978.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from solo.eval.rows import best as best_columns
from solo.eval.rows import unit_rows
from solo.precision import at_least_float32

Distance = Literal["cosine", "euclidean"]

_QUERY_ROWS = 1024  # enough rows for a fast matrix product; the rest of the memory goes to columns


@torch.no_grad()
def vote_accuracy(
    similarity: Tensor, neighbours: Tensor, train_targets: Tensor, test_targets: Tensor, **how: Any
) -> list[tuple[float, float]]:
    """Top-1 and top-5 accuracy in percent, coarse level first; NaN where no test row has a label.

    `similarity` and `neighbours` (M, k) are of `nearest`, targets (N,) or (N, L) and (M,) or (M, L); `how` is the rest
    of `vote_ranking`. A level has as many classes as the largest label of both sets says; top-5 is over min(5, k,
    classes). Unknown labels (-1) neither vote nor count.
    """
    train_targets, test_targets = _columns(train_targets), _columns(test_targets)
    classes = [max(int(a), int(b), 0) + 1 for a, b in zip(train_targets.amax(0), test_targets.amax(0), strict=True)]
    found = []
    for level, count in enumerate(classes):
        best = vote_ranking(similarity, train_targets[neighbours, level], count, **how)
        (right,) = hits([best], test_targets[:, level : level + 1])
        found.append((100 * float(right["acc1"].double().mean()), 100 * float(right["acc5"].double().mean())))
    return found


def hits(rankings: Sequence[Tensor], truth: Tensor) -> list[dict[str, Tensor]]:
    """For each level whether the first of up to five ranked classes is right (`acc1`), and whether any is (`acc5`).

    Of the images whose label (n, L) is known, not -1.
    """
    found = []
    for best, column in zip(rankings, truth.T, strict=True):
        right = (best == column[:, None])[column >= 0]
        found.append({"acc1": right[:, 0], "acc5": right.any(dim=1)})
    return found


@torch.no_grad()
def vote_ranking(
    similarity: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    temperature: float = 0.07,
    distance: Distance = "cosine",
    epsilon: float = 1e-5,
    max_elements: int = 5_000_000,
) -> Tensor:
    """The classes with the most votes, (M, min(5, k, num_classes)), the winner first; -1 for a class without a vote.

    Args:
        similarity: (M, k), descending.
        labels: (M, k) of the neighbours, -1 unknown.
        num_classes: above all of them.
        temperature: of the votes' weights, with cosine.
        distance: with which the neighbours were found.
        epsilon: keeps the euclidean weights finite.
        max_elements: bound on the votes held at once.
    """
    if distance == "euclidean":
        weights = 1 / (epsilon - similarity)
    else:  # relative to the best neighbour: the same votes, without overflow at a small temperature
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
    rows, parts = max(1, max_elements // num_classes), []
    for start in range(0, len(similarity), rows):
        part = slice(start, start + rows)
        best = vote(labels[part], weights[part], num_classes).topk(min(5, similarity.shape[1], num_classes), dim=1)
        # A class without a vote is no answer, even where fewer than five got one.
        parts.append(best.indices.masked_fill(best.values <= 0, -1))
    return torch.cat(parts)


@torch.no_grad()
def nearest(
    query: Tensor, keys: Tensor | Sequence[Tensor], k: int, distance: Distance = "cosine", max_elements: int = 5_000_000
) -> tuple[Tensor, Tensor]:
    """The k most similar of keys (N, D), N >= k, of each query (M, D), about `max_elements` similarities at a time.

    The keys may come in parts, and are in memory once, in their own precision: rows are brought to float32 and to
    length 1 a block at a time.

    Returns:
        similarity (M, k), descending: the cosine, or minus the euclidean distance; and the keys' indices (M, k).
    """
    keys = [keys] if isinstance(keys, Tensor) else keys
    rows = max(1, min(len(query), _QUERY_ROWS, max_elements // max(k, 1)))
    columns = max(k, max_elements // rows)
    parts = [_nearest_of(_prepare(part, distance), keys, k, distance, columns) for part in torch.split(query, rows)]
    similarity, index = zip(*parts, strict=True)
    return torch.cat(similarity), torch.cat(index)


@torch.no_grad()
def nearest_others(
    features: Tensor,
    k: int,
    distance: Distance = "cosine",
    max_elements: int = 5_000_000,
    queries: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`nearest` among rows (N, D), N > k, themselves, each of all or of the `queries` (Q,) without itself."""
    asked = features if queries is None else features[queries]
    similarity, index = nearest(asked, features, k + 1, distance, max_elements)
    others = _others(index, torch.arange(len(features)) if queries is None else queries)
    return similarity[others].reshape(-1, k), index[others].reshape(-1, k)


def _others(index: Tensor, place: Tensor) -> Tensor:
    """Which of the neighbours (M, k + 1) of rows (M,) are to stay, k of each: not the row itself."""
    own = index == place.to(index.device)[:, None]
    own[:, -1] |= ~own.any(dim=1)  # behind k + 1 equal rows: any of them may go
    return ~own


def spherical_kmeans(rows: Tensor, centres: Tensor, iterations: int) -> Tensor:
    """Centres (C, D) of unit rows (N, D), from centres to begin with; one that nobody is nearest to stays."""
    for _ in range(iterations):
        sums = torch.zeros_like(centres).index_add_(0, nearest(rows, centres, 1)[1][:, 0], rows)
        centres = torch.where(sums.any(dim=1, keepdim=True), unit_rows(sums), centres)
    return centres


@torch.no_grad()
def nearest_by_cells(features: Tensor, k: int, probes: int = 16) -> Tensor:
    """Nearly the k nearest others, by cosine, of rows (N, D), N > k: (N, k), in time that grows with N^1.5 and not N^2.

    Spherical k-means of a part of the rows makes about sqrt(N) / 2 cells, and a row is compared with those in the
    `probes` cells that are nearest to its own.
    """
    rows, count = unit_rows(features), max(1, round(len(features) ** 0.5 / 2))
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: 64 * count]
    some = rows[chosen.to(rows.device)]
    centres = spherical_kmeans(some, some[:count], 5)
    cell = nearest(rows, centres, 1)[1][:, 0]
    members = torch.split(cell.argsort(stable=True), cell.bincount(minlength=count).tolist())
    found = cell.new_empty(len(rows), k)
    for own, cells in zip(members, nearest(centres, centres, min(probes, count))[1].tolist(), strict=True):
        near = torch.cat([members[number] for number in cells])
        if len(near) <= k:
            near = torch.arange(len(rows), device=cell.device)
        if len(own):
            index = near[nearest(rows[own], rows[near], k + 1)[1]]
            found[own] = index[_others(index, own)].reshape(-1, k)
    return found


def _nearest_of(
    query: Tensor, keys: Sequence[Tensor], k: int, distance: Distance, columns: int
) -> tuple[Tensor, Tensor]:
    best = query.new_empty(len(query), 0)
    index = torch.empty(len(query), 0, dtype=torch.long, device=query.device)
    for start, rows in _blocks(keys, columns):
        block = _prepare(rows, distance)
        similarity = query @ block.T if distance == "cosine" else -torch.cdist(query, block)
        place = best_columns(similarity, min(k, len(block)))
        top = similarity.gather(1, place)
        best, index = torch.cat([best, top], dim=1), torch.cat([index, place + start], dim=1)
        if best.shape[1] > k:
            best, place = best.topk(k, dim=1)
            index = index.gather(1, place)
    return best, index


def _blocks(parts: Sequence[Tensor], rows: int) -> Iterator[tuple[int, Tensor]]:
    """At most `rows` rows of the parts at a time, each with the number of its first row."""
    start, waiting = 0, list[Tensor]()
    for piece in (piece for part in parts for piece in torch.split(part, rows)):
        if waiting and sum(map(len, waiting)) + len(piece) > rows:
            yield start, torch.cat(waiting)
            start, waiting = start + sum(map(len, waiting)), []
        waiting.append(piece)
    if waiting:
        yield start, torch.cat(waiting) if len(waiting) > 1 else waiting[0]


def vote(labels: Tensor, weights: Tensor, num_classes: int) -> Tensor:
    """Sum the weights by label: labels (M, k) with -1 for unknown, weights (M, k) -> scores (M, num_classes)."""
    weights = weights.masked_fill(labels < 0, 0)
    return weights.new_zeros(len(labels), num_classes).scatter_add_(1, labels.clamp(min=0), weights)


def _prepare(features: Tensor, distance: Distance) -> Tensor:
    return unit_rows(features) if distance == "cosine" else at_least_float32(features)


def _columns(targets: Tensor) -> Tensor:
    return targets[:, None] if targets.ndim == 1 else targets
