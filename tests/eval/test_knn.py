"""k-NN against a loop, over chunk sizes; and its bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from solo.eval.knn import nearest, nearest_by_cells, nearest_others
from tests.eval.voting import knn_accuracy


def _reference(
    train: Tensor, labels: Tensor, test: Tensor, truth: Tensor, k: int, temperature: float, distance: str
) -> tuple[float, float]:
    """One test row at a time, in Python."""
    classes = int(max(labels.max(), truth.max())) + 1
    hits1 = hits5 = 0
    for row, right in zip(test, truth.tolist(), strict=True):
        scores = []
        for other, label in zip(train, labels.tolist(), strict=True):
            cosine = float(torch.dot(row, other) / row.norm() / other.norm())
            away = float((row - other).norm())
            scores.append(
                (cosine, math.exp(cosine / temperature), label)
                if distance == "cosine"
                else (-away, 1 / (away + 1e-5), label)
            )
        scores.sort(reverse=True)
        votes = [0.0] * classes
        for _, weight, label in scores[:k]:
            votes[label] += weight
        order = [c for c in sorted(range(classes), key=lambda c: -votes[c]) if votes[c] > 0]
        hits1 += order[0] == right
        hits5 += right in order[: min(5, k, classes)]
    return 100 * hits1 / len(test), 100 * hits5 / len(test)


@pytest.fixture
def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    labels, truth = torch.arange(40) % 8, torch.arange(24) % 8
    noise = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    return centres[labels] + noise[:40], labels, centres[truth] + noise[40:], truth


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("max_elements", [1, 100, 5_000_000])
@pytest.mark.parametrize("k", [1, 6, 1000])
def test_accuracies_are_those_of_a_loop(data: tuple[Tensor, ...], distance: str, max_elements: int, k: int) -> None:
    train, labels, test, truth = data
    expected = _reference(train, labels, test, truth, min(k, 40), 0.3, distance)
    found = knn_accuracy(
        train,
        labels,
        test,
        truth,
        k=k,
        temperature=0.3,
        distance=distance,
        max_elements=max_elements,  # type: ignore[arg-type]
    )
    assert found == [pytest.approx(expected)]


def test_levels_vote_apart_and_unknown_labels_do_not_count() -> None:
    train = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.9, -0.1], [0.0, 1.0]])
    # the nearest row has another leaf, but the group is clear; one leaf is unknown
    targets = torch.tensor([[0, 0], [0, 1], [0, -1], [1, 2]])
    test, truth = torch.tensor([[1.0, 0.001], [0.0, 1.0], [0.5, 0.5]]), torch.tensor([[0, 1], [1, 2], [1, -1]])
    (group1, _), (leaf1, leaf5) = knn_accuracy(train, targets, test, truth, k=2, temperature=1e-4)
    assert group1 == pytest.approx(100 * 2 / 3)
    assert (leaf1, leaf5) == (50.0, 100.0)  # two test rows have a leaf


def test_classes_need_not_be_in_both_sets() -> None:
    train, test = torch.eye(3), torch.eye(3)
    assert knn_accuracy(train, torch.tensor([0, 1, 9]), test, torch.tensor([0, 1, 2]), k=1)[0][0] == pytest.approx(
        200 / 3
    )
    assert knn_accuracy(train, torch.tensor([0, 1, 2]), test, torch.tensor([0, 1, 9]), k=1)[0][0] == pytest.approx(
        200 / 3
    )


def test_a_small_temperature_does_not_overflow() -> None:
    z = torch.randn(20, 4)
    assert knn_accuracy(z, torch.arange(20), z, torch.arange(20), temperature=1e-3) == [(100.0, 100.0)]


def test_no_block_of_similarities_is_larger_than_the_bound(sizes_of_results: Any) -> None:
    z, y = torch.randn(500, 3), torch.arange(500) % 7
    whole = knn_accuracy(z, y, z[:90], y[:90], k=5)
    with sizes_of_results("matmul", "__matmul__", "mm") as sizes:
        assert knn_accuracy(z, y, z[:90], y[:90], k=5, max_elements=120) == whole
    assert len(sizes) > 1 and max(sizes) <= 120


def test_nearest_is_sorted_and_finds_the_true_neighbours() -> None:
    query, keys = torch.randn(7, 4), torch.randn(50, 4)
    for distance in ("cosine", "euclidean"):
        similarity, index = nearest(query, keys, 6, distance, max_elements=40)  # type: ignore[arg-type]
        whole, everything = nearest(query, keys, 6, distance)  # type: ignore[arg-type]
        torch.testing.assert_close(similarity, whole)
        assert torch.equal(index, everything) and (similarity.diff(dim=1) <= 0).all()


def test_no_row_is_its_own_neighbour_not_even_among_equal_ones() -> None:
    z = torch.cat([torch.randn(12, 4), torch.ones(8, 4)])
    similarity, index = nearest_others(z, 3)
    unit = torch.nn.functional.normalize(z, dim=1)
    whole = (unit @ unit.T).fill_diagonal_(-2)
    torch.testing.assert_close(similarity, whole.topk(3, dim=1).values)
    assert (index != torch.arange(20)[:, None]).all() and (index[12:] >= 12).all()
    torch.testing.assert_close(whole.gather(1, index), similarity)


def test_neighbours_by_cells_are_nearly_the_nearest() -> None:
    torch.manual_seed(0)
    centres = torch.randn(40, 16)
    z = centres[torch.arange(2000) % 40] + 0.5 * torch.randn(2000, 16)
    exact, found = nearest_others(z, 10)[1], nearest_by_cells(z, 10)
    assert (found != torch.arange(2000)[:, None]).all() and found.sort(dim=1).values.diff(dim=1).min() > 0
    assert (exact[:, :, None] == found[:, None]).any(dim=2).float().mean() > 0.95
    every = nearest_by_cells(z, 10, probes=100)  # equals may stand in another order
    assert torch.equal(every.sort(dim=1).values, exact.sort(dim=1).values)
    few = nearest_by_cells(z[:12], 11).sort(dim=1).values
    assert torch.equal(few, nearest_others(z[:12], 11)[1].sort(dim=1).values)


def test_half_precision_features_are_fine() -> None:
    z = torch.eye(6)
    for dtype in (torch.bfloat16, torch.float16):
        assert knn_accuracy(z.to(dtype), torch.arange(6), z.to(dtype), torch.arange(6), k=1) == [(100.0, 100.0)]


class Largest(TorchDispatchMode):
    """Remembers how many bytes the largest new tensor has."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor) and not x._is_view():
                self.size = max(self.size, x.nbytes)
        return out


@pytest.mark.parametrize("parts", [1, 7])
def test_a_bank_in_half_precision_is_never_copied_as_a_whole(parts: int) -> None:
    z = torch.randn(4000, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    bank = z if parts == 1 else z.chunk(parts)
    with Largest() as seen:
        similarity, index = nearest(z[:10], bank, 3, max_elements=2000)
    assert seen.size < z.nbytes / 5
    expected = nearest(z[:10].float(), z.float(), 3)
    torch.testing.assert_close(similarity, expected[0])
    assert torch.equal(index, expected[1])
