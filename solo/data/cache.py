"""Decoded images, to take whole batches from: arrays in memory, or files decoded once into one large file.

The large file is read with `pread`, not mapped: its pages are shared by all processes through the operating system's
cache, and don't count as memory of any of them. It is filled as images are first asked for, by whoever asks, so that
the first epoch costs the decoding and hardly more. Its name is a hash of what is in it: the files' names, sizes and
dates, the pixels that are kept and the channels; files that change make a new one.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from solo.data.augment import BatchAugment
from solo.data.images import read_rgb
from solo.data.skip import SkipBroken, file_names
from solo.data.subsets import Subset, level_targets
from solo.data.tensor_ops import luminance

# Above this the user decides: it is written to a disk that may be small or slow.
_UNASKED_BYTES = 2 * 2**30
_FORMAT = "1"


class CantCacheError(Exception):
    """Why whole batches can't be taken from a data set."""


class Images(Protocol):
    """Decoded images of a data set.

    Attributes:
        targets: int64, `(N,)` or `(N, levels)`.
        size_text: how much there is, for people.
    """

    targets: Tensor
    size_text: str

    def __len__(self) -> int: ...

    def fetch(self, rows: Sequence[int]) -> Tensor | list[Tensor]:
        """uint8 `(B, C, H, W)`, or `(C, H, W)` each where sizes differ."""
        ...


class ArrayImages:
    """Images that lie in memory anyway.

    Args:
        images: uint8, `(N, H, W)`, `(N, H, W, 3)` or `(N, 3, H, W)`; not copied.
        targets: of all of them.
        indices: which of them are meant.
        convert: what makes the wanted channels of `(B, C, H, W)`.
    """

    def __init__(
        self, images: np.ndarray, targets: Tensor, indices: np.ndarray, convert: Callable[[Tensor], Tensor]
    ) -> None:
        self.images = images
        self.indices = indices
        self.targets = targets[torch.from_numpy(indices)]
        self.convert = convert
        self.size_text = f"{len(indices):,} images in memory, {_readable(images.nbytes)}"

    def __len__(self) -> int:
        return len(self.indices)

    def fetch(self, rows: Sequence[int]) -> Tensor:
        """uint8 `(B, C, H, W)`."""
        batch = torch.from_numpy(self.images[self.indices[rows]])
        if batch.ndim == 3:
            batch = batch[:, None]
        elif batch.shape[1] != 3:
            batch = batch.movedim(3, 1)
        return self.convert(batch)


