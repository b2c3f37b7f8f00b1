"""HAPPIER: hierarchical average precision as a loss.

Ramzi, Audebert, Thome, Rambour, Bitot: Hierarchical average precision training for pertinent image retrieval (ECCV
2022), https://arxiv.org/abs/2207.04873, and its release.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.losses.blockwise import blockwise
from solo.losses.numerics import full_precision
from solo.losses.pairs import BLOCK_ELEMENTS, Pairs, listed, unit
from solo.losses.tree_heads import TreeLoss, means_of_known
from solo.taxonomy import Taxonomy

TAU, DELTA, RHO = 0.01, 0.05, 100.0  # of the release
_AT_DELTA = 0.5 + 1 / (1 + math.exp(-DELTA / TAU))


class HierarchicalAP:
    """1 - H-AP of each anchor among all keys, a block of rows at a time, with an upper bound of the ranks.

    ``H-AP = sum_k Hrank(k) / rank(k) / sum_k rel(k)``, where ``Hrank(k) = sum_{j up to k} min(rel(k), rel(j))`` and
    ``rel(j) = (l / L) / |those who share l levels|``, see `solo.eval.retrieval`. A key j that is less relevant than k
    enters rank(k) by a smooth step of ``t = s_j - s_k``: ``sigma(t / tau)`` below 0, a half more up to delta, then a
    line of slope rho; all others, and Hrank, by the plain step, without a gradient.
    """

    def __init__(self, pairs: Pairs, levels: Tensor, key_levels: Tensor) -> None:
        self.levels, self.key_levels, self.offset = levels, key_levels, pairs.offset or 0
        coarse = key_levels[:, 0].sort().values
        alike = (coarse[1:] == coarse[:-1]) & (coarse[1:] >= 0)  # of all processes' anchors, who has a relevant key
        self.queries = (F.pad(alike, (1, 0)) | F.pad(alike, (0, 1))).sum()

    def __call__(self, similarity: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Summed loss of a block of R anchors, and its gradient: cosines (R, N) -> (), (R, N)."""
        most = BLOCK_ELEMENTS.get(similarity.device.type, BLOCK_ELEMENTS["cuda"])
        step = max(1, most // max(1, similarity.shape[1] ** 2))
        starts = range(rows.start, rows.start + len(similarity), step)
        parts = [self._score(similarity[at - rows.start :][:step], at) for at in starts]
        return torch.stack([loss for loss, _ in parts]).sum(), torch.cat([grad for _, grad in parts])

    def _score(self, s: Tensor, start: int) -> tuple[Tensor, Tensor]:
        mine, depth = self.levels[start : start + len(s)], self.levels.shape[1]
        shared = torch.zeros(s.shape, dtype=torch.long, device=s.device)
        same = torch.ones_like(shared, dtype=torch.bool)
        for one, other in zip(mine.T, self.key_levels.T, strict=True):
            same = same & (one[:, None] == other) & (one[:, None] >= 0)
            shared += same
        shared.diagonal(self.offset + start).fill_(0)
        there = (self.key_levels[:, 0] >= 0).expand_as(same).clone()
        there.diagonal(self.offset + start).fill_(False)
        sizes = torch.stack([(shared == level).sum(dim=1) for level in range(depth + 1)], dim=1).clamp(min=1)
        relevance = (shared.to(s) / depth) / sizes.gather(1, shared)  # (R, N)
        total = relevance.sum(dim=1)
        # A list of P anchors with a k each: the relevant ones where counting them waits for no device, else all, of
        # which the others add nothing. That k itself is at no distance makes it count in both of its ranks.
        if listed(s):
            row, k = relevance.nonzero(as_tuple=True)
        else:
            each = torch.arange(s.numel(), device=s.device)
            row, k = each // s.shape[1], each % s.shape[1]
        t, level, taking_part = s[row] - s[row, k][:, None], shared[row, k][:, None], there[row]  # (P, N), but level
        above = (t >= 0) & taking_part
        hrank = (torch.minimum(relevance[row], relevance[row, k][:, None]) * above).sum(dim=1)
        smooth, far = (shared[row] < level) & taking_part, t > DELTA
        sigma = (t / TAU).sigmoid()
        soft = torch.where(far, RHO * (t - DELTA) + _AT_DELTA, sigma + 0.5 * (t > 0))
        rank = torch.where(smooth, soft, above.to(s)).sum(dim=1).clamp_min(1)
        share = hrank / rank / total.masked_fill(total == 0, 1)[row]
        slope = torch.where(far, RHO, sigma * (1 - sigma) / TAU).masked_fill_(~smooth, 0)
        pull = slope.mul_((share / rank)[:, None])  # d loss / d t
        grad = torch.zeros_like(s).index_add_(0, row, pull)
        grad.index_put_((row, k), -pull.sum(dim=1), accumulate=True)
        return (total > 0).sum() - share.sum(), grad

    def scale(self) -> Tensor:
        """1 / (anchors with a relevant key, per process)."""
        return distributed.world_size() / self.queries.clamp_min(1).to(torch.get_default_dtype())


class Happier(TreeLoss):
    """1 - H-AP of the images of one view, and a cross-entropy with class proxies, which share the weight of 1.

    `cluster_weight`, in [0, 1], is that of the cross-entropy of ``cosine / temperature``.
    """

    def __init__(self, tree: Taxonomy, dim: int, cluster_weight: float = 0.1, temperature: float = 0.05) -> None:
        super().__init__(tree, dim)
        self.weight, self.temperature = cluster_weight, temperature
        self.proxies = nn.Parameter(torch.randn(tree.num_classes, dim))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Outputs (N, dim), or (V, N, dim) of views that are ranked one by one, and labels (N, L) -> scalar."""
        return self._loss(z, self.proxies, labels)

    @full_precision
    def _loss(self, z: Tensor, proxies: Tensor, labels: Tensor) -> Tensor:
        (node, known), own, views = self.nodes(labels), self.completed(labels), z.reshape(-1, *z.shape[-2:]).unbind()
        key_levels, later = distributed.gather_later(own), [Pairs.views_later([view]) for view in views]
        far = [self.marginal(unit(view) @ unit(proxies).T / self.temperature, node) for view in views]
        cluster = means_of_known(far, [known] * len(far))
        pairs = [found() for found in later]
        ranking = torch.stack([blockwise(view, HierarchicalAP(view, own, *key_levels())) for view in pairs])
        return ((1 - self.weight) * ranking + self.weight * cluster).mean()
