"""Files decoded whenever they are asked for: the same views, of whole batches, with workers and broken files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from solo.data import cache
from solo.data.batches.loaders import BatchLoader
from solo.data.cache import FileImages, cached
from solo.data.catalogue.registry import get_spec
from solo.data.sources.images import SkipBroken, load, skipped_files
from solo.data.views.batched import BatchAugment
from solo.errors import BrokenImageError

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
SIZE, SMALLEST = 16, 0.25


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two large JPEG files and two small PNG files, of which two bytes are more than should be cached unasked."""
    monkeypatch.setattr(cache, "UNASKED_BYTES", 2)
    for name, shape, suffix in (("a", (200, 260), "jpg"), ("b", (30, 20), "png")):
        (tmp_path / name).mkdir()
        for i in range(2):
            coarse = np.random.default_rng(i).integers(0, 256, (5, 6, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
            image.save(tmp_path / name / f"{i}.{suffix}", quality=95)
    return tmp_path


def augment() -> BatchAugment:
    crop = {"enabled": True, "crop_min_scale": SMALLEST, "crop_max_scale": 1.0}
    return BatchAugment([{"crop_size": SIZE, "num_crops": 2, "rrc": crop}], (0.5,) * 3, (0.25,) * 3)


def uncached(folder: Path, **skip: Any) -> FileImages:
    data = load(get_spec("custom"), "train", folder)
    found = cached(SkipBroken(data) if skip else data, augment())
    assert type(found) is FileImages and not list(folder.glob("**/*.uint8"))
    return found


def test_no_crop_is_enlarged_by_decoding_smaller(folder: Path) -> None:
    images = uncached(folder)
    side, (large, small) = images.side, images.fetch([0, 2])
    assert large.shape == (3, 50, 65) and small.shape == (3, 30, 20)  # a quarter: an eighth would have too few pixels
    assert 25 < side <= 50
    assert side * (SMALLEST * 3 / 4) ** 0.5 >= SIZE  # the narrowest crop of such an image


def test_views_are_those_of_whole_images(folder: Path) -> None:
    names, seeds = ("a/0.jpg", "b/0.png"), torch.tensor([3, 4])
    whole = [torch.from_numpy(np.array(Image.open(folder / name))).movedim(2, 0) for name in names]
    views = augment()(uncached(folder).fetch([0, 2]), seeds)
    for view, expected in zip(views, augment()(whole, seeds), strict=True):
        assert torch.equal(view[1], expected[1])  # PNG: the same pixels
        assert (view[0] - expected[0]).abs().mean() * 0.25 * 255 < 6  # JPEG: boxes of whole pixels, fewer of them


def test_batches_with_workers_and_without(folder: Path) -> None:
    batches = [next(iter(BatchLoader(uncached(folder), augment(), 4, workers, seed=1))) for workers in (0, 2)]
    assert all(torch.equal(a, b) for a, b in zip(batches[0][1], batches[1][1], strict=True))
    assert torch.equal(batches[0][2], batches[0][0] // 2)


def test_broken_files_are_named_or_skipped_and_listed(folder: Path) -> None:
    (folder / "b" / "0.png").write_bytes((folder / "b" / "1.png").read_bytes()[:200])
    with pytest.raises(BrokenImageError, match=r"0\.png"):
        uncached(folder).fetch([2])
    images = uncached(folder, skip=True)
    indexes, _, targets = next(iter(BatchLoader(images, augment(), 4, 1, seed=1)))
    assert targets[indexes == 2].item() == -1 and (targets[indexes != 2] >= 0).all()
    (line,) = skipped_files(images)
    assert "0.png" in line
