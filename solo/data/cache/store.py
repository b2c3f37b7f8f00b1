"""Decoded images on disk: a file of pixels, and beside it an index with a header and a checksum for each image.

Nothing is mapped: a file that is cut off, or a disk that is full, is an error or an image that is decoded again, never
a signal that ends the process. Any number of processes may read and write at once: they write the same bytes, and an
image counts only when its checksum fits.
"""

import hashlib
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from solo.errors import UserError

VERSION = 3
_HEAD = struct.Struct("<12sIQ32sI")  # name, version, images, hash of what they are, checksum of the sizes
_ENTRY = struct.Struct("<II")  # mark, checksum of the pixels
_NAME = b"solo images\n"
_KEPT, _BROKEN = 0x4B455054, 0x42524F4B  # so different that no flipped bit makes one of the other

Array = np.ndarray[Any, Any]


class PixelStore:
    """Room for `N` images of known sizes, heights and widths (N, 2), all with as many channels.

    `content` says what they are: another one starts anew. `nbytes` are those of the pixels when all images are there.
    """

    def __init__(self, path: Path, content: str, sizes: Array, channels: int) -> None:
        self.path, self.sizes, self.channels = path, sizes, channels
        ends = np.cumsum(sizes.astype(np.int64).prod(axis=1) * channels)
        self.nbytes = int(ends[-1])
        self._starts = np.concatenate(([0], ends[:-1]))
        self._content = content
        self._first = _HEAD.size + sizes.size * 4  # place of the entries
        self._handles: tuple[int, int, int] | None = None  # process, pixels, index
        self._verified = np.zeros(len(sizes), dtype=bool)  # by this process: its pages are not looked at again

    def create(self) -> None:
        """Make both files, unless they are there and right; an `OSError` if the folder can't take them."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        index = index_of(self.path)
        if not np.array_equal(known_sizes(self.path, self._content), self.sizes):  # type: ignore[arg-type]
            own = index.with_name(f"{index.name}.{os.getpid()}")  # several processes may be here
            try:
                with open(own, "wb") as file:
                    sizes = self.sizes.astype("<i4").tobytes()
                    file.write(_HEAD.pack(_NAME, VERSION, len(self.sizes), _digest(self._content), zlib.crc32(sizes)))
                    file.write(sizes + bytes(_ENTRY.size * len(self.sizes)))
                os.replace(own, index)
            finally:
                own.unlink(missing_ok=True)
        with open(self.path, "ab") as file:
            if file.tell() < self.nbytes:
                os.truncate(self.path, self.nbytes)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": None, "_verified": np.zeros(len(self.sizes), dtype=bool)}

    def read(self, row: int) -> Array | None:
        """(H, W, C) uint8; None if it isn't there yet, or is damaged."""
        mark, checksum = self._entry(row)
        if mark != _KEPT:
            return None
        shape = (*self.sizes[row].tolist(), self.channels)
        content = os.pread(self._open()[1], math.prod(shape), int(self._starts[row]))
        if len(content) < math.prod(shape) or not (self._verified[row] or zlib.crc32(content) == checksum):
            return None
        self._verified[row] = True
        return np.frombuffer(content, dtype=np.uint8).copy().reshape(shape)

    def write(self, row: int, image: Array) -> None:
        """Keep (H, W, C) uint8. Raises a `UserError`: the disk is full, or can't be written."""
        content = image.tobytes()
        self._put(1, content, int(self._starts[row]))
        self._mark(row, _KEPT, zlib.crc32(content))

    def mark_broken(self, row: int) -> None:
        """Remember that there is no such image."""
        self._mark(row, _BROKEN, 0)

    def broken(self, rows: Sequence[int]) -> Array:
        """Bools of these rows: marked as broken."""
        return np.array([self._entry(row)[0] == _BROKEN for row in rows], dtype=bool)

    def _entry(self, row: int) -> tuple[int, int]:
        """Mark and checksum of an image; zeros where the index was cut off."""
        found = os.pread(self._open()[2], _ENTRY.size, self._first + row * _ENTRY.size)
        mark, checksum = _ENTRY.unpack(found.ljust(_ENTRY.size, b"\0"))
        return mark, checksum

    def _mark(self, row: int, mark: int, checksum: int) -> None:
        self._put(2, _ENTRY.pack(mark, checksum), self._first + row * _ENTRY.size)

    def _put(self, file: int, content: bytes, place: int) -> None:
        rest = memoryview(content)
        try:
            while rest:
                written = os.pwrite(self._open()[file], rest, place)
                rest, place = rest[written:], place + written
        except OSError as error:
            raise UserError(
                f"the cache of decoded images in {self.path.parent} can't be written: {error.strerror}; free the disk, "
                "choose another data.cache_dir, or set data.augment=sample"
            ) from error

    def _open(self) -> tuple[int, int, int]:
        if self._handles is None or self._handles[0] != os.getpid():
            pixels, index = (os.open(path, os.O_RDWR) for path in (self.path, index_of(self.path)))
            self._handles = os.getpid(), pixels, index
            self._verified = np.zeros(len(self.sizes), dtype=bool)
        return self._handles


def index_of(path: Path) -> Path:
    """The index of a file of pixels."""
    return path.with_suffix(".index")


def known_sizes(path: Path, content: str) -> Array | None:
    """The sizes that the index of a file of pixels holds, if it is whole, right, and of this `content`; else None."""
    try:
        with open(index_of(path), "rb") as file:
            name, version, count, whose, checksum = _HEAD.unpack(file.read(_HEAD.size))
            if (name, version, whose) != (_NAME, VERSION, _digest(content)):
                return None
            if os.fstat(file.fileno()).st_size != _HEAD.size + count * (8 + _ENTRY.size):
                return None
            sizes = file.read(count * 8)
    except (OSError, struct.error):
        return None
    return np.frombuffer(sizes, "<i4").reshape(-1, 2).astype(np.int64) if zlib.crc32(sizes) == checksum else None


def _digest(content: str) -> bytes:
    return hashlib.sha256(content.encode()).digest()
