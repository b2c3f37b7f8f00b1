"""Image retrieval by cosine similarity at every label level: top-k, R-precision, MAP@R.

A gallery image is right for a query if both have the same label. R of a query is the number of right images in its
gallery. Zhang et al., Use All The Labels (CVPR 2022), section 4.4: https://arxiv.org/abs/2204.13207; Musgrave,
Belongie, Lim, A Metric Learning Reality Check (ECCV 2020), section 3.1: https://arxiv.org/abs/2003.08505.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from solo.eval.intervals import HalfMeans, Interval
from solo.eval.rows import best, cosines_within, unit_rows


@dataclass(frozen=True)
class Retrieval:
    """Results of one level, for each query that counts."""

    top_k: dict[int, Tensor]  # k -> (Q,) bool, whether one of the k most similar is right
    r_precision: Tensor  # (Q,) share of right ones among the R most similar, 0 to 1
    map_at_r: Tensor  # (Q,) mean over the ranks i = 1..R of (precision at i if the i-th is right, else 0), 0 to 1
    rows: Tensor  # (Q,) which rows of the features these queries are
    unknown: int  # queries left out because their label is unknown
    alone: int  # queries left out because nothing in their gallery is right
    # 95 % intervals of the means, `top<k>`, `r_precision` and `map_at_r`, where `cuts` were given
    intervals: dict[str, Interval] = field(default_factory=dict)

    def values(self) -> dict[str, Tensor]:
        """(Q,) float of each measure, under its name in `intervals`."""
        top = {f"top{k}": right.float() for k, right in self.top_k.items()}
        return top | {"r_precision": self.r_precision, "map_at_r": self.map_at_r}


@torch.no_grad()
def retrieve(
    features: Tensor,
    labels: Tensor,
    *,
    queries: Tensor | None = None,
    is_gallery: Tensor | None = None,
    top_k: Sequence[int] = (1, 5, 10),
    cuts: Tensor | None = None,
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
        cuts: halves of the images, for the intervals, see `cuts` of `solo.eval.intervals`.
        max_elements: bound on the similarities held at once, which bounds the memory.

    Returns:
        One result for each level, coarse first.
    """
    device, count = features.device, len(features)
    queries = torch.arange(count, device=device) if queries is None else queries.to(device)
    gallery = torch.arange(count, device=device) if is_gallery is None else is_gallery.to(device).nonzero()[:, 0]
    place = torch.full((count,), -1, device=device)
    place[gallery] = torch.arange(len(gallery), device=device)
    levels = [_Level(column, queries, gallery, place, top_k) for column in labels.to(device).T]
    depth = max((level.depth for level in levels), default=0)
    if depth:
        keys = unit_rows(features[gallery])
        rows = max(1, max_elements // len(gallery))
        for start in range(0, len(queries), rows):
            part = queries[start : start + rows]
            similarity = unit_rows(features[part]) @ keys.T
            own = place[part]
            inside = own >= 0
            similarity[inside.nonzero()[:, 0], own[inside]] = -torch.inf  # behind everybody
            order = best(similarity, depth)
            for level in levels:
                level.add(slice(start, start + len(part)), order)
    found = [level.result() for level in levels]
    if cuts is None:
        return found
    halves = [HalfMeans([*one.values()]) for one in found]
    is_query, member = torch.zeros(2, count, dtype=torch.bool, device=device)
    is_query[queries], member[gallery] = True, True
    for part, similarity, starts in cosines_within(features, cuts):
        similarity.view(*part.shape, -1).masked_fill_(~member[part][:, None], -torch.inf)  # behind everybody
        asked = labels.to(device)[part].masked_fill(~is_query[part][..., None], -1).movedim(2, 0)  # (L, b, n)
        there = labels.to(device)[part].masked_fill(~member[part][..., None], -1).movedim(2, 0)
        own = member[part].long()
        right = [((a[..., None] == t[:, None]).sum(dim=2) - own) * (a >= 0) for a, t in zip(asked, there, strict=True)]
        unknown = int((labels.to(device)[part] < 0).sum(dim=1).max()) if len(levels) else 0
        depth = min(part.shape[1], unknown + max([1, *top_k, *(int(one.max()) for one in right)]))
        order = best(similarity, depth) + starts
        for half, a, t, number in zip(halves, asked, there, right, strict=True):
            near = t.flatten()[order]
            values = _score(near >= 0, near == a.flatten()[:, None], number.flatten(), top_k)
            half.add(values.view(-1, *part.shape), (a >= 0) & (number > 0))
    return [
        replace(one, intervals={name: half.interval(name, each) for name, each in one.values().items()})
        for one, half in zip(found, halves, strict=True)
    ]


class _Level:
    """The results of one level while they are collected."""

    def __init__(self, labels: Tensor, queries: Tensor, gallery: Tensor, place: Tensor, top_k: Sequence[int]) -> None:
        self.asked, self.there, self.queries = labels[queries], labels[gallery], queries
        self.inside = place[queries] >= 0  # of the gallery themselves
        self.right = self._right()  # R of each query
        most = max(int(self.right.max()) if len(queries) else 0, *top_k)
        self.names = [f"top{k}" for k in top_k] + ["r_precision", "map_at_r"]
        self.top_k, self.values = tuple(top_k), torch.zeros(len(top_k) + 2, len(queries), device=queries.device)
        unknown = int((self.there < 0).sum())
        self.depth = min(len(gallery), most + unknown)  # unknown ones are skipped, and may all come first

    def _right(self) -> Tensor:
        """How many of the gallery are right for each query, itself left out; 0 for an unknown label."""
        known = self.there[self.there >= 0]
        counts = torch.bincount(known, minlength=max(int(self.asked.max()), 0) + 1 if len(self.asked) else 1)
        found = counts[self.asked.clamp(min=0)] - self.inside.long()
        return found.masked_fill(self.asked < 0, 0).clamp(min=0)

    def add(self, part: slice, order: Tensor) -> None:
        """Score the queries `part`, for which the gallery's columns are in `order` (q, depth)."""
        order = order[:, : self.depth]
        found = self.there[order]
        known, hit = found >= 0, found == self.asked[part, None]
        self.values[:, part] = _score(known, hit, self.right[part], self.top_k)

    def result(self) -> Retrieval:
        """Only the queries that count."""
        known = self.asked >= 0
        use = known & (self.right > 0)
        values = dict(zip(self.names, self.values[:, use].cpu(), strict=True))
        return Retrieval(
            {k: values[f"top{k}"].bool() for k in self.top_k},
            values["r_precision"],
            values["map_at_r"],
            self.queries[use].cpu(),
            unknown=int((~known).sum()),
            alone=int((known & ~use).sum()),
        )


def _score(known: Tensor, hit: Tensor, right: Tensor, top_k: Sequence[int]) -> Tensor:
    """(measures, q) of ranked images (q, depth), of which only the `known` ones are there; `right` (q,) is R."""
    rank, hits = known.cumsum(dim=1, dtype=torch.int32), hit.cumsum(dim=1, dtype=torch.int32)
    total = right.clamp(min=1)
    counted = hit & (rank <= total[:, None])
    return torch.stack(
        [
            *((hit & (rank <= k)).any(dim=1).float() for k in top_k),
            counted.sum(dim=1) / total,
            (counted * hits / rank.clamp(min=1)).sum(dim=1) / total,
        ]
    )
