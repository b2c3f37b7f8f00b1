"""The collapse profile finds a node that was mapped to one point, and only that one."""

from __future__ import annotations

import math

import pytest
import torch

from solo.eval.classes import collapse_profile
from solo.eval.embedding import effective_rank


def _planted() -> tuple[torch.Tensor, torch.Tensor]:
    """Four classes of 60 rows; `a` and `b` are mapped to one point."""
    generator = torch.Generator().manual_seed(0)
    leaves = torch.arange(240) % 4
    features = torch.randn(240, 12, generator=generator, dtype=torch.float64)
    features[leaves < 2] = features[0].clone()
    return features, torch.stack([leaves // 2, leaves], dim=1)


def test_a_planted_collapse_is_found() -> None:
    features, labels = _planted()
    names = ["all", "first", "second", "a", "b", "c", "d"]
    nodes = dict(zip(names, collapse_profile(features, labels), strict=True))
    assert [(node.level, node.node) for node in nodes.values()] == [
        (-1, 0),
        *((0, n) for n in range(2)),
        *((1, n) for n in range(4)),
    ]
    assert [node.parent for node in nodes.values()] == [-1, -1, -1, 0, 0, 1, 1]
    assert [node.count for node in nodes.values()] == [240, 120, 120, 60, 60, 60, 60]
    for name in ("first", "a", "b"):
        assert nodes[name].effective_rank == 0 and nodes[name].ratio == 0
    for name in ("second", "c", "d"):
        assert nodes[name].ratio > 0.9
    assert nodes["all"].ratio == 1
    second = labels[:, 0] == 1
    assert nodes["second"].effective_rank == pytest.approx(effective_rank(features[second]))


def test_the_reference_has_as_many_rows() -> None:
    features = torch.randn(400, 50, generator=torch.Generator().manual_seed(1))
    labels = (torch.arange(400) % 20)[:, None]
    for node in collapse_profile(features, labels)[1:]:  # 20 rows can't fill 50 directions, and that is no collapse
        assert node.effective_rank < 20 and node.ratio == pytest.approx(1, abs=0.1)


def test_unknown_labels_and_small_nodes() -> None:
    labels = torch.tensor([0] * 20 + [1] * 3 + [-1] * 7)
    root, first, second = collapse_profile(torch.randn(30, 4), labels)
    assert (root.count, first.count, second.count) == (30, 20, 3)
    assert first.node == 0 and math.isnan(second.effective_rank) and math.isnan(second.ratio)


def test_equal_calls_give_equal_numbers() -> None:
    features, labels = _planted()
    assert collapse_profile(features, labels) == collapse_profile(features, labels)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        collapse_profile(torch.randn(5, 3), torch.arange(4))
