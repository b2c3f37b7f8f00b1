from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from solo.nn.memory import KMeans


def reference(rows: Tensor, centroids: Tensor, iterations: int) -> tuple[list[int], Tensor]:
    centroids = centroids.clone()
    for step in range(iterations + 1):
        nearest = [max(range(len(centroids)), key=lambda c: float(row @ centroids[c])) for row in rows]
        if step == iterations:
            break
        for c in range(len(centroids)):
            members = [row for row, cluster in zip(rows, nearest, strict=True) if cluster == c]
            if members:
                centroids[c] = sum(members) / torch.linalg.norm(sum(members))
    return nearest, centroids


def test_against_a_loop() -> None:
    memory = F.normalize(torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    samples = torch.randperm(25, generator=torch.Generator().manual_seed(1))[:20]
    sizes = [4, 5, 3]  # the third set uses the first crop again
    torch.manual_seed(2)
    assignments, centroids = KMeans(1, 0, 2, 25, 3, sizes, kmeans_iters=4).cluster_memory(samples, memory)
    torch.manual_seed(2)
    for head, k in enumerate(sizes):
        rows = memory[head % 2]
        start = rows[torch.randperm(25)[samples].argsort()[:k]]  # random samples, wherever their rows are
        clusters, expected = reference(rows, start, 4)
        assert assignments[head, samples].tolist() == clusters
        torch.testing.assert_close(centroids[head], expected)
    absent = sorted(set(range(25)) - set(samples.tolist()))
    assert assignments.shape == (3, 25) and (assignments[:, absent] == -1).all()


def test_a_cluster_without_rows_keeps_its_centroid() -> None:
    memory = torch.tensor([[1.0, 0.0]] * 4)[None]  # equal rows, equal starts: the first one gets all
    assignments, (centroids,) = KMeans(1, 0, 1, 4, 2, [2]).cluster_memory(torch.arange(4), memory)
    assert assignments.tolist() == [[0, 0, 0, 0]] and centroids.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_too_few_rows() -> None:
    with pytest.raises(AssertionError, match="5 clusters.*only 4 rows"):
        KMeans(1, 0, 1, 4, 2, [5]).cluster_memory(torch.arange(4), torch.ones(1, 4, 2))
