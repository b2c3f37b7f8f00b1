"""Clusters over the rows of all processes: balanced soft assignments for SwAV, spherical k-means for DeepCluster v2."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.errors import UserError
from solo.precision import at_least_float32


class SinkhornKnopp(nn.Module):
    """Scores of samples and prototypes -> soft assignments in which all prototypes are used alike.

    By `num_iters` rounds of normalising the prototypes, then the samples; the smaller `epsilon` > 0, the harder they
    are. `world_size` has no effect: the process group knows.
    """

    def __init__(self, num_iters: int = 3, epsilon: float = 0.05, world_size: int = 1) -> None:
        super().__init__()
        self.num_iters, self.epsilon, self.world_size = num_iters, epsilon, world_size

    def forward(self, Q: Tensor, counts: Tensor | None = None) -> Tensor:
        """Scores (B, K) of this process -> assignments (B, K) whose rows sum to 1, balanced over all processes.

        Or (V, B, K), each of the V balanced by itself. Rows that don't count (`counts` (B,) or (V, B) boolean, None:
        all do) have no part in the balance, and are 0.
        """
        return self.each(Q, counts=counts)[0]

    @torch.no_grad()
    def each(self, *scores: Tensor, counts: Tensor | None = None) -> list[Tensor]:
        """Assignments of several scores, each balanced by itself; their sums travel together."""
        log_q = [at_least_float32(own) / self.epsilon for own in scores]  # in log space, where no score is too large
        for _ in range(self.num_iters):
            if counts is not None:
                log_q = [q.masked_fill(~counts[..., None], -torch.inf) for q in log_q]
            sums = distributed.gather_each(*(q.logsumexp(dim=-2)[None] for q in log_q))
            balanced = (q - every.logsumexp(dim=0).unsqueeze(-2) for q, every in zip(log_q, sums, strict=True))
            log_q = [q.log_softmax(dim=-1) for q in balanced]
        return [q.exp() if counts is None else q.exp().masked_fill(~counts[..., None], 0) for q in log_q]


class FewRowsError(UserError, AssertionError):
    """There are fewer rows than clusters (an `AssertionError`, as in solo-learn)."""


@dataclass
class KMeans:
    """Clusters the memory once for every set of prototypes; the sets take the large crops in turn."""

    world_size: int  # without effect, as is `rank`: the process group knows
    rank: int
    num_large_crops: int  # views in the memory
    dataset_size: int  # number of samples, as many as there may be indexes
    proj_features_dim: int  # D
    num_prototypes: Sequence[int]  # number of clusters of every set
    kmeans_iters: int = 10  # how often the centroids move

    @torch.no_grad()
    def cluster_memory(
        self, local_memory_index: Tensor, local_memory_embeddings: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Cluster the unit rows (crops, n, D), samples (n,), that all processes remember.

        Returns clusters (heads, dataset_size) of the samples, -1 where one isn't in the memory, and unit centroids (k,
        D) for each head. Raises a `FewRowsError` if all processes together have fewer rows than there are clusters.
        """
        places = distributed.gather_no_grad(local_memory_index)
        assignments = places.new_full((len(self.num_prototypes), self.dataset_size), -1)
        all_centroids = []
        for head, k in enumerate(self.num_prototypes):
            rows = local_memory_embeddings[head % self.num_large_crops]
            centroids = self._start(rows, local_memory_index, k)
            for _ in range(self.kmeans_iters):
                centroids = _move(centroids, rows, _nearest(rows, centroids))
            assignments[head, places] = distributed.gather_no_grad(_nearest(rows, centroids))
            all_centroids.append(centroids)
        return assignments, all_centroids

    def _start(self, rows: Tensor, places: Tensor, k: int) -> Tensor:
        """The rows (k, D) of random samples: the same ones, however the rows are spread over processes."""
        total = len(rows) * distributed.world_size()
        if total < k:
            what = f"method_kwargs.num_prototypes asks for {k} clusters, but there are only {total} rows to start from"
            raise FewRowsError(f"{what}; take fewer prototypes, or more images")
        turn = distributed.of_first(torch.randperm(self.dataset_size, device=rows.device))[places]
        first = turn.argsort()[:k]
        rows, turn = distributed.gather_no_grad(rows[first]), distributed.gather_no_grad(turn[first])
        return rows[turn.argsort()[:k]]


def _nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    """Index (n,) of the closest centroid."""
    return (rows @ centroids.T).argmax(dim=1)


def _move(centroids: Tensor, rows: Tensor, clusters: Tensor) -> Tensor:
    """The centroids (k, D) as directions of their clusters' sums; one without rows stays where it is."""
    sums = distributed.all_reduce_sum(torch.zeros_like(centroids).index_add_(0, clusters, rows))
    counts = distributed.all_reduce_sum(torch.bincount(clusters, minlength=len(centroids)))
    return F.normalize(torch.where(counts[:, None] > 0, sums, centroids), dim=1)