class FileImages:
    """Image files, decoded when they are first asked for and then kept in one file.

    Args:
        files: paths.
        targets: of all of them.
        side: pixels of the shorter side that are kept; smaller images are kept as they are.
        channels: 1 or 3.
        convert: what makes the wanted channels of `(B, 3, H, W)`.
        folder: where the file is kept.

    Attributes:
        path: the file; beside it `<name>.done` has a byte for each image that is in it.
        nbytes: its size when all images are in it.

    Raises:
        BrokenImageError: a file is no image.
    """

    def __init__(
        self,
        files: Sequence[str],
        targets: Tensor,
        side: int,
        channels: int,
        convert: Callable[[Tensor], Tensor],
        folder: Path,
    ) -> None:
        self.files = list(files)
        self.targets = targets
        self.convert = convert
        self.channels = channels
        self.shapes = np.array([_kept_size(file, side) for file in self.files])  # (N, 2), height and width
        ends = np.cumsum(self.shapes.prod(axis=1) * channels)
        self.nbytes = int(ends[-1])
        self.starts = np.concatenate(([0], ends[:-1]))
        self.path = folder / f"{_digest(self.files, side, channels)}.uint8"
        self.size_text = f"{len(self.files):,} images in {self.path}, {_readable(self.nbytes)}"
        self._handle: tuple[int, int] | None = None  # of the process of this id
        self._done: np.ndarray | None = None

    def open(self) -> None:
        """Create the file with room for all images, unless it is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for path, size in ((self.path, self.nbytes), (self._marks, len(self.files))):
            with open(path, "ab") as file:
                if file.tell() < size:
                    os.truncate(path, size)

    @property
    def _marks(self) -> Path:
        return self.path.with_suffix(".done")

    def __len__(self) -> int:
        return len(self.files)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None, "_done": None}

    def fetch(self, rows: Sequence[int]) -> list[Tensor]:
        """uint8 `(C, H, W)` each.

        Raises:
            BrokenImageError: a file can't be decoded.
        """
        return [self._image(row) for row in rows]

    def _image(self, row: int) -> Tensor:
        handle, done = self._open()
        (height, width), start = self.shapes[row].tolist(), int(self.starts[row])
        count = height * width * self.channels
        if done[row]:
            pixels = np.frombuffer(os.pread(handle, count, start), dtype=np.uint8).copy()
        else:
            pixels = self._decode(row, height, width)
            _write(handle, pixels, start)
            done[row] = 1
        # Channels lie innermost: resizing is faster so.
        return torch.from_numpy(pixels.reshape(height, width, self.channels)).movedim(2, 0)

    def _decode(self, row: int, height: int, width: int) -> np.ndarray:
        image = read_rgb(self.files[row])
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        planes = torch.from_numpy(np.array(image)).movedim(2, 0)
        return self.convert(planes[None])[0].movedim(0, 2).contiguous().numpy().reshape(-1)

    def _open(self) -> tuple[int, np.ndarray]:
        if self._handle is None or self._handle[0] != os.getpid() or self._done is None:
            self._handle = os.getpid(), os.open(self.path, os.O_RDWR)
            self._done = np.memmap(self._marks, np.uint8, "r+")
        return self._handle[1], self._done


def cached(
    dataset: Any, augment: BatchAugment, side: int | None = None, folder: str | None = None, asked: bool = False
) -> ArrayImages | FileImages:
    """The decoded images of a data set of PIL images without a transform.

    Args:
        dataset: from `solo.data.sources.load`, perhaps in a `Subset`.
        augment: what they are for.
        side: pixels of the shorter side that are kept of files; default: 8/7 of the largest view's.
        folder: where those are kept; default: `solo` in the user's cache folder.
        asked: whether the user wants it, whatever room it takes.

    Raises:
        CantCacheError: says why not.
        BrokenImageError: a file is no image.
    """
    indices = np.arange(len(dataset))
    if isinstance(dataset, Subset):
        indices, dataset = np.array(dataset.indices), dataset.dataset
    convert = _Channels(augment.channels, augment.as_grey)
    targets = level_targets(dataset)
    arrays = [getattr(dataset, name, None) for name in ("images", "data")]
    for array in arrays:
        if isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim in (3, 4):
            return ArrayImages(array, targets, indices, convert)
    files = file_names(dataset)
    if not files or not os.path.isfile(files[0]):
        raise CantCacheError("the images are neither in memory nor in files of their own")
    if isinstance(dataset, SkipBroken):
        raise CantCacheError("data.on_error=skip replaces images one by one")
    if any(entry.scale is None for entry in augment.entries):
        raise CantCacheError("rrc.enabled=false keeps the shape of each image")
    place = Path(folder or os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/solo").expanduser()
    chosen, kept = [files[i] for i in indices.tolist()], side or math.ceil(augment.size * 8 / 7)
    images = FileImages(chosen, targets[torch.from_numpy(indices)], kept, augment.channels, convert, place)
    size = _readable(images.nbytes)
    if images.nbytes > _UNASKED_BYTES and not asked:
        raise CantCacheError(f"decoded they would take {size} in {place}; data.augment=batch takes it")
    parent = next(path for path in (place, *place.parents) if path.exists())
    if images.nbytes > shutil.disk_usage(parent).free and not images.path.exists():
        raise CantCacheError(f"decoded they take {size}, more than is free in {place}; see data.cache_dir")
    images.open()
    return images


class _Channels:
    """`(B, C, H, W)` uint8 with the wanted number of channels."""

    def __init__(self, channels: int, as_grey: bool) -> None:
        self.channels = channels
        self.as_grey = as_grey

    def __call__(self, images: Tensor) -> Tensor:
        if images.shape[1] == 3 and (self.as_grey or self.channels == 1):
            images = luminance(images.float()).round_().to(torch.uint8)
        return images.expand(-1, self.channels, -1, -1)


def _kept_size(file: str, side: int) -> tuple[int, int]:
    try:
        with Image.open(file) as image:  # reads the head only
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        read_rgb(file)  # says what is wrong
        raise
    scale = min(1.0, side / min(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _digest(files: Sequence[str], side: int, channels: int) -> str:
    text = hashlib.sha256(f"{_FORMAT} {side} {channels}".encode())
    for file in files:
        stat = os.stat(file)
        text.update(f"\n{os.path.abspath(file)} {stat.st_size} {stat.st_mtime_ns}".encode())
    return text.hexdigest()[:24]


def _write(handle: int, pixels: np.ndarray, start: int) -> None:
    rest = memoryview(pixels.tobytes())
    while rest:
        written = os.pwrite(handle, rest, start)
        rest, start = rest[written:], start + written


def _readable(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.0f} MiB"
