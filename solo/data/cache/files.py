"""Image files as whole batches: decoded whenever they are asked for, or once into one large file.

The large file is read with `pread`: its pages are shared by all processes through the operating system's cache, and
don't count as memory of any of them. It is filled as images are first asked for, by whoever asks, so that the first
epoch costs the decoding and hardly more. Its name is a hash of what is in it: the files' names, sizes and dates, the
pixels that are kept and the channels; files that change make a new one. What is damaged is decoded again, see `store`.

With `data.on_error=skip` files that can't be read are marked for all processes, so that none is tried twice and all of
them can be listed in the end.
"""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from solo.data.cache.store import VERSION, PixelStore, known_sizes
from solo.data.sources.images import next_readable, not_an_image
from solo.data.storage.facts import Source, identity
from solo.data.storage.reading import ImageReading
from solo.errors import BrokenImageError
from solo.taxonomy import UNKNOWN

_LOOK_AT = 200


@dataclass(eq=False)
class FileImages:
    """Image files, decoded in the loader's processes and cropped there; all else happens to whole batches.

    JPEG files whose shorter side is more than twice `side` are decoded at a half, a quarter or an eighth of their size,
    so that it stays at least `side`: pixels are averaged that a crop would average. All others are decoded as they are.

    `size_text` says how much there is, and `cure` what would be faster, for people.
    """

    files: Sequence[Source]  # paths, or images in tar, HDF5 and other files
    targets: Tensor  # of all of them
    side: int  # pixels of the shorter side that no crop can use more of
    reading: ImageReading  # how the files become images
    convert: Callable[[Tensor], Tensor]  # what makes the wanted channels of `(B, C, H, W)`
    skip: bool = False  # the next readable image, with unknown labels, stands for one that can't be read
    problems: Sequence[str] = ()  # of the data set, one line each

    def __post_init__(self) -> None:
        self.size_text, self.cure = f"{len(self.files):,} files, decoded in each epoch", ""
        self._marks = torch.zeros(len(self.files), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.files)

    def estimate(self, side: int, channels: int) -> int:
        """About how many bytes all images take, decoded and kept with that shorter side, from a look at some."""
        some = self.files[:: math.ceil(len(self.files) / _LOOK_AT)]
        sizes = [math.prod(size) for file in some if all(size := self._kept_size(file, side))]
        return round(np.mean(sizes or [side**2]) * channels * len(self.files))

    def fetch(self, rows: Sequence[int]) -> list[Tensor]:
        """uint8 `(C, H, W)` each; a `BrokenImageError` for one that is no image, or with `skip` if none is."""
        if not self.skip:
            return [self._image(row) for row in rows]
        return [
            next_readable(row, len(self), lambda at: self._broken([at])[0], self._image, self._mark_broken)[1]
            for row in rows
        ]

    def labels(self, rows: Tensor) -> Tensor:
        """Targets of rows that were fetched, -1 for those that another image stands for."""
        broken = torch.from_numpy(self._broken(rows.tolist())) & self.skip
        found = self.targets[rows]
        return found.masked_fill(broken.reshape(-1, *[1] * (found.ndim - 1)), UNKNOWN)

    def skipped(self) -> list[str]:
        """What was found broken so far, by all processes, one line each."""
        broken = np.flatnonzero(self._broken()).tolist() if self.skip else []
        return [*self.problems, *(not_an_image(str(self.files[row])) for row in broken)] if self.skip else []

    def _kept_size(self, file: Source, side: int) -> tuple[int, int]:
        """Height and width of an image whose shorter side is at most `side`; nothing for one that is skipped."""
        try:
            width, height = self.reading.head(file).size
        except BrokenImageError:
            if not self.skip:
                raise
            return 0, 0
        scale = min(1.0, side / min(width, height))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _image(self, row: int) -> Tensor:
        pixels = torch.from_numpy(np.array(self.reading.read(self.files[row], at_least=self.side)))
        planes = pixels[None] if pixels.ndim == 2 else pixels.movedim(2, 0)
        return self.convert(planes[None])[0]

    def _broken(self, rows: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
        """Bools, of these rows or of all: found not to be readable."""
        known: np.ndarray[Any, Any] = self._marks.numpy()
        return known if rows is None else known[list(rows)]

    def _mark_broken(self, row: int) -> None:
        self._marks[row] = True


class KeptImages(FileImages):
    """Image files, decoded when they are first asked for and then kept in one file in `folder`.

    `files` says which images, how they are read, and what is done with those that can't be. Smaller images than `side`
    pixels of the shorter side are kept as they are.

    Attributes:
        path: of the pixels, see `PixelStore`.
        shapes: (N, 2) heights and widths of what is kept.
        nbytes: size of the pixels when all images are in it.
    """

    def __init__(self, files: FileImages, side: int, channels: int, folder: Path) -> None:
        vars(self).update(vars(files))
        digest = hashlib.sha256(f"{VERSION} {side} {self.reading} {channels}".encode())
        for file in self.files:
            digest.update(b"\n" + os.fsencode(identity(file)))
        content = digest.hexdigest()
        self.path = folder / f"{content[:24]}.uint8"
        known = known_sizes(self.path, content)  # reading all heads takes a while
        if known is None or len(known) != len(self.files):
            known = np.array([self._kept_size(file, side) for file in self.files])
        self.shapes = known
        self._store = PixelStore(self.path, content, known, channels)
        self.nbytes = self._store.nbytes
        self.size_text = f"{len(self.files):,} images in {self.path}, {readable(self.nbytes)}"

    def open(self) -> None:
        """Create the file with room for all images, unless it is there; an `OSError` if that can't be."""
        self._store.create()

    def _broken(self, rows: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
        return self._store.broken(rows)

    def _mark_broken(self, row: int) -> None:
        self._store.mark_broken(row)

    def _image(self, row: int) -> Tensor:
        pixels = self._store.read(row)
        if pixels is None:
            height, width = self.shapes[row].tolist()
            planes = torch.from_numpy(_resized(self.reading.read(self.files[row]), width, height)).movedim(2, 0)
            pixels = self.convert(planes[None])[0].movedim(0, 2).contiguous().numpy()
            self._store.write(row, pixels)
        return torch.from_numpy(pixels).movedim(2, 0)  # channels lie innermost: resizing is faster so


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


def readable(nbytes: int) -> str:
    """A number of bytes as MiB or GiB, for people."""
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.1f} MiB"
