"""Retrieval against loops in float64, over blocks, splits and unknown labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from solo.eval import retrieval
from solo.eval.retrieval import retrieve


def _reference(z: Tensor, labels: Tensor, queries: list[int], gallery: list[int], top_k: tuple[int, ...]) -> list:
    """One query at a time: rows of (query, hits at k, R-precision, MAP@R); and the two counts."""
    z, found, unknown, alone = z.double(), [], 0, 0
    for query in queries:
        if labels[query] < 0:
            unknown += 1
            continue
        others = [row for row in gallery if row != query and labels[row] >= 0]
        others.sort(key=lambda row: (-float(torch.dot(z[query], z[row]) / z[query].norm() / z[row].norm()), row))
        right = [bool(labels[row] == labels[query]) for row in others]
        total = sum(right)
        if not total:
            alone += 1
            continue
        average = sum(sum(right[: i + 1]) / (i + 1) for i in range(total) if right[i]) / total
        found.append((query, [any(right[:k]) for k in top_k], sum(right[:total]) / total, average))
    return [found, unknown, alone]


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    fine = torch.randint(0, 9, (70,), generator=generator)
    z = torch.randn(9, 6, generator=generator)[fine] + torch.randn(70, 6, generator=generator)
    labels = torch.stack([fine // 3, fine], dim=1)
    labels[:7, 1] = -1
    labels[5] = -1
    labels[69] = torch.tensor([2, 20])  # alone in its class
    return z, labels


@pytest.mark.parametrize("max_elements", [1, 500, 5_000_000])
@pytest.mark.parametrize("split", [False, True])
def test_a_loop_gives_the_same(
    data: tuple[Tensor, Tensor], max_elements: int, split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "ELEMENTS", max_elements)
    z, labels = data
    is_gallery = torch.arange(70) % 3 > 0 if split else torch.ones(70, dtype=torch.bool)
    queries = (~is_gallery).nonzero()[:, 0] if split else torch.randperm(70)[:50]
    found = retrieve(z, labels, queries=queries, is_gallery=is_gallery, top_k=(1, 4))
    assert len(found) == 2
    for level, one in enumerate(found):
        gallery = is_gallery.nonzero()[:, 0].tolist()
        expected, unknown, alone = _reference(z, labels[:, level], queries.tolist(), gallery, (1, 4))
        assert (one.unknown, one.alone) == (unknown, alone)
        assert one.rows.tolist() == [row for row, *_ in expected]
        for place, k in enumerate((1, 4)):
            assert one.values[f"top{k}"].tolist() == [hits[place] for _, hits, *_ in expected]
        assert one.values["r_precision"].tolist() == pytest.approx([r for *_, r, _ in expected], abs=1e-6)
        assert one.values["map_at_r"].tolist() == pytest.approx([m for *_, m in expected], abs=1e-6)


def test_all_rows_are_queries_and_gallery_by_default(data: tuple[Tensor, Tensor]) -> None:
    z, labels = data
    fine = retrieve(z, labels)[1]
    expected, *_ = _reference(z, labels[:, 1], list(range(70)), list(range(70)), (1, 5, 10))
    assert fine.values["map_at_r"].tolist() == pytest.approx([m for *_, m in expected], abs=1e-6)
    assert list(fine.values) == ["top1", "top5", "top10", "r_precision", "map_at_r"]


def test_a_large_gallery_of_small_classes_is_not_sorted_as_a_whole(sizes_of_results: Any) -> None:
    z, labels = torch.randn(1200, 4), (torch.arange(1200) // 3)[:, None]
    whole = retrieve(z, labels, top_k=(2,))[0]
    expected, *_ = _reference(z, labels[:, 0], list(range(15)), list(range(1200)), (2,))
    assert whole.values["r_precision"][:15].tolist() == pytest.approx([r for *_, r, _ in expected])
    with sizes_of_results("sort", "argsort", "topk") as sizes:
        assert torch.equal(retrieve(z, labels, top_k=(2,))[0].values["map_at_r"], whole.values["map_at_r"])
    assert sizes and max(sizes) < 1200 * 1199 / 10


def test_perfect_and_collapsed_features() -> None:
    labels = torch.arange(12)[:, None] % 3
    perfect = retrieve(torch.eye(3)[labels[:, 0]], labels)[0]
    assert all(perfect.values[name].min() == 1 for name in ("map_at_r", "r_precision", "top1"))
    collapsed = retrieve(torch.zeros(12, 3, dtype=torch.bfloat16), labels)[0]
    assert collapsed.values["map_at_r"].isfinite().all() and collapsed.values["r_precision"].mean() < 0.5


def test_without_labels_nothing_is_measured() -> None:
    assert retrieve(torch.randn(5, 2), torch.empty(5, 0, dtype=torch.long)) == []
    (only,) = retrieve(torch.randn(5, 2), torch.full((5, 1), -1))
    assert len(only.values["map_at_r"]) == 0 and only.unknown == 5
