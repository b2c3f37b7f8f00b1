"""Probes with few and all labels: their draws, the choice of the penalty, and what they say of each image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from solo.errors import UserError
from solo.eval.features import Features, FeatureTable
from solo.eval.linear import STRENGTHS, Settings, choose_strength, fit_linear, probe, some_of_each
from tests.eval.voting import knn_accuracy

CPU = torch.device("cpu")


def table(count: int, seed: int, noise: float = 1.0) -> FeatureTable:
    generator = torch.Generator().manual_seed(seed)
    fine = torch.randint(0, 4, (count,), generator=generator)
    features = torch.eye(6)[fine] + noise * torch.randn(count, 6, generator=generator)
    return FeatureTable(features, torch.stack([fine // 2, fine], dim=1))


def test_the_grid_is_that_of_the_suite() -> None:
    assert STRENGTHS == pytest.approx(np.logspace(-6, 5, 45).tolist())


@pytest.mark.parametrize(("amount", "expected"), [(1, [1, 1, 1]), (5, [5, 2, 5]), (0.1, [3, 1, 1])])
def test_some_of_each_class_are_drawn(amount: int | float, expected: list[int]) -> None:
    labels = torch.tensor([0] * 30 + [1] * 2 + [-1] * 9 + [2] * 9)
    rows = some_of_each(labels, amount, seed=0)
    assert torch.bincount(labels[rows]).tolist() == expected and len(rows.unique()) == len(rows)
    assert torch.equal(rows, some_of_each(labels, amount, seed=0))
    assert not torch.equal(rows, some_of_each(labels, amount, seed=1))


def test_neighbours_are_those_of_solo_knn_and_unknown_labels_have_no_result() -> None:
    train, val = table(80, 0), table(50, 1)
    labels = val.labels.clone()
    labels[:5, 1] = -1
    val = FeatureTable(val.features, labels)
    features = Features("some", "backbone", val, train, ("group", "class"))
    found = probe(features, "knn", Settings(k=7), CPU)
    expected = knn_accuracy(train.features, train.labels, val.features, val.labels, k=7)
    assert [100 * level.nanmean().item() for level in found] == pytest.approx([top for top, _ in expected])
    assert found[1, :5].isnan().all() and not found[0].isnan().any()


def test_few_images_are_drawn_several_times_and_averaged() -> None:
    train, val = table(80, 0), table(50, 1)
    features = Features("some", "backbone", val, train, ("group", "class"))
    found = probe(features, "shots1", Settings(draws=3, l2=0.01), CPU)
    hits = torch.zeros(2, 50, dtype=torch.float64)
    for draw in range(3):
        bank = train.rows(some_of_each(train.labels[:, 1], 1, draw))
        model = fit_linear(bank.features, bank.labels, [2, 4], l2=0.01)
        hits += torch.stack([top[:, 0] == y for top, y in zip(model.ranking(val.features), val.labels.T, strict=True)])
    assert found.flatten().tolist() == pytest.approx((hits / 3).flatten().tolist())


@pytest.mark.parametrize("noise", [0.4, 2.0])
def test_the_strength_is_as_good_as_the_best_of_the_whole_grid(noise: float) -> None:
    bank = table(60, 3, noise)
    one = FeatureTable(bank.features, bank.labels[:, 1:])
    held = torch.zeros(60, dtype=torch.bool)
    held[some_of_each(one.labels[:, 0], 0.2, 0, least=0)] = True

    def right(l2: float) -> float:
        model = fit_linear(one.features[~held], one.labels[~held], [4], l2=l2, max_iter=300)
        best: Tensor = model.ranking(one.features[held])[0][:, 0]
        return (best == one.labels[held, 0]).double().mean().item()

    chosen = choose_strength(one, Settings(), 0, CPU)
    assert chosen in STRENGTHS and right(chosen) >= max(map(right, STRENGTHS)) - 0.08


def test_what_has_no_labels_or_no_training_images_is_refused() -> None:
    alone = Features("some", "backbone", table(20, 0), levels=("group", "class"))
    with pytest.raises(UserError, match="training and validation images with labels"):
        probe(alone, "linear", Settings(), CPU)
