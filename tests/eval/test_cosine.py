"""Cosine distributions and what a threshold selects, against loops over pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from solo.eval import embedding as module
from solo.eval.embedding import cosine_distributions, selection
from solo.eval.features import draw
from solo.hex.policy import AdaptivePercentile
from solo.losses.pairs import Pairs


@pytest.fixture(params=[7, 16_000_000])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ELEMENTS", request.param)


def _data(rows: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (rows,), generator=generator)
    labels[5] = -1
    centres = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    return centres[labels] + torch.randn(rows, 6, generator=generator, dtype=torch.float64), labels


def _pairs(features: torch.Tensor, labels: torch.Tensor) -> dict[bool, list[float]]:
    """Cosines of pairs with the same label (True) and the others."""
    z = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    cosines: dict[bool, list[float]] = {True: [], False: []}
    known = [i for i in range(len(z)) if labels[i] >= 0]
    for i, j in itertools.permutations(known, 2):
        cosines[bool(labels[i] == labels[j])].append(float(z[i] @ z[j]))
    return cosines


@pytest.mark.usefixtures("block")
def test_distributions_are_those_of_a_loop() -> None:
    features, labels = _data()
    cosines = _pairs(features, labels)
    found = cosine_distributions(features, labels)
    for alike, group in ((True, found.same), (False, found.other)):
        values = np.array(cosines[alike])
        assert group.pairs == len(values)
        assert (group.mean, group.std) == pytest.approx((values.mean(), values.std()), rel=1e-9)
        histogram, _ = np.histogram(values, bins=100, range=(-1, 1))
        np.testing.assert_allclose(group.histogram.numpy(), histogram / len(values), atol=1e-9)
    assert found.ratio == pytest.approx(np.mean(cosines[True]) / np.mean(cosines[False]))
    assert found.gap == pytest.approx(np.mean(cosines[True]) - np.mean(cosines[False])) and found.gap > 0.1


def test_fewer_anchors_still_meet_every_row() -> None:
    features, labels = _data(200)
    few, again = (cosine_distributions(features, labels, max_anchors=40) for _ in range(2))
    assert few.gap == again.gap and few.same.pairs + few.other.pairs == 40 * 198
    assert few.gap == pytest.approx(cosine_distributions(features, labels).gap, abs=0.1)


def test_one_class_has_no_others() -> None:
    found = cosine_distributions(torch.randn(6, 3), torch.zeros(6, dtype=torch.long))
    assert found.other.pairs == 0 and math.isnan(found.other.mean) and math.isnan(found.ratio)
    assert found.other.histogram.isnan().all() and found.same.pairs == 30
    alone = cosine_distributions(torch.randn(6, 3), torch.arange(6))
    assert alone.same.pairs == 0 and math.isnan(alone.gap)


@pytest.mark.usefixtures("block")
def test_selection_is_that_of_a_loop() -> None:
    features, labels = _data()
    z = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    cosines = z @ z.T
    expected = np.quantile(cosines, 0.8, axis=1, method="nearest").mean()
    selected = right = judged = alike = 0
    for i in range(24):
        for j in range(24):
            if i == j:
                continue
            both = bool(labels[i] >= 0 and labels[j] >= 0)
            same = both and bool(labels[i] == labels[j])
            above = cosines[i, j] > expected
            selected, judged, right = selected + above, judged + (above and both), right + (above and same)
            alike += same
    found = selection(features, labels, quantile=0.8)
    assert found.threshold == pytest.approx(expected, rel=1e-9)
    assert found.selected == pytest.approx(selected / 24)
    assert found.precision == pytest.approx(right / judged)
    above_alike = right / alike
    assert found.recall == pytest.approx(above_alike)


def test_the_threshold_is_the_one_of_the_loss() -> None:
    features, _ = _data()
    pairs = Pairs.from_ids(features, torch.arange(24))
    policy = AdaptivePercentile(quantile=0.8, warm_epoch=0).selector(pairs, 0, 1)
    assert policy is not None and policy.threshold is not None
    assert selection(features, quantile=0.8).threshold == pytest.approx(float(policy.threshold))
    assert math.isnan(selection(features).precision)


def test_wrong_arguments_are_refused() -> None:
    z, y = torch.randn(5, 3), torch.arange(5)
    for call in (
        lambda: cosine_distributions(z, y[:4]),
        lambda: cosine_distributions(z, torch.full((5,), -1)),
        lambda: selection(z[:1]),
        lambda: selection(z, y[:4]),
        lambda: selection(z, quantile=1.5),
    ):
        with pytest.raises(ValueError):
            call()


def test_drawing_is_sorted_and_repeatable() -> None:
    assert draw(5, 9).tolist() == [0, 1, 2, 3, 4]
    rows = draw(1000, 50)
    assert len(rows.unique()) == 50 and torch.equal(rows, draw(1000, 50)) and torch.equal(rows, rows.sort().values)
