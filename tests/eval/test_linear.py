"""The linear classifier against scikit-learn's optimum of the same problem; missing labels; blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from solo.eval import linear
from solo.eval.linear import CLOSE, fit_linear


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 6, (150,), generator=generator)
    z = torch.randn(6, 5, generator=generator)[labels] + torch.randn(150, 5, generator=generator)
    z[:, 0] *= 1000  # units don't matter
    return z.double(), torch.stack([labels // 2, labels], dim=1)


def _objective(scores: Tensor, labels: Tensor, weight: Tensor, l2: float) -> float:
    """Mean cross-entropy + penalty, in a loop."""
    total, known = 0.0, 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        if label >= 0:
            total += np.log(sum(np.exp(value) for value in row)) - row[label]
            known += 1
    return total / known + l2 / 2 * float(weight.square().sum())


@pytest.mark.fault(6, "the linear classifier of `solo evaluate`", "at its optimum; levels don't influence each other")
def test_the_optimum_of_each_level(data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "ELEMENTS", 100)
    z, labels = data
    labels[::7, 1] = -1
    model = fit_linear(z, labels, (3, 6), l2=0.01)
    x, parts = (z - z.mean(dim=0)) / z.std(dim=0, correction=0), zip((slice(0, 3), slice(3, 9)), (0, 1), strict=True)
    for columns, level in parts:
        known = labels[:, level] >= 0
        best = LogisticRegression(C=1 / (0.01 * int(known.sum())), tol=1e-10, max_iter=5000)
        best.fit(x[known].numpy(), labels[known, level].numpy())
        ours = model.weight[:, columns]
        reached = _objective(model.scores(z)[:, columns], labels[:, level], ours, 0.01)
        weight = torch.from_numpy(best.coef_.T)
        expected = _objective(x @ weight + torch.from_numpy(best.intercept_), labels[:, level], weight, 0.01)
        assert expected - 1e-9 <= reached <= expected + model.left[level][0] <= expected + CLOSE
        torch.testing.assert_close(ours, weight, atol=0.02, rtol=0.02)
        alone = fit_linear(z, labels[:, level : level + 1], (weight.shape[1],), l2=0.01)
        assert torch.equal(alone.weight, ours)  # no level moves another


@pytest.mark.fault(6, "`linear_steps` too few", "the gradient that is left is said and stored")
def test_too_few_steps_leave_a_gradient_that_is_told(data: tuple[Tensor, Tensor]) -> None:
    z, labels = data
    short, done = (fit_linear(z, labels, (3, 6), max_iter=steps).left for steps in (3, 1000))
    assert all(gap > CLOSE >= end for (gap, _), (end, _) in zip(short, done, strict=True))
    assert short[0][0] == pytest.approx(short[0][1] ** 2 / 2e-4)


def test_rankings_are_sorted_scores(data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels = data
    model = fit_linear(z.float(), labels, (3, 6))
    monkeypatch.setattr(linear, "ELEMENTS", 33)
    group, leaf = model.ranking(z.float())
    assert group.shape == (150, 3) and leaf.shape == (150, 5)
    assert torch.equal(leaf, model.scores(z.float())[:, 3:].topk(5, dim=1).indices)
    assert (leaf[:, 0] == labels[:, 1]).double().mean() > 0.6


def test_edges() -> None:
    z = torch.zeros(8, 3)
    z[:, 1] = 7  # constant features
    model = fit_linear(z, torch.tensor([[0, -1]] * 8), (1, 4))
    assert model.scores(z).isfinite().all() and model.ranking(z)[1].shape == (8, 4)
    separable = fit_linear(torch.eye(4, dtype=torch.bfloat16), torch.arange(4)[:, None], (4,))
    assert separable.weight.isfinite().all() and separable.ranking(torch.eye(4))[0][:, 0].tolist() == [0, 1, 2, 3]
