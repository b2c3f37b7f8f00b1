from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from solo.data.labels.subsets import Indexed, Subset, hold_out, level_targets, take_fraction
from solo.data.sources.images import ArrayDataset, LevelTargets
from solo.errors import UserError
from solo.taxonomy import Taxonomy


def grey(targets: list[int]) -> ArrayDataset:
    """The image at index i is all i."""
    return ArrayDataset(np.arange(len(targets), dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2), targets)


IMBALANCED = [0] * 60 + [1] * 30 + [2] * 10


def test_fraction_keeps_class_frequencies_targets_and_images_together() -> None:
    part = take_fraction(grey(IMBALANCED), 0.2)
    assert isinstance(part, Subset)
    assert Counter(part.targets) == {0: 12, 1: 6, 2: 2}
    for i in range(len(part)):
        image, target = part[i]
        assert target == part.targets[i] == IMBALANCED[image.getpixel((0, 0))]


def test_fraction_is_always_the_same_and_follows_its_seed() -> None:
    first, again, other = (take_fraction(grey(IMBALANCED), 0.2, seed) for seed in (42, 42, 1))
    assert isinstance(first, Subset) and isinstance(again, Subset) and isinstance(other, Subset)
    assert first.indices == again.indices != other.indices


def test_what_is_held_out_and_the_rest_are_all_of_it() -> None:
    """Of each class its share, nothing without a class; of a data set with groups whole ones."""
    data = grey([*IMBALANCED, -1, -1])
    held, rest = hold_out(data, 0.2, True), hold_out(data, 0.2, False)
    assert Counter(held.targets) == {0: 12, 1: 6, 2: 2} and sorted([*held.indices, *rest.indices]) == list(range(102))
    data.groups = np.arange(102) // 10  # type: ignore[assignment]
    held, rest = hold_out(data, 0.25, True), hold_out(data, 0.25, False)
    groups = [{index // 10 for index in part.indices} for part in (held, rest)]
    assert 0 < len(held) <= 25 and not groups[0] & groups[1] and len(held) + len(rest) == 102
    with pytest.raises(UserError, match="leaves one part empty"):
        hold_out(grey([0, 1]), 0.01, True)


@pytest.mark.parametrize("fraction", [-1, 0, 1.0])
def test_everything(fraction: float) -> None:
    data = grey(IMBALANCED)
    assert take_fraction(data, fraction) is data


@pytest.mark.parametrize(("fraction", "message"), [(1.5, "above 1"), (0.01, "larger fraction")])
def test_impossible_fractions(fraction: float, message: str) -> None:
    with pytest.raises(UserError, match=rf"data\.fraction={fraction}.*{message}"):
        take_fraction(grey(IMBALANCED), fraction)


def test_index_counts_within_the_subset() -> None:
    items = Indexed(take_fraction(grey(IMBALANCED), 0.2))
    assert [items[i][0] for i in range(len(items))] == list(range(20))
    assert list(items.targets) == [items[i][2] for i in range(20)]


def test_level_targets_are_those_of_the_items() -> None:
    tree = Taxonomy(("group", "class"), (("a", "b"), ("p", "q", "r")), ((0, 0, 1),))
    data = ArrayDataset(np.zeros((5, 2, 2), dtype=np.uint8), [2, 0, -1, 1, 2], None, LevelTargets(tree))
    assert level_targets(data).tolist() == [[1, 2], [0, 0], [-1, -1], [0, 1], [1, 2]]
    assert level_targets(Subset(data, [3, 2])).tolist() == [data[i][1].tolist() for i in (3, 2)]
    assert level_targets(grey([1, 0, -1])).tolist() == [1, 0, -1]


def test_held_out_images_are_those_of_a_loop_over_the_classes() -> None:
    targets = np.random.default_rng(1).integers(-1, 40, size=500)
    order, expected = np.random.default_rng(0).permutation(500), set()
    for label in range(40):
        rows = [int(row) for row in order if targets[row] == label]
        expected |= set(rows[: round(0.3 * len(rows))])
    assert set(hold_out(grey(targets.tolist()), 0.3, True).indices) == expected
