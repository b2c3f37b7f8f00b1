"""Image files, decoded once into one large file.

It is read with `pread`: its pages are shared by all processes through the operating system's cache, and don't count as
memory of any of them. It is filled as images are first asked for, by whoever asks, so that the first epoch costs the
decoding and hardly more. Its name is a hash of what is in it: the files' names, sizes and dates, the pixels that are
kept and the channels; files that change make a new one. What is damaged is decoded again, see `store`.

Files that can't be read are marked there, too, so that with `data.on_error=skip` no file is tried twice, by whatever
process, and all of them can be listed in the end.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from solo.data.cache.skipping import SkippingFiles
from solo.data.cache.store import VERSION, PixelStore, known_sizes
from solo.data.storage.reading import ImageReading
from solo.data.storage.stored import Source, identity
from solo.errors import BrokenImageError

_LOOK_AT = 200


class FileImages(SkippingFiles):
    """Image files, decoded when they are first asked for and then kept in one file.

    Args:
        files: paths, or images in tar, HDF5 and other files.
        targets: of all of them.
        side: pixels of the shorter side that are kept; smaller images are kept as they are.
        reading: how the files become images.
        channels: of what is kept.
        convert: what makes these of `(B, C, H, W)`.
        folder: where the file is kept.
        skip: the next readable image, with unknown labels, stands for one that can't be read.

    Attributes:
        path: of the pixels, see `PixelStore`.
        shapes: (N, 2) heights and widths of what is kept.
        nbytes: size of the pixels when all images are in it.

    Raises:
        BrokenImageError: a file is no image, without `skip`.
    """

    def __init__(
        self,
        files: Sequence[Source],
        targets: Tensor,
        side: int,
        reading: ImageReading,
        channels: int,
        convert: Callable[[Tensor], Tensor],
        folder: Path,
        skip: bool = False,
    ) -> None:
        self.files = list(files)
        self.skip = skip
        self.problems = []
        self.targets = targets
        self.convert = convert
        self.reading = reading
        self.channels = channels
        content = _digest(self.files, side, reading, channels)
        self.path = folder / f"{content[:24]}.uint8"
        known = known_sizes(self.path, content)  # reading all heads takes a while
        if known is None or len(known) != len(self.files):
            known = np.array([self._size_or_nothing(file, side) for file in self.files])
        self.shapes = known
        self._store = PixelStore(self.path, content, known, channels)
        self.nbytes = self._store.nbytes
        self.size_text = f"{len(self.files):,} images in {self.path}, {readable(self.nbytes)}"

    def _size_or_nothing(self, file: Source, side: int) -> tuple[int, int]:
        try:
            return _kept_size(file, side, self.reading)
        except BrokenImageError:
            if not self.skip:
                raise
            return 0, 0

    def open(self) -> None:
        """Create the file with room for all images, unless it is there.

        Raises:
            OSError: the folder can't be written.
        """
        self._store.create()

    @staticmethod
    def estimate(files: Sequence[Source], side: int, reading: ImageReading, channels: int, skip: bool = False) -> int:
        """About how many bytes the cache takes when all images are in it, from a look at some."""
        sizes = []
        for file in files[:: math.ceil(len(files) / _LOOK_AT)]:
            try:
                sizes.append(math.prod(_kept_size(file, side, reading)))
            except BrokenImageError:
                if not skip:
                    raise
        return round(np.mean(sizes or [side**2]) * channels * len(files))

    def _broken(self, rows: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
        return self._store.broken(rows)

    def _mark_broken(self, row: int) -> None:
        self._store.mark_broken(row)

    def _image(self, row: int) -> Tensor:
        pixels = self._store.read(row)
        if pixels is None:
            pixels = self._decode(row)
            self._store.write(row, pixels)
        return torch.from_numpy(pixels).movedim(2, 0)  # channels lie innermost: resizing is faster so

    def _decode(self, row: int) -> np.ndarray[Any, Any]:
        height, width = self.shapes[row].tolist()
        image = self.reading.read(self.files[row])
        planes = torch.from_numpy(_resized(image, width, height)).movedim(2, 0)
        return self.convert(planes[None])[0].movedim(0, 2).contiguous().numpy()


def _resized(image: Any, width: int, height: int) -> np.ndarray[Any, Any]:
    """uint8 `(height, width, C)` of an image of Pillow, or of an array, channel by channel."""
    if isinstance(image, Image.Image):
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return np.array(image)
    if image.shape[:2] == (height, width):
        return cast("np.ndarray[Any, Any]", image)
    planes = [_resized(Image.fromarray(plane), width, height) for plane in image.transpose(2, 0, 1)]
    return np.stack(planes, axis=2)


def _kept_size(file: Source, side: int, reading: ImageReading) -> tuple[int, int]:
    width, height = reading.head(file).size
    scale = min(1.0, side / min(width, height))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _digest(files: Sequence[Source], side: int, reading: ImageReading, channels: int) -> str:
    text = hashlib.sha256(f"{VERSION} {side} {reading} {channels}".encode())
    for file in files:
        text.update(b"\n" + os.fsencode(identity(file)))
    return text.hexdigest()


def readable(nbytes: int) -> str:
    """A number of bytes as MiB or GiB, for people."""
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.1f} MiB"
