"""The torchmetrics form of k-NN."""

from __future__ import annotations

import pytest
import torch

from solo.eval.knn_metric import WeightedKNNClassifier


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


def test_states_gathered_over_processes_are_tensors() -> None:
    metric = WeightedKNNClassifier(k=1)
    z, y = torch.eye(4), torch.arange(4)
    metric.update(z, y, z, y)
    for name in (
        "train_features",
        "train_targets",
        "test_features",
        "test_targets",
    ):  # what torchmetrics makes of a list before `compute` on several processes
        setattr(metric, name, torch.cat([getattr(metric, name)[0]] * 2))
    assert metric.compute() == (100.0, 100.0) and metric.train_features == []
