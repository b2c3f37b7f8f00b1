"""The kNN accuracy of the watched rows against a loop over them, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from solo.eval import embedding
from solo.eval.embedding import neighbours_agree
from solo.eval.features import draw


def _reference(features, labels, k, temperature, rows):
    """Top-1 in percent: of each row asked, the others in the order of their cosine, the first k vote."""
    z = features.double()
    z = z / z.norm(dim=1, keepdim=True)
    right = asked = 0
    for row in rows.tolist():
        if labels[row] < 0:
            continue
        others = sorted((other for other in range(len(z)) if other != row), key=lambda other: -float(z[row] @ z[other]))
        votes = {}
        for other in others[:k]:
            if labels[other] >= 0:
                label = int(labels[other])
                votes[label] = votes.get(label, 0.0) + math.exp(float(z[row] @ z[other]) / temperature)
        asked += 1
        right += bool(votes) and max(votes, key=votes.get) == int(labels[row])
    return 100 * right / asked if asked else math.nan


@pytest.mark.parametrize(("k", "temperature"), [(20, 0.07), (3, 0.5), (500, 0.1)])
@pytest.mark.parametrize("anchors", [40, 1024])
def test_levels_are_those_of_a_loop(k, temperature, anchors, monkeypatch):
    monkeypatch.setattr(embedding, "ANCHORS", anchors)
    generator = torch.Generator().manual_seed(0)
    fine = torch.arange(120) % 6
    features = torch.eye(6, 16)[fine] + 0.5 * torch.randn(120, 16, generator=generator)
    labels = torch.stack([fine // 2, fine], dim=1)
    labels[::7, 1] = -1
    labels[::11] = -1
    rows = draw(120, anchors)
    found = neighbours_agree(features, labels, k, temperature)
    assert found == pytest.approx([_reference(features, labels[:, level], k, temperature, rows) for level in range(2)])
    assert found[0] > found[1] > 40 or k == 500


def test_edges():
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    assert neighbours_agree(z, torch.tensor([[0], [0]])) == [100] and neighbours_agree(z, torch.tensor([[0], [1]])) == [
        0
    ]
    unknown = neighbours_agree(z, torch.tensor([[0, -1], [0, -1]]))
    assert unknown[0] == 100 and math.isnan(unknown[1])
    same = torch.ones(50, 4)  # one point: whoever comes first votes, nobody crashes
    assert 0 <= neighbours_agree(same, (torch.arange(50) % 2)[:, None])[0] <= 100
    half = torch.randn(60, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    labels = (torch.arange(60) % 3)[:, None]
    assert neighbours_agree(half, labels) == neighbours_agree(half.float(), labels)
