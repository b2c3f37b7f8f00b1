from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from solo import distributed
from solo.data import cache
from solo.data.batches.loaders import BatchLoader
from solo.data.cache import CantCacheError, KeptImages, cached, index_of
from solo.data.catalogue.registry import get_spec
from solo.data.labels.subsets import Subset
from solo.data.sources.images import ArrayDataset, CustomDatasetWithoutLabels, SkipBroken, load, skipped_files
from solo.data.storage.reading import ImageReading
from solo.data.views.batched import BatchAugment
from solo.errors import BrokenImageError, UserError

# Python warns of fork in a process with threads, which torch may have started.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
ENTRY = {
    "crop_size": 12,
    "num_crops": 2,
    "rrc": {"enabled": True, "crop_min_scale": 0.3, "crop_max_scale": 1.0},
    "color_jitter": {"prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "horizontal_flip": {"prob": 0.5},
}


def augment(channels: int = 3, **changes: Any) -> BatchAugment:
    return BatchAugment([{**ENTRY, **changes}], (0.5,), (0.25,), channels)


def arrays(count: int = 30, shape: tuple[int, ...] = (16, 16, 3)) -> ArrayDataset:
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
    return ArrayDataset(images, range(count))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for c, size in (("a", (20, 30)), ("b", (14, 13)), ("c", (40, 16))):
        (tmp_path / "images" / c).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / c / f"{i}.png")
    return tmp_path / "images"


def files(folder: Path, **options: Any) -> KeptImages:
    found = cached(load(get_spec("custom"), "train", folder), augment(), folder=str(folder.parent / "cache"), **options)
    assert isinstance(found, KeptImages)
    return found


def draw(loader: BatchLoader, epochs: int = 1) -> list[tuple[Tensor, ...]]:
    return [(indexes, *views, targets) for _ in range(epochs) for indexes, views, targets in loader]


def same(first: list[tuple[Tensor, ...]], second: list[tuple[Tensor, ...]]) -> bool:
    return all(torch.equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True))


# ---- arrays ----


@pytest.mark.parametrize(("shape", "channels"), [((16, 16), 1), ((16, 16, 3), 3), ((3, 16, 16), 3)])
def test_arrays_are_handed_out_as_they_are(shape: tuple[int, ...], channels: int) -> None:
    data = arrays(5, shape)
    batch = cached(data, augment(channels)).fetch([3, 0])
    assert isinstance(batch, Tensor) and batch.dtype == torch.uint8 and batch.shape == (2, channels, 16, 16)
    want = torch.from_numpy(data.data[[3, 0]]).reshape(2, *(shape if len(shape) == 3 else (1, *shape)))
    assert torch.equal(batch, want.movedim(3, 1) if shape[-1] == 3 else want)


def test_channels_are_converted_as_pillow_does() -> None:
    data = arrays(3)
    grey = cached(data, augment(1)).fetch([0, 1, 2])
    want = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in data.data])
    assert np.abs(grey[:, 0].numpy().astype(int) - want).max() <= 1  # type: ignore[call-overload]
    as_grey = cached(data, augment(grayscale={"prob": 0.0, "channels": True})).fetch([0, 1, 2])
    assert torch.equal(as_grey[:, 0], as_grey[:, 2]) and torch.equal(as_grey[:, :1], grey)  # type: ignore[call-overload]
    colour = cached(arrays(3, (16, 16)), augment(3)).fetch([0])
    assert colour.shape == (1, 3, 16, 16)  # type: ignore[union-attr]


def test_a_subset_has_its_own_indices_and_targets() -> None:
    data = arrays(10)
    part = cached(Subset(data, [7, 2, 5]), augment())
    assert len(part) == 3 and part.targets.tolist() == [7, 2, 5]
    assert torch.equal(part.fetch([1])[0], torch.from_numpy(data.data[2]).movedim(2, 0))


def test_targets_of_several_levels() -> None:
    found = cached(levels(), augment(1))
    assert found.targets.tolist() == [[0, 1], [1, 5]]


def levels() -> ArrayDataset:
    paths = {3: [0, 1], 4: [1, 5]}
    images = np.zeros((2, 8, 8), dtype=np.uint8)
    return ArrayDataset(images, [3, 4], None, lambda target: torch.tensor(paths[target]))


# ---- batches ----


def test_batches_have_indexes_views_and_targets() -> None:
    loader = BatchLoader(cached(arrays(), augment()), augment(), 8, seed=1)
    batches = draw(loader)
    assert len(loader) == len(batches) == 3
    for indexes, first, second, targets in batches:
        assert torch.equal(indexes, targets) and indexes.dtype == torch.int64
        assert first.shape == second.shape == (8, 3, 12, 12) and first.dtype == torch.float32
        assert not torch.equal(first, second)
    seen = torch.cat([batch[0] for batch in batches]).tolist()
    assert len(set(seen)) == 24 and seen != sorted(seen)


