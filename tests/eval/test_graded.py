"""Graded retrieval against loops over ranks and levels in float64, as the paper's definitions read."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from solo.eval import retrieval
from solo.eval.retrieval import retrieve_graded


def _shared(a: list[int], b: list[int]) -> int:
    count = 0
    for x, y in zip(a, b, strict=True):
        if x != y or x < 0:
            break
        count += 1
    return count


def _reference(z: Tensor, labels: Tensor, queries: list[int], gallery: list[int]) -> list[tuple[int, ...]]:
    z, paths, found = z.double(), labels.tolist(), []
    top = labels.shape[1]
    for query in queries:
        others = [row for row in gallery if row != query and paths[row][0] >= 0]
        if paths[query][0] < 0:
            continue
        others.sort(key=lambda row: -float(z[query] @ z[row] / z[query].norm() / z[row].norm()))
        levels = [_shared(paths[query], paths[row]) for row in others]
        if not any(levels):
            continue
        rel = [level / top / levels.count(level) for level in levels]
        h_ap = sum(sum(min(rel[k], rel[j]) for j in range(k + 1)) / (k + 1) for k in range(len(rel)) if rel[k]) / sum(
            rel
        )
        best = sorted(levels, reverse=True)
        gains = [sum((2**level - 1) / math.log2(2 + rank) for rank, level in enumerate(o)) for o in (levels, best)]
        relevant, asi = sum(level > 0 for level in levels), 0.0
        for k in range(1, relevant + 1):
            both = sum(min(levels[:k].count(level), best[:k].count(level)) for level in range(1, top + 1))
            asi += both / k / relevant
        found.append((query, h_ap, gains[0] / gains[1], asi))
    return found


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    fine = torch.randint(0, 12, (60,), generator=generator)
    z = torch.randn(12, 5, generator=generator)[fine] + torch.randn(60, 5, generator=generator)
    labels = torch.stack([fine // 6, fine // 2, fine], dim=1)
    labels[:5, 2] = labels[2:4, 1] = -1
    labels[7] = -1
    labels[9] = torch.tensor([7, 70, 700])  # shares nothing with anybody
    return z, labels


@pytest.mark.parametrize("max_elements", [1, 300, 5_000_000])
@pytest.mark.parametrize("split", [False, True])
def test_loops_give_the_same(
    data: tuple[Tensor, Tensor], max_elements: int, split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "ELEMENTS", max_elements)
    z, labels = data
    is_gallery = torch.arange(60) % 3 > 0 if split else torch.ones(60, dtype=torch.bool)
    queries = torch.arange(0, 60, 3)
    found = retrieve_graded(z, labels, queries=queries, is_gallery=is_gallery)
    expected = _reference(z, labels, queries.tolist(), is_gallery.nonzero()[:, 0].tolist())
    assert found.rows.tolist() == [row for row, *_ in expected]
    assert len(found.rows) + found.unknown + found.alone == len(queries) and found.alone == 1
    for place, values in enumerate(found.values.values()):
        assert values.tolist() == pytest.approx([row[place + 1] for row in expected], abs=1e-6)


def test_one_level_is_average_precision(data: tuple[Tensor, Tensor]) -> None:
    from sklearn.metrics import average_precision_score

    z, labels = data
    found = retrieve_graded(z, labels[:, :1])
    cosines = torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(z, dim=1).T
    for row, h_ap in zip(found.rows.tolist(), found.values["h_ap"].tolist(), strict=True):
        others = [i for i in range(60) if i != row and labels[i, 0] >= 0]
        right = (labels[others, 0] == labels[row, 0]).numpy()
        assert h_ap == pytest.approx(average_precision_score(right, cosines[row, others].numpy()), abs=1e-6)


def test_the_tree_s_own_order_is_perfect_and_its_reverse_is_not() -> None:
    labels = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 2], [1, 2]])
    angle = torch.tensor([0.0, 0.1, 0.3, 2.0, 2.1])
    good = retrieve_graded(torch.stack([angle.cos(), angle.sin()], 1), labels, queries=torch.tensor([0]))
    assert [v.tolist() for v in good.values.values()] == [[pytest.approx(1.0)]] * 3
    angle = torch.tensor([0.0, 2.1, 2.0, 0.2, 0.1])
    bad = retrieve_graded(torch.stack([angle.cos(), angle.sin()], 1), labels, queries=torch.tensor([0]))
    assert all(float(value) < 0.75 for value in bad.values.values())


def test_nothing_to_measure_is_said() -> None:
    z = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    none = retrieve_graded(z, torch.tensor([[-1], [-1], [-1]]))
    assert (len(none.rows), none.unknown, none.alone) == (0, 3, 0)
    alone = retrieve_graded(z, torch.tensor([[0], [1], [2]]))
    assert (len(alone.rows), alone.unknown, alone.alone) == (0, 0, 3)
