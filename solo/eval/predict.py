"""Classes that features are taken for, at each level by itself: the best five by neighbours and by a classifier."""

from collections.abc import Sequence

import torch
from torch import Tensor

from solo.eval.features import FeatureTable
from solo.eval.intervals import UNDEFINED, HalfMeans, Interval, of_independent
from solo.eval.knn import nearest, nearest_others, vote_ranking
from solo.eval.linear import LinearClassifier, fit_linear
from solo.eval.rows import best as best_columns
from solo.eval.rows import cosines_within


def intervals_of(each: Sequence[dict[str, Tensor]], coin: bool) -> list[dict[str, Interval]]:
    """Intervals of the shares of hits of independent images; `coin` as in `of_independent`."""
    return [
        {name: of_independent(float(hit.double().mean()), len(hit), coin) for name, hit in one.items()} for one in each
    ]


def neighbour_intervals(
    features: Tensor, truth: Tensor, each: Sequence[dict[str, Tensor]], k: int, temperature: float, cuts: Tensor
) -> list[dict[str, Interval]]:
    """Intervals of the accuracies by votes of the *other measured* images, which would change with the images.

    `each` is what `hits` gave for features (n, d) and labels (n, L), `cuts` are halves, see `solo.eval.intervals`. NaN
    where classes have less than k images on average, in two halves: small ones are then outvoted as a whole.
    """
    truth, classes = truth.to(features.device), _classes(truth, truth)
    halves = [HalfMeans(["acc1", "acc5"]) for _ in each]
    for rows, cosines, starts in cosines_within(features, cuts) if cuts.shape[1] > 1 else ():
        near = best_columns(cosines, min(k, rows.shape[1] - 1))
        similarity = cosines.gather(1, near)
        for column, count, half in zip(truth.T, classes, halves, strict=True):
            labels = column[rows]
            best = vote_ranking(similarity, labels.flatten()[near + starts], count, temperature=temperature)
            right = (best == labels.flatten()[:, None]).unflatten(0, rows.shape)
            half.add(torch.stack([right[..., 0], right.any(dim=2)]), labels >= 0)
    found = []
    for column, half, one in zip(truth.T, halves, each, strict=True):
        enough = min(len(one["acc1"]), 2 * cuts.shape[1]) >= k * len(column[column >= 0].unique())
        found.append({name: half.interval(name, hit) if enough else UNDEFINED for name, hit in one.items()})
    return found


def knn_ranking(
    bank: FeatureTable | None, val: FeatureTable, k: int, temperature: float, device: torch.device
) -> list[Tensor]:
    """For each level (n, up to 5) classes by the neighbours' votes, the best first, -1 for one without a vote.

    Neighbours come from `bank`, without one from the other rows of `val`.
    """
    query = val.features.to(device)
    if bank is None:
        similarity, rows = nearest_others(query, min(k, len(val) - 1))
    else:
        similarity, rows = nearest(query, bank.features.to(device), min(k, len(bank)))
    voters = (val if bank is None else bank).labels
    counts = _classes(voters, val.labels)
    return [
        vote_ranking(similarity, labels.to(device)[rows], count, temperature=temperature).cpu()
        for labels, count in zip(voters.T, counts, strict=True)
    ]


def linear_ranking(
    bank: FeatureTable, features: Tensor, labels: Tensor, l2: float, steps: int, device: torch.device
) -> tuple[list[Tensor], LinearClassifier]:
    """For each level (n, up to 5) classes by `solo.eval.linear`, fitted to the bank, best first; the classifier.

    `labels` (n, L) of the features (n, d) are read for the number of classes only.
    """
    counts = _classes(bank.labels, labels)
    model = fit_linear(bank.features.to(device), bank.labels, counts, l2=l2, max_iter=steps)
    return [best.cpu() for best in model.ranking(features.to(device))], model


def _classes(one: Tensor, other: Tensor) -> list[int]:
    """Numbers of classes of each level: no class has to be in both."""
    return [max(int(a), int(b), 0) + 1 for a, b in zip(one.amax(dim=0), other.amax(dim=0), strict=True)]