def test_same_seed_same_batches_for_any_number_of_workers() -> None:
    def loader(workers: int, seed: int) -> BatchLoader:
        return BatchLoader(cached(arrays(), augment()), augment(), 8, workers, seed)

    first = draw(loader(0, 7), epochs=2)
    assert same(draw(loader(2, 7), epochs=2), first)
    assert not same(draw(loader(0, 8), epochs=2), first)


def test_an_epoch_can_be_chosen() -> None:
    first, resumed = (BatchLoader(cached(arrays(), augment()), augment(), 8, seed=7) for _ in range(2))
    draw(first)
    resumed.sampler.set_epoch(1)
    assert same(draw(resumed), draw(first))


def test_processes_get_different_samples_and_equally_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    seen: list[Tensor] = []
    views = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        loader = BatchLoader(cached(arrays(31), augment()), augment(), 5, seed=3)
        batches = draw(loader)
        assert len(batches) == len(loader) == 3
        seen += [batch[0] for batch in batches]
        views += [batch[1] for batch in batches]
    assert torch.cat(seen).unique().numel() == 30
    monkeypatch.undo()
    alone = draw(BatchLoader(cached(arrays(31), augment()), augment(), 10, seed=3))
    of_sample = dict(zip(torch.cat(seen).tolist(), torch.cat(views), strict=True))
    for index, view in zip(alone[0][0].tolist(), alone[0][1], strict=True):  # the world's size changes no view
        torch.testing.assert_close(of_sample[index], view, atol=1e-3, rtol=0)


def test_a_batch_larger_than_the_data() -> None:
    with pytest.raises(UserError, match=r"batch_size=31.*30 images"):
        BatchLoader(cached(arrays(), augment()), augment(), 31)


def test_views_made_later_are_those_made_at_once(folder: Path) -> None:
    maker, seeds = augment(), torch.tensor([5, 7, 11])
    for images in (files(folder), cached(arrays(), augment())):
        found = images.fetch([3, 9, 0])
        later = maker.finish(maker.prepare(found, seeds), seeds, torch.device("cpu"))
        torch.testing.assert_close(later, maker(found, seeds), atol=1e-3, rtol=0)


# ---- files ----


def test_files_keep_their_pixels_up_to_the_side_that_is_kept(folder: Path) -> None:
    images = files(folder, side=16)
    assert images.shapes[[0, 4, 8]].tolist() == [[16, 24], [14, 13], [40, 16]]
    for _ in range(2):  # decoded, then from the cache
        large, small, same_side = images.fetch([0, 4, 8])
        want = Image.open(images.files[0]).resize((24, 16), Image.Resampling.BICUBIC)
        assert torch.equal(large, torch.from_numpy(np.array(want)).movedim(2, 0))
        assert torch.equal(small, torch.from_numpy(np.array(Image.open(images.files[4]))).movedim(2, 0))
        assert same_side.shape == (3, 40, 16)
    assert images.path.stat().st_size == images.nbytes == 4 * 3 * (16 * 24 + 14 * 13 + 40 * 16)
    assert not hasattr(images, "cure")  # of what is kept nothing is faster


def test_what_is_cached_is_not_decoded_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = files(folder)
    pixels = first.fetch(range(12))
    monkeypatch.setattr(ImageReading, "read", lambda self, path: pytest.fail(f"{path} was decoded again"))
    for images in (first, files(folder), pickle.loads(pickle.dumps(first))):
        assert all(torch.equal(a, b) for a, b in zip(images.fetch(range(12)), pixels, strict=True))


def cut(path: Path, index: Path) -> None:
    os.truncate(path, 1000)


def flip(path: Path, index: Path) -> None:
    content = bytearray(path.read_bytes())
    content[500] ^= 4
    path.write_bytes(content)


def unmark(path: Path, index: Path) -> None:
    content = bytearray(index.read_bytes())
    content[-3] ^= 1  # in the last image's checksum
    index.write_bytes(content)


def other(path: Path, index: Path) -> None:
    content = bytearray(index.read_bytes())
    content[30] ^= 1  # what the images are
    index.write_bytes(content)


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "pixels deleted": lambda path, index: path.unlink(),
    "pixels cut off": cut,
    "a bit flipped": flip,
    "index deleted": lambda path, index: index.unlink(),
    "index cut off": lambda path, index: os.truncate(index, index.stat().st_size - 1),
    "index emptied": lambda path, index: os.truncate(index, 0),
    "a checksum flipped": unmark,
    "of other data": other,
}


