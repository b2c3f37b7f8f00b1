"""Labels and classes that pretraining must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solo.data.labels.subsets import KnownLabels, Subset, draw_known, level_targets, withhold
from solo.data.sources.images import ArrayDataset, LevelTargets
from solo.taxonomy import Taxonomy

TREE = Taxonomy(("group", "class"), (("a", "b"), ("p", "q", "r")), ((0, 0, 1),))
LEAVES = [0] * 40 + [1] * 30 + [2] * 10 + [-1] * 5


def data(levels: bool = True) -> ArrayDataset:
    """The image at index i is all i."""
    images = np.arange(len(LEAVES), dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    return ArrayDataset(images, LEAVES, None, LevelTargets(TREE) if levels else None)


@pytest.mark.parametrize("levels", [True, False])
def test_each_class_keeps_the_share_and_items_agree_with_the_labels(levels):
    part = withhold(data(levels), label_fraction=0.2)
    assert isinstance(part, KnownLabels) and len(part) == len(LEAVES)
    assert [part.targets.count(leaf) for leaf in range(3)] == [8, 6, 2]
    labels = level_targets(part)
    whole = level_targets(data(levels))
    for i in range(len(part)):
        image, target = part[i]
        assert image.getpixel((0, 0)) == i
        assert torch.as_tensor(target).tolist() == labels[i].tolist()
        assert labels[i].tolist() == (whole[i].tolist() if part.targets[i] >= 0 else [-1, -1] if levels else -1)


def test_shares_a_level_are_nested_and_so_are_larger_shares():
    labels = level_targets(data())
    known = draw_known(labels, [0.5, 0.1], seed=3)
    assert known[:80, 0].sum() == 40 and known[:80, 1].sum() == 8
    assert not (known[:, 1] & ~known[:, 0]).any()
    assert torch.equal(known[:, 0], draw_known(labels, [0.5, 0.5], seed=3)[:, 1])
    coarse_only = (known[:, 0] & ~known[:, 1]).nonzero().flatten()
    part = withhold(data(), label_fraction=[0.5, 0.1], seed=3)
    for i in coarse_only.tolist():
        expected = [-1, -1] if LEAVES[i] < 0 else [int(labels[i, 0]), -1]
        assert part[i][1].tolist() == expected and part.targets[i] == -1


def test_the_draw_follows_its_seed_only():
    labels = level_targets(data())
    first, again, other = (draw_known(labels, [0.2], seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(("share", "kept"), [(0, 0), (0.001, 1), (1, 10), (-1, 10)])
def test_no_class_is_left_without_a_label_unless_asked(share, kept):
    assert draw_known(torch.zeros(10, 1, dtype=torch.long), [share], 0).sum() == kept


@pytest.mark.parametrize("share", [-1.0, 1, [1.0, -1.0]])
def test_everything(share):
    whole = data()
    assert withhold(whole, label_fraction=share) is whole


def test_unseen_classes_are_gone_and_unlabelled_images_stay():
    part = withhold(data(), unseen=[1], label_fraction=0.2)
    assert isinstance(part, KnownLabels) and isinstance(part.dataset, Subset)
    assert sorted({LEAVES[i] for i in part.dataset.indices}) == [-1, 0, 2] and len(part) == 55
    assert [part.targets.count(leaf) for leaf in range(3)] == [8, 0, 2]
    image, target = part[50]
    assert LEAVES[image.getpixel((0, 0))] == -1 and target.tolist() == [-1, -1]
