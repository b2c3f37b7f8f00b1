"""Classes that features are taken for, at each level by itself: the best five by neighbours and by a classifier."""

from __future__ import annotations

import torch
from torch import Tensor

from solo.eval.features import FeatureTable
from solo.eval.knn import nearest, nearest_others, vote_ranking
from solo.eval.linear import fit_linear


def knn_ranking(
    bank: FeatureTable | None, val: FeatureTable, k: int, temperature: float, device: torch.device
) -> list[Tensor]:
    """By the votes of the nearest neighbours, as in `solo.eval.knn`.

    Args:
        bank: those that vote; None: the other rows of `val`.
        val: whose classes are asked.
        k: neighbours, clipped to what there is.
        temperature: of the votes' weights.
        device: where to compute.

    Returns:
        For each column of the labels (n, at most 5) classes, the best first, -1 for a class without a vote.
    """
    query = val.features.to(device)
    if bank is None:
        similarity, rows = nearest_others(query, min(k, len(val) - 1))
    else:
        similarity, rows = nearest(query, bank.features.to(device), min(k, len(bank)))
    voters = (val if bank is None else bank).labels
    counts = _classes(voters, val.labels)
    return [
        vote_ranking(similarity, rows, labels.to(device), count, temperature=temperature).cpu()
        for labels, count in zip(voters.T, counts, strict=True)
    ]


def linear_ranking(
    bank: FeatureTable, features: Tensor, labels: Tensor, l2: float, steps: int, device: torch.device
) -> list[Tensor]:
    """By `solo.eval.linear`, fitted to the bank.

    Args:
        bank: training rows.
        features: (n, d) of those whose classes are asked.
        labels: (n, L) theirs, for the number of classes only.
        l2: strength of the penalty.
        steps: of L-BFGS, at most.
        device: where to compute.

    Returns:
        For each column of the labels (n, at most 5) classes, the best first.
    """
    counts = _classes(bank.labels, labels)
    model = fit_linear(bank.features.to(device), bank.labels, counts, l2=l2, max_iter=steps)
    return [best.cpu() for best in model.ranking(features.to(device))]


def _classes(one: Tensor, other: Tensor) -> list[int]:
    """Numbers of classes of each level: no class has to be in both."""
    return [max(int(a), int(b), 0) + 1 for a, b in zip(one.amax(dim=0), other.amax(dim=0), strict=True)]
