"""Retrieval with graded relevance: a gallery image is the more right, the deeper the ancestor it shares with the query.

With `l` the number of levels that query and image share, of L, the three measures are

- **H-AP**, hierarchical average precision: `sum_k Hrank(k) / rank(k) / sum_k rel(k)` over the relevant images, where
  `Hrank(k)` sums `min(rel(k), rel(j))` over the images j up to k, and `rel = (l / L) / (images that share l levels)`;
- **NDCG**: gains `2^l - 1`, discounts `log2(1 + rank)`;
- **ASI**, average set intersection: the mean over the ranks k, up to the number of relevant images, of the share of the
  first k that belong there level by level.

Ramzi, Audebert, Thome, Rambour, Bitot: Hierarchical average precision training for pertinent image retrieval (ECCV
2022): https://arxiv.org/abs/2207.04873. With one level H-AP is average precision.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from solo.eval.intervals import HalfMeans, Interval
from solo.eval.rows import best, cosines_within


@dataclass(frozen=True)
class GradedRetrieval:
    """Results of the queries that count."""

    h_ap: Tensor  # (Q,) hierarchical average precision, 0 to 1
    ndcg: Tensor  # (Q,) normalised discounted cumulative gain, 0 to 1
    asi: Tensor  # (Q,) average set intersection, 0 to 1
    rows: Tensor  # (Q,) which rows of the features these queries are
    unknown: int  # queries left out because their coarsest label is unknown
    alone: int  # queries left out because no image of their gallery shares even that one
    intervals: dict[str, Interval] = field(default_factory=dict)  # 95 % intervals of the means, where `cuts` were given

    def values(self) -> dict[str, Tensor]:
        """(Q,) of each measure, under its name in `intervals`."""
        return {"h_ap": self.h_ap, "ndcg": self.ndcg, "asi": self.asi}


@torch.no_grad()
def retrieve_graded(
    features: Tensor,
    labels: Tensor,
    *,
    queries: Tensor | None = None,
    is_gallery: Tensor | None = None,
    cuts: Tensor | None = None,
    max_elements: int = 5_000_000,
) -> GradedRetrieval:
    """Rank the whole gallery by cosine for each query, a block of queries at a time.

    Images whose coarsest label is unknown are neither queries nor in the gallery; below that, an unknown label ends the
    path that two images can share.

    Args:
        features: (N, d).
        labels: (N, L), coarse first, -1 unknown.
        queries: (Q,) row numbers; default: all rows.
        is_gallery: (N,) bool, where queries are looked up; default: all rows. A query is never in its own gallery.
        cuts: halves of the images, for the intervals, see `cuts` of `solo.eval.intervals`.
        max_elements: bound on the similarities held at once, which bounds the memory.
    """
    device = features.device
    labels = labels.to(device)
    asked = torch.arange(len(features), device=device) if queries is None else queries.to(device)
    known = labels[:, 0] >= 0
    gallery = (known if is_gallery is None else known & is_gallery.to(device)).nonzero()[:, 0]
    unknown = int((~known[asked]).sum())
    asked = asked[known[asked]]
    keys = F.normalize(features[gallery].float(), dim=1)
    rows = max(1, max_elements // max(1, len(gallery)))
    parts = []
    for part in torch.split(asked, rows) if len(gallery) else ():
        similarity = F.normalize(features[part].float(), dim=1) @ keys.T
        own = part[:, None] == gallery
        order = best(similarity.masked_fill_(own, -torch.inf), len(gallery))
        shared = _shared_levels(labels[part][:, None], labels[gallery][None]).masked_fill_(own, 0)
        parts.append(_score(shared.gather(1, order), labels.shape[1]))
    scores = torch.cat(parts) if parts else torch.full((len(asked), 3), torch.nan, device=device)
    use = scores[:, 0].isfinite()
    h_ap, ndcg, asi = scores[use].cpu().unbind(dim=1)
    whole = GradedRetrieval(h_ap, ndcg, asi, asked[use].cpu(), unknown, alone=int((~use).sum()))
    if cuts is None:
        return whole
    halves = HalfMeans([*whole.values()])
    is_query, member = torch.zeros(2, len(features), dtype=torch.bool, device=device)
    is_query[asked], member[gallery] = True, True
    for half, similarity, _ in cosines_within(features.float(), cuts):
        others = member[half][:, None] & ~torch.eye(half.shape[1], dtype=torch.bool, device=device)
        order = best(similarity.masked_fill_(~others.flatten(0, 1), -torch.inf), half.shape[1])
        shared = _shared_levels(labels[half][:, :, None], labels[half][:, None]).masked_fill_(~others, 0)
        values = _score(shared.flatten(0, 1).gather(1, order), labels.shape[1]).T.reshape(3, *half.shape)
        halves.add(values, is_query[half] & values[0].isfinite())
    return replace(whole, intervals={name: halves.interval(name, each) for name, each in whole.values().items()})


def _score(shared: Tensor, num_levels: int) -> Tensor:
    """(q, 3): H-AP, NDCG and ASI of ranked images that share so many levels (q, n), NaN where nothing is relevant."""
    size = shared.shape[1]
    counts = torch.stack([(shared == level).sum(dim=1) for level in range(num_levels + 1)], dim=1)  # (q, L + 1)
    above = counts.flip(1).cumsum(dim=1).flip(1) - counts  # images that come before those of a level in the ideal order
    relevant = above[:, 0]
    depth = torch.arange(num_levels + 1, device=shared.device) / num_levels
    relevance = depth / counts.clamp(min=1)  # (q, L + 1), of an image that shares so many levels
    ranks = torch.arange(1, size + 1, device=shared.device, dtype=torch.int32)
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
    gain = (2.0 ** torch.arange(num_levels + 1, device=shared.device) - 1)[shared] @ discount.float()
    asi = (overlap / ranks * (ranks <= relevant[:, None])).sum(dim=1) / relevant
    return torch.stack([h_ap, (gain / ideal_gain).float(), asi], dim=1)


def _shared_levels(a: Tensor, b: Tensor) -> Tensor:
    """How many levels from the top labels share: (..., L), broadcast -> (...)."""
    return ((a == b) & (a >= 0)).cumprod(dim=-1).sum(dim=-1)
