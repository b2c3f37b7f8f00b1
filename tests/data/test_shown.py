"""Whose view is the second one of an image: against a loop, in whole batches and image by image."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from solo.data.batches.loaders import BatchLoader, SeededDataset
from solo.data.cache import cached
from solo.data.labels.subsets import Indexed
from solo.data.sources.images import ArrayDataset
from solo.data.views.batched import VIEW, BatchAugment, Shown

N = 24
TABLE = torch.stack([(torch.arange(N) + step) % N for step in (1, 5, 7)], dim=1).to(torch.int32)
TABLE[:, 1][::2] = -1
TABLE[3] = -1
ENTRY = {"crop_size": 12, "num_crops": 2, "rrc": {"enabled": True, "crop_min_scale": 0.4, "crop_max_scale": 1.0}}
SMALL = ENTRY | {"crop_size": 8, "num_crops": 2}


def arrays(height=16):
    return ArrayDataset(np.random.default_rng(0).integers(0, 256, (N, height, 16), dtype=np.uint8), range(N))


def augment(*entries):
    return BatchAugment(entries or [ENTRY], (0.5,), (0.25,), 1)


def test_images_shown_are_relatives_as_often_as_said_and_all_of_them():
    rows, seeds = torch.arange(N).repeat(400), torch.arange(400 * N) * 7919
    shown = Shown(TABLE, 0.7)(rows, seeds)
    counts = np.zeros((N, N))
    for row, other in zip(rows.tolist(), shown.tolist(), strict=True):
        counts[row, other] += 1
    for row in range(N):
        relatives = [int(other) for other in TABLE[row] if other >= 0]
        expected = np.zeros(N)
        expected[relatives] = 0.7 / max(1, len(relatives))
        expected[row] += 1 - expected.sum()
        assert counts[row] / 400 == pytest.approx(expected, abs=0.1)  # four standard errors


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nobody_and_everybody(share):
    rows = torch.arange(N)
    shown = Shown(TABLE, share)(rows, rows + 5)
    has = (TABLE >= 0).any(dim=1)
    assert torch.equal(shown == rows, ~has if share else torch.ones_like(has))
    assert torch.equal(shown[5:9], Shown(TABLE, share)(rows[5:9], rows[5:9] + 5))  # in whatever batch


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("entries", [(ENTRY,), (ENTRY | {"num_crops": 1}, ENTRY | {"num_crops": 1}), (ENTRY, SMALL)])
def test_only_the_second_view_of_a_batch_is_another_images(entries, workers):
    maker, shown = augment(*entries), Shown(TABLE, 0.8)
    plain, showing = (
        BatchLoader(cached(arrays(), maker), maker, 8, workers, seed=1, shown=who) for who in (None, shown)
    )
    seeds = dict(iter(plain.sampler.order()))
    plain.sampler.set_epoch(0)
    changed = 0
    for (ids, views, targets), (same_ids, found, same_targets) in zip(plain, showing, strict=True):
        assert torch.equal(ids, same_ids) and torch.equal(targets, same_targets) and len(found) == len(views)
        own = torch.tensor([seeds[index] for index in ids.tolist()])
        others = shown(ids, own)
        expected = maker(cached(arrays(), maker).fetch(others.tolist()), own)
        for number, (view, made) in enumerate(zip(views, found, strict=True)):
            assert torch.allclose(made, expected[VIEW] if number == VIEW else view, atol=1e-4)
        changed += int((others != ids).sum())
    assert changed > N / 2


def test_only_the_second_view_of_an_image_is_another_images():
    def views(image):
        return [torch.tensor(np.array(image), dtype=torch.float32) + random.random() for _ in range(2)]

    dataset, shown = ArrayDataset(arrays().data, range(N), views), Shown(TABLE, 0.8)
    items, plain = SeededDataset(Indexed(dataset), shown), Indexed(dataset)
    for index in range(N):
        other = int(shown(torch.tensor([index]), torch.tensor([index + 9])))
        expected = []
        for each in (index, other):
            random.seed(index + 9)
            expected.append(plain[each])
        found = items[index, index + 9]
        assert found[0] == index and found[2] == index
        assert torch.equal(found[1][0], expected[0][1][0]) and torch.equal(found[1][1], expected[1][1][1])
