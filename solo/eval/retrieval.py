"""Image retrieval by cosine: at every label level by itself, and graded by how many levels query and image share.

By itself, a gallery image is right for a query if both have the same label; R of a query is the number of right images
in its gallery. Zhang et al., Use All The Labels (CVPR 2022), section 4.4: https://arxiv.org/abs/2204.13207; Musgrave,
Belongie, Lim (ECCV 2020), section 3.1: https://arxiv.org/abs/2003.08505.

Graded (Ramzi et al., ECCV 2022: https://arxiv.org/abs/2207.04873), with `l` the number of levels that query and image
share, of L (with one level H-AP is average precision):

- **H-AP**, hierarchical average precision: `sum_k Hrank(k) / rank(k) / sum_k rel(k)` over the relevant images, where
  `Hrank(k)` sums `min(rel(k), rel(j))` over the images j up to k, and `rel = (l / L) / (images that share l levels)`;
- **NDCG**: gains `2^l - 1`, discounts `log2(1 + rank)`;
- **ASI**, average set intersection: the mean over the ranks k, up to the number of relevant images, of the share of the
  first k that belong there level by level.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from solo.eval.features import ELEMENTS, best_columns, unit_rows


@dataclass(frozen=True)
class Retrieval:
    """Results of the queries that count."""

    # measure -> (Q,), 0 to 1. Of a level `top<k>`: one of the k most similar is right; `r_precision`: share of right
    # ones among the R most similar; `map_at_r`: mean over ranks i = 1..R of precision at i if the i-th is right, else 0
    values: dict[str, Tensor]
    rows: Tensor  # (Q,) which rows of the features these queries are
    unknown: int  # queries left out because their label (graded: the coarsest) is unknown
    alone: int  # queries left out because nothing in their gallery is right (graded: shares the coarsest label)


@torch.no_grad()
def retrieve(
    features: Tensor,
    labels: Tensor,
    *,
    queries: Tensor | None = None,
    is_gallery: Tensor | None = None,
    top_k: Sequence[int] = (1, 5, 10),
) -> list[Retrieval]:
    """Rank the gallery for each query, a block of queries at a time; one result for each level of labels (N, L).

    Labels are coarse first; images of unknown label (-1) are neither queries nor in the gallery of their level. Of
    features (N, d) `queries` (Q,) are row numbers, and `is_gallery` (N,) says where they are looked up, both by default
    all rows; a query is never in its own gallery.
    """
    labels, queries, gallery = _placed(features, labels, queries, is_gallery)
    asked, there = labels[queries].T, labels[gallery].T
    itself = torch.isin(queries, gallery).long()
    right, depths = [], []  # R of each query, and how many of the gallery have to be in order
    for column, a, t in zip(labels.T, asked, there, strict=True):
        counts = torch.bincount(t + 1, minlength=int(column.max()) + 2)
        right.append((counts[a + 1] - itself).masked_fill(a < 0, 0))
        most = int(right[-1].max()) if len(queries) else 0
        depths.append(min(len(gallery), max(most, *top_k) + int(counts[0])))  # unknown ones may all come first
    names = [*(f"top{k}" for k in top_k), "r_precision", "map_at_r"]
    values = torch.zeros(len(asked), len(names), len(queries), device=features.device)
    for part, order in _ranked(features, queries, gallery, max(depths, default=0)):
        for level, depth in enumerate(depths):
            near = there[level][order[:, :depth]]
            hit, total = near == asked[level, part, None], right[level][part].clamp(min=1)
            rank, hits = (x.cumsum(dim=1, dtype=torch.int32) for x in (near >= 0, hit))  # unknown ones have no rank
            counted = hit & (rank <= total[:, None])
            top = [(hit & (rank <= k)).any(dim=1).float() for k in top_k]
            precision = (counted * hits / rank.clamp(min=1)).sum(dim=1) / total
            values[level, :, part] = torch.stack([*top, counted.sum(dim=1) / total, precision])
    found = []
    for a, r, each in zip(asked, right, values, strict=True):
        unknown, alone = int((a < 0).sum()), int(((a >= 0) & (r == 0)).sum())
        measured = dict(zip(names, each[:, r > 0].cpu(), strict=True))
        found.append(Retrieval(measured, queries[r > 0].cpu(), unknown, alone))
    return found


@torch.no_grad()
def retrieve_graded(
    features: Tensor, labels: Tensor, *, queries: Tensor | None = None, is_gallery: Tensor | None = None
) -> Retrieval:
    """The graded measures; arguments are those of `retrieve`.

    Images of unknown coarsest label are neither queries nor in the gallery; below that, an unknown label ends the path.
    """
    labels, queries, gallery = _placed(features, labels, queries, is_gallery)
    known = labels[:, 0] >= 0
    asked, gallery = queries[known[queries]], gallery[known[gallery]]
    values = torch.full((len(asked), 3), torch.nan, device=features.device)
    for part, order in _ranked(features, asked, gallery, len(gallery)):
        query, there = asked[part, None], labels[gallery]
        shared = ((labels[query] == there) & (there >= 0)).cumprod(dim=2).sum(dim=2).masked_fill(query == gallery, 0)
        values[part] = _graded_scores(shared.gather(1, order), labels.shape[1])
    use = values[:, 0].isfinite()
    measured = dict(zip(("h_ap", "ndcg", "asi"), values[use].cpu().unbind(dim=1), strict=True))
    return Retrieval(measured, asked[use].cpu(), len(queries) - len(asked), int((~use).sum()))


def _placed(features: Tensor, labels: Tensor, queries: Tensor | None, is_gallery: Tensor | None) -> tuple[Tensor, ...]:
    """Labels, row numbers of the queries and of the gallery, where the features are."""
    device = features.device
    everyone = torch.arange(len(features), device=device)
    gallery = everyone if is_gallery is None else is_gallery.to(device).nonzero()[:, 0]
    return labels.to(device), everyone if queries is None else queries.to(device), gallery


def _ranked(features: Tensor, queries: Tensor, gallery: Tensor, depth: int) -> Iterator[tuple[slice, Tensor]]:
    """Some queries at a time, with the places in the gallery (q, depth) of the most similar images, itself the last."""
    keys = unit_rows(features[gallery])
    rows = max(1, ELEMENTS // max(1, len(gallery)))
    for start in range(0, len(queries) if depth else 0, rows):
        part = queries[start : start + rows]
        similarity = unit_rows(features[part]) @ keys.T
        similarity.masked_fill_(part[:, None] == gallery, -torch.inf)
        yield slice(start, start + len(part)), best_columns(similarity, depth)


def _graded_scores(shared: Tensor, num_levels: int) -> Tensor:
    """(q, 3): H-AP, NDCG and ASI of ranked images that share so many levels (q, n), NaN where nothing is relevant."""
    levels = torch.arange(num_levels + 1, device=shared.device)
    counts = torch.stack([(shared == level).sum(dim=1) for level in range(num_levels + 1)], dim=1)  # (q, L + 1)
    above = counts.flip(1).cumsum(dim=1).flip(1) - counts  # images that come before those of a level in the ideal order
    relevance = levels / num_levels / counts.clamp(min=1)  # (q, L + 1), of an image that shares so many levels
    ranks = torch.arange(1, shared.shape[1] + 1, device=shared.device, dtype=torch.int32)
    here = relevance.gather(1, shared)  # (q, n)
    discount = 1 / torch.log2(ranks + 1.0).double()
    until = torch.cat([discount.new_zeros(1), discount.cumsum(dim=0)])  # until[k]: sum of the first k
    hierarchical_rank, overlap = torch.zeros_like(here.expand(2, -1, -1))
    ideal_gain = until.new_zeros(len(shared))
    for level in range(1, num_levels + 1):
        seen = (shared == level).cumsum(dim=1, dtype=torch.int32)
        first, count = above[:, level, None], counts[:, level, None]
        hierarchical_rank += torch.minimum(here, relevance[:, level, None]) * seen
        overlap += torch.minimum(seen, (ranks - first).clamp(min=0).minimum(count))
        ideal_gain += (2.0**level - 1) * (until[first + count] - until[first])[:, 0]
    h_ap = (hierarchical_rank / ranks).sum(dim=1) / here.sum(dim=1)  # 0 / 0 where nothing is relevant
    gain = (2.0**levels - 1)[shared] @ discount.float()
    asi = (overlap / ranks * (ranks <= above[:, :1])).sum(dim=1) / above[:, 0]
    return torch.stack([h_ap, (gain / ideal_gain).float(), asi], dim=1)
