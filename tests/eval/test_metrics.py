from __future__ import annotations

import torch

from solo.eval.predictions import accuracy_at_k, weighted_mean


def test_accuracy_at_k_in_percent() -> None:
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.1, 0.3, 0.6], [0.4, 0.5, 0.1]])
    acc1, acc2 = accuracy_at_k(scores, torch.tensor([1, 2, 0, 0]), top_k=(1, 2))
    assert acc1.shape == (1,) and (acc1.item(), acc2.item()) == (25.0, 75.0)


def test_accuracy_clips_k_and_leaves_out_unknown_labels() -> None:
    scores = torch.eye(3)
    acc1, acc5 = accuracy_at_k(scores, torch.tensor([0, 0, -1]))
    assert (acc1.item(), acc5.item()) == (50.0, 100.0)
    assert accuracy_at_k(scores, torch.tensor([-1, -1, -1]))[1].item() == 0.0


def test_weighted_mean() -> None:
    outputs = [{"acc": torch.tensor([50.0]), "n": 3}, {"acc": 10.0, "n": torch.tensor(1)}]
    assert weighted_mean(outputs, "acc", "n").item() == 40.0
    assert weighted_mean([{"acc": 1.0, "n": 0}], "acc", "n").isnan()
