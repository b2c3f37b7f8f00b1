"""The verdict on two networks over the same images."""

from __future__ import annotations

import math

import pytest
import torch

from solo.eval.features import FeatureTable
from solo.eval.suite import Protocol, verdict


def tables(spread: float, seed: int = 0, count: int = 300) -> tuple[FeatureTable, FeatureTable]:
    """Three classes at the corners of a triangle, with noise, of the bank and of the judged images."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(2):
        labels = torch.randint(0, 3, (count,), generator=generator)
        noise = torch.randn(count, 3, generator=generator)
        found.append(FeatureTable(torch.eye(3)[labels] + spread * noise, labels[:, None]))
    return found[0], found[1]


@pytest.mark.parametrize(
    ("before", "after", "says"), [(1.0, 0.3, "better"), (0.3, 1.0, "worse"), (0.5, 0.5, "no difference")]
)
def test_what_it_says(before: float, after: float, says: str) -> None:
    found = verdict(tables(before), tables(after), Protocol(k=10), torch.device("cpu"))
    assert found["says"] == says and found["images"] == found["bank"] == 300
    assert found["text"].startswith("worse: stop (kNN: " if says == "worse" else f"{says} (kNN: ")
    for name in ("knn", "linear"):
        low, high = found[name]["ci"]
        assert low <= found[name]["difference"] <= high
        assert found[name]["difference"] == pytest.approx(found[name]["end"] - found[name]["start"], abs=2e-4)


def test_the_interval_is_over_paired_images_and_unknown_labels_do_not_count() -> None:
    (bank, judged), (bank2, judged2) = tables(0.5), tables(0.8)
    judged.labels[::3] = judged2.labels[::3] = -1
    found = verdict((bank, judged), (bank2, judged2), Protocol(k=1), torch.device("cpu"))
    assert found["images"] == 200
    right = []
    for votes, asked in ((bank, judged), (bank2, judged2)):
        near = [int((votes.features / votes.features.norm(dim=1, keepdim=True) @ x).argmax()) for x in asked.features]
        right.append([int(votes.labels[n] == y) for n, y in zip(near, asked.labels, strict=True) if y >= 0])
    differences = [100 * (b - a) for a, b in zip(*right, strict=True)]
    mean = sum(differences) / 200
    half = 1.96 * math.sqrt((sum(x * x for x in differences) / 200 - mean**2) / 200)
    assert found["knn"]["difference"] == pytest.approx(mean, abs=1e-3)
    assert found["knn"]["ci"] == pytest.approx([mean - half, mean + half], abs=1e-2)
