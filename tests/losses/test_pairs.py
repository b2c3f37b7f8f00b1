"""Who is compared with whom."""

from __future__ import annotations

import pytest
import torch

from solo.losses import pairs as pairs_module
from solo.losses.pairs import Pairs, unit


def test_masks_of_two_views():
    z = torch.eye(4)
    pairs = Pairs.from_views((z[:2], z[2:]))
    positive, negative = pairs.masks(slice(0, 4))
    expected = torch.zeros(4, 4, dtype=torch.bool)
    for i, j in ((0, 2), (1, 3), (2, 0), (3, 1)):
        expected[i, j] = True
    assert torch.equal(positive, expected)
    assert torch.equal(negative, ~expected & ~torch.eye(4, dtype=torch.bool))


def test_masks_do_not_depend_on_the_blocks(monkeypatch):
    torch.manual_seed(0)
    z, ids = torch.randn(13, 3), torch.randint(0, 4, (13,))
    whole = Pairs.from_ids(z, ids).masks(slice(0, 13))
    monkeypatch.setitem(pairs_module.BLOCK_ELEMENTS, "cpu", 50)
    pairs = Pairs.from_ids(z, ids)
    blocks = list(pairs.blocks())
    assert len(blocks) > 3
    for whole_mask, parts in zip(whole, zip(*(pairs.masks(rows) for rows in blocks), strict=True), strict=True):
        assert torch.equal(whole_mask, torch.cat(parts))


def test_groups_unknown_share_nothing():
    pairs = Pairs.from_ids(torch.eye(3), torch.arange(3), groups=torch.tensor([-1, -1, 2]))
    same = pairs.same_group(slice(0, 3))
    assert same.tolist() == [[False, False, False], [False, False, False], [False, False, True]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Pairs.from_ids(torch.ones(3, 2), torch.arange(2)), "ids"),
        (lambda: Pairs.from_ids(torch.ones(3), torch.arange(3)), r"z \(N, D\)"),
        (lambda: Pairs.from_views((torch.ones(3, 2), torch.ones(2, 2))), "one shape"),
        (lambda: Pairs.from_ids(torch.ones(2, 2), torch.arange(2)).same_group(slice(0, 2)), "coarse labels"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_unit_agrees_with_normalize():
    torch.manual_seed(0)
    z = torch.randn(5, 7, dtype=torch.float64)
    torch.testing.assert_close(unit(z), torch.nn.functional.normalize(z), rtol=1e-14, atol=1e-15)
    z.requires_grad_()
    assert torch.autograd.gradcheck(unit, z)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_unit_of_extreme_rows(size):
    z = torch.full((2, 4), size, requires_grad=True)
    u = unit(z)
    torch.testing.assert_close(u, torch.full((2, 4), 0.5))


def test_unit_of_a_zero_row_has_zero_gradient():
    z = torch.zeros(2, 4, requires_grad=True)
    unit(z).sum().backward()
    assert torch.equal(z.grad, torch.zeros(2, 4))


def test_unit_raises_half_types_to_float():
    assert unit(torch.ones(2, 2, dtype=torch.bfloat16)).dtype == torch.float32
    assert unit(torch.ones(2, 2, dtype=torch.float64)).dtype == torch.float64


def test_between_two_sets():
    torch.manual_seed(0)
    pairs = Pairs.between(torch.randn(3, 2), torch.randn(3, 2), torch.tensor([7, 8, 9]))
    positive, negative = pairs.masks(slice(0, 3))
    assert torch.equal(positive, torch.eye(3, dtype=torch.bool))
    assert torch.equal(negative, ~positive)


def test_with_a_queue():
    torch.manual_seed(0)
    q, k, queue = torch.randn(2, 4), torch.randn(2, 4), torch.randn(5, 4)
    pairs = Pairs.with_queue(q, k, queue, torch.tensor([0, 1]), torch.tensor([0, 0, 1, -1, 1]))
    positive, negative = pairs.masks(slice(0, 2))
    assert positive.int().tolist() == [[1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0]]
    assert negative.int().tolist() == [[0, 0, 1, 1, 1, 1, 1]] * 2
    assert (pairs.same_group(slice(0, 2)) & negative).int().tolist() == [[0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 1]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: Pairs.between(torch.ones(3, 2), torch.ones(2, 2), torch.arange(3)),
        lambda: Pairs.with_queue(torch.ones(3, 2), torch.ones(3, 2), torch.ones(2, 3)),
    ],
)
def test_shapes_that_do_not_fit_are_named(call):
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        call()