@pytest.mark.fault(
    5, "the cache's pixels deleted, cut off, or one bit of them or of its index flipped", "decoded again"
)
@pytest.mark.parametrize("when", ["before", "while open"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_decoded_again(damage: str, when: str, folder: Path) -> None:
    first = files(folder)
    pixels = first.fetch(range(12))
    DAMAGE[damage](first.path, index_of(first.path))
    again = pickle.loads(pickle.dumps(first)) if when == "while open" and first.path.exists() else files(folder)
    if not index_of(first.path).exists():
        again = files(folder)
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(again.fetch(range(12)), pixels, strict=True))


@pytest.mark.fault(5, "the disk is full while the cache is written", "one line that names `data.cache_dir`")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_is_one_line(workers: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match=r"^the cache .* can't be written: No space left.*data\.cache_dir[^\n]*$"):
        draw(BatchLoader(files(folder), augment(), 4, workers, seed=2))


def test_two_programs_fill_it_together(folder: Path) -> None:
    one, two = files(folder), files(folder)
    for rows in ([0, 1, 2], [2, 3, 4, 5], range(12)):
        assert all(torch.equal(a, b) for a, b in zip(one.fetch(rows), two.fetch(rows), strict=True))


def test_changed_files_and_other_sizes_make_a_new_cache(folder: Path) -> None:
    first = files(folder)
    assert files(folder).path == first.path != files(folder, side=10).path
    file = folder / "a" / "0.png"
    os.utime(file, ns=(1, 1))
    assert files(folder).path != first.path


BROKEN = ("0-empty.png", "1-text.png", "2-truncated.png", "3-link.png")


@pytest.fixture
def damaged(folder: Path) -> Path:
    """The folder with files that can't be read, before those of class b."""
    empty, text, truncated, link = (folder / "b" / name for name in BROKEN)
    empty.touch()
    text.write_text("no image")
    whole = (folder / "a" / "0.png").read_bytes()
    truncated.write_bytes(whole[: len(whole) // 2])
    link.symlink_to(folder / "nothing.png")
    return folder


def skipping(folder: Path, **options: Any) -> KeptImages:
    data = SkipBroken(load(get_spec("custom"), "train", folder))
    found = cached(data, augment(), folder=str(folder.parent / "cache"), **options)
    assert isinstance(found, KeptImages)
    return found


def test_another_image_without_a_label_stands_for_a_broken_file(damaged: Path) -> None:
    images = skipping(damaged)
    names = [f"{Path(file).parent.name}/{Path(file).name}" for file in images.files]
    first = names.index("b/0-empty.png")
    after = names.index(next(name for name in names[first:] if Path(name).name not in BROKEN))
    found = images.fetch([first, after, 0])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert images.labels(torch.tensor([first, after, 0])).tolist() == [-1, 1, 0]
    images.fetch(range(len(images)))
    assert [line.split("/")[-1].split()[0] for line in images.skipped()] == sorted(BROKEN)
    assert skipped_files(BatchLoader(images, augment(), 4)) == images.skipped()


def test_broken_files_are_tried_once_by_all_workers_and_runs(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = BatchLoader(skipping(damaged), augment(), 8, 2, seed=0)
    targets = torch.cat([batch[-1] for batch in draw(loader)])
    assert (targets == -1).sum() == 4 and len(loader.dataset.skipped()) == 4  # type: ignore[attr-defined]
    again = skipping(damaged)
    monkeypatch.setattr(ImageReading, "read", lambda self, path: pytest.fail(f"{path} was tried again"))
    again.fetch(range(len(again)))
    assert len(again.skipped()) == 4


def test_without_skip_a_broken_file_is_named(damaged: Path) -> None:
    skipping(damaged)  # whose sizes are kept
    for name in BROKEN:
        with pytest.raises(BrokenImageError, match=r"b/.*can't be read as an image"):
            files(damaged).fetch(range(16))
        (damaged / "b" / name).unlink()
    assert len(files(damaged).fetch(range(12))) == 12


def test_batches_of_files_with_workers(folder: Path) -> None:
    first = draw(BatchLoader(files(folder), augment(), 4, 0, seed=2))
    assert [batch[1].shape for batch in first] == [(4, 3, 12, 12)] * 3
    assert same(draw(BatchLoader(files(folder), augment(), 4, 2, seed=2)), first)
    for indexes, *_, targets in first:
        assert torch.equal(targets, indexes // 4)


def test_no_labels(folder: Path) -> None:
    found = cached(CustomDatasetWithoutLabels(folder / "a"), augment(), folder=str(folder.parent / "cache"))
    assert len(found) == 4 and found.targets.tolist() == [-1] * 4


@pytest.mark.fault(5, "`data.cache_dir` where another user alone may look or write", "decoded in each epoch; said")
@pytest.mark.parametrize("mode", [0o000, 0o555])
def test_the_cache_is_another_users(folder: Path, no_root: None, mode: int) -> None:
    place = folder.parent / "theirs"
    place.mkdir(mode)
    with pytest.raises(CantCacheError, match=r"can't be written \(Permission denied\); choose another data\.cache_dir"):
        cached(load(get_spec("custom"), "train", folder), augment(), folder=str(place / "cache"))


def test_what_cannot_be_cached_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data: Any = load(get_spec("custom"), "train", folder)
    with pytest.raises(CantCacheError, match=r"rrc\.enabled"):
        cached(data, augment(rrc={"enabled": False}))
    monkeypatch.setattr(cache, "UNASKED_BYTES", 1000)
    assert isinstance(files(folder, asked=True), KeptImages)
    with pytest.raises(CantCacheError, match=r"can't be written.*data\.cache_dir"):
        cached(data, augment(), folder=str(folder / "a" / "0.png" / "cache"), asked=True)
    data.samples = [("class/name in a container", 0)]
    with pytest.raises(CantCacheError, match="neither in memory nor in files"):
        cached(data, augment())
