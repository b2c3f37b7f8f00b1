"""The torchmetrics form of k-NN."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from solo import distributed
from solo.doctor.parity import on_processes
from solo.eval.knn import WeightedKNNClassifier


def test_collects_computes_and_starts_anew() -> None:
    metric = WeightedKNNClassifier(k=1)
    z, y = torch.eye(4), torch.arange(4)
    assert metric(train_features=z[:2], train_targets=y[:2]) is None
    metric.update(train_features=z[2:], train_targets=y[2:], test_features=z, test_targets=y)
    assert metric.compute() == (100.0, 100.0)
    metric.update(test_features=z, test_targets=y)
    assert metric.compute() == (-1, -1) and metric.level_accuracies == []
    metric.update(train_features=z, train_targets=y, test_features=z.roll(1, 0), test_targets=y)
    assert metric.compute()[0] == 0.0
    assert not metric.state_dict()


def test_labels_of_several_levels() -> None:
    metric = WeightedKNNClassifier(k=1, distance_fx="euclidean")
    z, y = torch.eye(4), torch.tensor([[0, 0], [0, 1], [1, 2], [1, 3]])
    metric.update(z, y, z, torch.stack([y[:, 0], y[:, 1].flip(0)], dim=1))
    assert metric.compute() == metric.level_accuracies[1] == (0.0, 0.0)
    assert metric.level_accuracies[0] == (100.0, 100.0)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="manhattan"):
        WeightedKNNClassifier(distance_fx="manhattan")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one row each"):
        WeightedKNNClassifier().update(train_features=torch.eye(3))
    with pytest.raises(ValueError, match=r"\[3, 2\]"):
        WeightedKNNClassifier().update(test_features=torch.eye(3), test_targets=torch.arange(2))


def shares(of_rank: dict[str, list[tuple[Tensor, ...]]]) -> list[tuple[float, float]]:
    """The accuracies that each process finds when it holds its share of the rows."""
    metric = WeightedKNNClassifier(k=3)
    metric.update(*of_rank["rows"][distributed.rank()])
    metric.compute()
    return metric.level_accuracies


@pytest.mark.thorough
def test_processes_with_unequal_banks_find_what_one_does() -> None:
    generator = torch.Generator().manual_seed(0)
    z, q = (torch.randn(n, 5, generator=generator) for n in (9, 6))
    y = torch.tensor([[0, 0], [0, 1], [1, -1], [1, 2], [0, 1], [1, 3], [0, 0], [1, 2], [0, 1]])
    truth = y[[0, 3, 1, 5, 6, 4]]
    (one,) = on_processes(shares, 1, {"rows": [(z, y, q, truth)]})
    split = [(z[:2], y[:2], q[:1], truth[:1]), (z[2:], y[2:], q[1:], truth[1:])]
    assert on_processes(shares, 2, {"rows": split}) == [one, one]
