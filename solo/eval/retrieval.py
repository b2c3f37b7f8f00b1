"""Image retrieval by cosine similarity at every label level: top-k, R-precision, MAP@R.

A gallery image is right for a query if both have the same label. R of a query is the number of right images in its
gallery. Zhang et al., Use All The Labels (CVPR 2022), section 4.4: https://arxiv.org/abs/2204.13207; Musgrave,
Belongie, Lim, A Metric Learning Reality Check (ECCV 2020), section 3.1: https://arxiv.org/abs/2003.08505.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Retrieval:
    """Results of one level, for each query that counts.

    Attributes:
        top_k: k -> (Q,) bool, whether one of the k most similar is right.
        r_precision: (Q,) share of right ones among the R most similar, 0 to 1.
        map_at_r: (Q,) mean over the ranks i = 1..R of (precision at i if the i-th is right, else 0), 0 to 1.
        rows: (Q,) which rows of the features these queries are.
        unknown: queries left out because their label is unknown.
        alone: queries left out because nothing in their gallery is right.
    """

    top_k: dict[int, Tensor]
    r_precision: Tensor
    map_at_r: Tensor
    rows: Tensor
    unknown: int
    alone: int


@torch.no_grad()
def retrieve(
    features: Tensor,
    labels: Tensor,
    *,
    queries: Tensor | None = None,
    is_gallery: Tensor | None = None,
    top_k: Sequence[int] = (1, 5, 10),
    max_elements: int = 5_000_000,
) -> list[Retrieval]:
    """Rank the gallery for each query, a block of queries at a time.

    Images of unknown label (-1) are neither queries nor in the gallery of their level.

    Args:
        features: (N, d).
        labels: (N, L), coarse first, -1 unknown.
        queries: (Q,) row numbers; default: all rows.
        is_gallery: (N,) bool, where queries are looked up; default: all rows. A query is never in its own gallery.
        top_k: which k.
        max_elements: bound on the similarities held at once, which bounds the memory.

    Returns:
        One result for each level, coarse first.
    """
    device, count = features.device, len(features)
    queries = torch.arange(count, device=device) if queries is None else queries.to(device)
    gallery = torch.arange(count, device=device) if is_gallery is None else is_gallery.to(device).nonzero()[:, 0]
    place = torch.full((count,), -1, device=device)
    place[gallery] = torch.arange(len(gallery), device=device)
    levels = [_Level(labels[:, level], queries, gallery, place, top_k) for level in range(labels.shape[1])]
    depth = max((level.depth for level in levels), default=0)
    if depth:
        keys = features[gallery].float()  # a copy, which there is no room for twice
        keys /= torch.linalg.vector_norm(keys, dim=1, keepdim=True).clamp(min=1e-12)
        rows = max(1, max_elements // len(gallery))
        for start in range(0, len(queries), rows):
            part = queries[start : start + rows]
            similarity = F.normalize(features[part].float(), dim=1) @ keys.T
            own = place[part]
            inside = own >= 0
            similarity[inside.nonzero()[:, 0], own[inside]] = -torch.inf  # behind everybody
            order = _best(similarity, depth)
            for level in levels:
                level.add(slice(start, start + len(part)), order)
    return [level.result() for level in levels]


def _best(similarity: Tensor, depth: int) -> Tensor:
    """Columns of the `depth` largest of each row, in their order."""
    if depth * 8 < similarity.shape[1]:
        return similarity.topk(depth, dim=1).indices
    return similarity.sort(dim=1, descending=True, stable=True).indices[:, :depth]


class _Level:
    """The results of one level while they are collected."""

    def __init__(self, labels: Tensor, queries: Tensor, gallery: Tensor, place: Tensor, top_k: Sequence[int]) -> None:
        labels = labels.to(queries.device)
        self.asked, self.there, self.queries = labels[queries], labels[gallery], queries
        counts = torch.bincount(self.there.clamp(min=0) + (self.there >= 0), minlength=max(int(labels.max()), 0) + 2)[
            1:
        ]
        right = counts[self.asked.clamp(min=0)] - (place[queries] >= 0).long()
        self.right = right.masked_fill(self.asked < 0, 0)  # R of each query
        unknown = int((self.there < 0).sum())
        most = max(int(self.right.max()) if len(queries) else 0, *top_k)
        self.depth = min(len(gallery), most + unknown)  # unknown ones are skipped, and may all come first
        self.top_k = {k: torch.zeros(len(queries), dtype=torch.bool, device=queries.device) for k in top_k}
        self.r_precision = torch.zeros(len(queries), device=queries.device)
        self.map_at_r = torch.zeros(len(queries), device=queries.device)

    def add(self, part: slice, order: Tensor) -> None:
        """Score the queries `part`, for which the gallery's columns are in `order` (q, depth)."""
        found = self.there[order[:, : self.depth]]
        known, hit = found >= 0, found == self.asked[part, None]
        rank, hits = known.int().cumsum(dim=1), hit.int().cumsum(dim=1)
        for k, right in self.top_k.items():
            right[part] = (hit & (rank <= k)).any(dim=1)
        total = self.right[part].clamp(min=1)
        counted = hit & (rank <= total[:, None])
        self.r_precision[part] = counted.sum(dim=1) / total
        self.map_at_r[part] = (counted * hits / rank.clamp(min=1)).sum(dim=1) / total

    def result(self) -> Retrieval:
        """Only the queries that count."""
        known = self.asked >= 0
        use = known & (self.right > 0)
        return Retrieval(
            {k: right[use].cpu() for k, right in self.top_k.items()},
            self.r_precision[use].cpu(),
            self.map_at_r[use].cpu(),
            self.queries[use].cpu(),
            unknown=int((~known).sum()),
            alone=int((known & ~use).sum()),
        )
