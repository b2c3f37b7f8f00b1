"""Accuracies of the nearest neighbours' vote, of features and labels of two sets."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from solo.eval.knn import Distance, nearest, vote_accuracy


def knn_accuracy(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    truth: Tensor,
    *,
    k: int = 20,
    distance: Distance = "cosine",
    max_elements: int = 5_000_000,
    **how: Any,
) -> list[tuple[float, float]]:
    near = nearest(test, train, min(k, len(train)), distance, max_elements)
    return vote_accuracy(*near, labels, truth, distance=distance, max_elements=max_elements, **how)
