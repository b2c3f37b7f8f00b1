"""Decoded images, to take whole batches from: arrays in memory, or files, decoded each time or once into a large file.

The large file is filled as images are first asked for, by whoever asks, and read with `pread`: its pages are shared by
all processes through the operating system's cache. Its name is a hash of what is in it: the files' names, sizes and
dates, the pixels that are kept and the channels. With `data.on_error=skip` files that can't be read are marked for all
processes: none is tried twice, and all can be listed in the end.

Beside it lies an index with a header and a checksum for each image. Nothing is mapped: a file that is cut off, or a
full disk, is an error or an image that is decoded again, never a signal that ends the process. Processes may read and
write at once: they write the same bytes, and an image counts only when its checksum fits.
"""

import hashlib
import math
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from solo.data.labels.subsets import Array, KnownLabels, Subset, level_targets
from solo.data.sources.images import SkipBroken, image_sources, next_readable, not_an_image
from solo.data.storage.facts import Source, identity
from solo.data.storage.reading import ImageReading
from solo.data.views.batched import BatchAugment
from solo.errors import BrokenImageError, UserError, reason
from solo.files import replacing, user_cache
from solo.taxonomy import UNKNOWN

# Above this the user decides: it is written to a disk that may be small or slow.
UNASKED_BYTES = 2 * 2**30
VERSION = 3
_HEAD = struct.Struct("<12sIQ32sI")  # name, version, images, hash of what they are, checksum of the sizes
_ENTRY = struct.Struct("<II")  # mark, checksum of the pixels
_NAME = b"solo images\n"
_KEPT, _BROKEN = 0x4B455054, 0x42524F4B  # so different that no flipped bit makes one of the other


def index_of(path: Path) -> Path:
    """The index of a file of pixels."""
    return path.with_suffix(".index")


def known_sizes(path: Path, whose: bytes) -> Array | None:
    """The sizes that the index of a file of pixels holds, if it is whole, right, and of this content; else None."""
    try:
        index = index_of(path).read_bytes()
        *head, count, digest, checksum = _HEAD.unpack_from(index)
    except (OSError, struct.error):
        return None
    sizes = index[_HEAD.size : _HEAD.size + count * 8]
    length = _HEAD.size + count * (8 + _ENTRY.size)
    sound = [*head, digest, len(index), checksum] == [_NAME, VERSION, whose, length, zlib.crc32(sizes)]
    return np.frombuffer(sizes, "<i4").reshape(-1, 2).astype(np.int64) if sound else None


def _readable(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.1f} MiB"


@dataclass(eq=False)
class ArrayImages:
    """Images that lie in memory anyway; not copied."""

    images: Array  # uint8 `(N, H, W)`, `(N, H, W, 3)` or `(N, 3, H, W)`
    indices: Array  # which of them are meant
    targets: Tensor  # of these, int64, `(n,)` or `(n, levels)`
    convert: Callable[[Tensor], Tensor]  # makes the wanted channels of `(B, C, H, W)`

    def __post_init__(self) -> None:
        self.size_text = f"{len(self.indices):,} images in memory, {_readable(self.images.nbytes)}"

    def __len__(self) -> int:
        return len(self.indices)

    def fetch(self, rows: Sequence[int]) -> Tensor:
        """uint8 `(B, C, H, W)`."""
        return self.convert(planes(self.images[self.indices[rows]]))

    def labels(self, rows: Tensor) -> Tensor:
        """Targets of these rows, `(B,)` or `(B, levels)`."""
        return self.targets[rows]


@dataclass(eq=False)
class FileImages:
    """Image files, decoded in the loader's processes and cropped there; all else happens to whole batches.

    JPEG files are decoded at a half, a quarter or an eighth of their size, as long as the shorter side stays at least
    `side`. For people, `size_text` says how much there is, and a `cure` what would be faster.
    """

    files: Sequence[Source]  # paths, or images in tar, HDF5 and other files
    targets: Tensor  # of all of them
    side: int  # pixels of the shorter side that no crop can use more of
    reading: ImageReading  # how the files become images
    convert: Callable[[Tensor], Tensor]  # what makes the wanted channels of `(B, C, H, W)`
    skip: bool = False  # the next readable image, with unknown labels, stands for one that can't be read
    problems: Sequence[str] = ()  # of the data set, one line each

    def __post_init__(self) -> None:
        self.size_text = f"{len(self.files):,} files, decoded in each epoch"
        self.cure: str  # where there is one
        self._marks = torch.zeros(len(self.files), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.files)

    def estimate(self, side: int, channels: int) -> int:
        """About how many bytes all images take, decoded and kept with that shorter side, from a look at some."""
        some = self.files[:: math.ceil(len(self.files) / 200)]
        sizes = [math.prod(size) for file in some if all(size := self._kept_size(file, side))]
        return round(np.mean(sizes or [side**2]) * channels * len(self.files))

    def fetch(self, rows: Sequence[int]) -> list[Tensor]:
        """uint8 `(C, H, W)` each; a `BrokenImageError` for one that is no image, or with `skip` if none is."""
        if not self.skip:
            return [self._image(row) for row in rows]
        how = len(self), lambda at: self._broken([at])[0], self._image, self._mark_broken
        return [next_readable(row, *how)[1] for row in rows]

    def labels(self, rows: Tensor) -> Tensor:
        """Targets of rows that were fetched, -1 for those that another image stands for."""
        broken = torch.from_numpy(self._broken(rows.tolist())) & self.skip
        found = self.targets[rows]
        return found.masked_fill(broken.reshape(-1, *[1] * (found.ndim - 1)), UNKNOWN)

    def skipped(self) -> list[str]:
        """What was found broken so far, by all processes, one line each."""
        if not self.skip:
            return []
        broken = np.flatnonzero(self._broken(range(len(self)))).tolist()
        return [*self.problems, *(not_an_image(str(self.files[row])) for row in broken)]

    def _kept_size(self, file: Source, side: int) -> tuple[int, int]:
        """Height and width of an image whose shorter side is at most `side`; zeros for one that is skipped."""
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

    def _broken(self, rows: Sequence[int]) -> Array:
        """Bools of these rows: found not to be readable."""
        return np.asarray(self._marks.numpy()[list(rows)])

    def _mark_broken(self, row: int) -> None:
        self._marks[row] = True


class KeptImages(FileImages):
    """Image files, decoded when they are first asked for and then kept in one file in `folder`.

    The shorter side is kept with up to `side` pixels. `shapes` (N, 2) are heights and widths, `nbytes` of all pixels.
    """

    def __init__(self, files: FileImages, side: int, channels: int, folder: Path) -> None:
        vars(self).update(vars(files))
        self.channels = channels
        digest = hashlib.sha256(f"{VERSION} {side} {self.reading} {channels}".encode())
        for file in self.files:
            digest.update(b"\n" + os.fsencode(identity(file)))
        self.path = folder / f"{digest.hexdigest()[:24]}.uint8"
        self._whose = hashlib.sha256(digest.hexdigest().encode()).digest()
        known = known_sizes(self.path, self._whose)  # reading all heads takes a while
        if known is None or len(known) != len(self.files):
            known = np.array([self._kept_size(file, side) for file in self.files])
        self.shapes = known
        ends = np.cumsum(known.astype(np.int64).prod(axis=1) * channels)
        self.nbytes = int(ends[-1])
        self._starts = np.concatenate(([0], ends[:-1]))
        self._first = _HEAD.size + known.size * 4  # place of the entries
        self._handles: tuple[int, int, int] | None = None  # process, pixels, index
        self.size_text = f"{len(self.files):,} images in {self.path}, {_readable(self.nbytes)}"

    def create(self) -> None:
        """Make both files, unless they are there and right; an `OSError` or a `UserError` if the folder can't."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not np.array_equal(known_sizes(self.path, self._whose), self.shapes):  # type: ignore[arg-type]
            sizes = self.shapes.astype("<i4").tobytes()
            head = _HEAD.pack(_NAME, VERSION, len(self.shapes), self._whose, zlib.crc32(sizes))
            with replacing(index_of(self.path)) as temporary:
                temporary.write_bytes(head + sizes + bytes(_ENTRY.size * len(self.shapes)))
        with open(self.path, "ab") as file:
            if file.tell() < self.nbytes:
                os.truncate(self.path, self.nbytes)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": None}

    def _image(self, row: int) -> Tensor:
        height, width = self.shapes[row].tolist()
        place, size = int(self._starts[row]), height * width * self.channels
        mark, checksum = self._entry(row)
        content = os.pread(self._open()[1], size, place) if mark == _KEPT else b""
        whole = mark == _KEPT and len(content) == size
        self._verified[row] = whole and (self._verified[row] or zlib.crc32(content) == checksum)
        if not self._verified[row]:
            planes = torch.from_numpy(_resized(self.reading.read(self.files[row]), width, height)).movedim(2, 0)
            content = self.convert(planes[None])[0].movedim(0, 2).contiguous().numpy().tobytes()
            self._put(1, content, place)
            self._mark(row, _KEPT, zlib.crc32(content))
        pixels = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(height, width, -1)
        return pixels.movedim(2, 0)  # channels lie innermost: resizing is faster so

    def _mark_broken(self, row: int) -> None:
        self._mark(row, _BROKEN, 0)

    def _broken(self, rows: Sequence[int]) -> Array:
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
            what = f"the cache of decoded images in {self.path.parent} can't be written: {error.strerror}"
            cure = "free the disk, choose another data.cache_dir, or set data.augment=sample"
            raise UserError(f"{what}; {cure}") from error

    def _open(self) -> tuple[int, int, int]:
        if self._handles is None or self._handles[0] != os.getpid():
            pixels, index = (os.open(path, os.O_RDWR) for path in (self.path, index_of(self.path)))
            self._handles = os.getpid(), pixels, index
            self._verified = np.zeros(len(self.shapes), dtype=bool)  # by this process: not looked at again
        return self._handles


def _resized(image: Any, width: int, height: int) -> Array:
    """uint8 `(height, width, C)` of an image of Pillow, or of an array, channel by channel."""
    if isinstance(image, Image.Image):
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        return np.array(image)
    if image.shape[:2] == (height, width):
        return np.asarray(image)
    planes = [_resized(Image.fromarray(plane), width, height) for plane in image.transpose(2, 0, 1)]
    return np.stack(planes, axis=2)


Images = ArrayImages | FileImages  # decoded


class CantCacheError(Exception):
    """Why whole batches can't be taken from a data set."""


def cached(
    dataset: Any, augment: BatchAugment, side: int | None = None, folder: str | None = None, asked: bool = False
) -> Images:
    """The decoded images of a data set of PIL images without a transform; kept in a file where that isn't large.

    `augment` is what they are for, `asked` whether it may take any room. Of files so many pixels of the shorter `side`
    are kept (default: 8/7 of the largest view's), in `folder` (default: `solo` in the user's cache folder). Raises a
    `CantCacheError` that says why not, or a `BrokenImageError` where a file is no image.
    """
    if any(entry.cfg.get("transforms") for entry in augment.entries):
        raise CantCacheError("augmentations.transforms change one image at a time")
    targets = level_targets(dataset)
    indices = np.arange(len(dataset))
    while isinstance(dataset, (Subset, KnownLabels)):
        indices = np.array(dataset.indices)[indices] if isinstance(dataset, Subset) else indices
        dataset = dataset.dataset
    array = pixels_in_memory(dataset)
    if array is not None:
        return ArrayImages(array, indices, targets, augment.in_channels)
    files = image_sources(dataset)
    if not files or not any(not isinstance(file, str) or Path(file).is_file() for file in files):
        raise CantCacheError("the images are neither in memory nor in files of their own")
    if any(entry.scale is None for entry in augment.entries):
        raise CantCacheError("rrc.enabled=false keeps the shape of each image")
    place = Path(folder).expanduser() if folder else user_cache()
    chosen, kept = [files[i] for i in indices.tolist()], side or math.ceil(augment.size * 8 / 7)
    reading = getattr(dataset, "reading", ImageReading(augment.channels))
    # From so many pixels of the shorter side on no crop, however oblong, is enlarged.
    enough = max(math.ceil(e.size / math.sqrt(e.scale[0] * 3 / 4)) for e in augment.entries if e.scale)
    skip, problems = isinstance(dataset, SkipBroken), getattr(dataset, "problems", [])
    found = FileImages(chosen, targets, enough, reading, augment.in_channels, skip, problems)
    room = found.estimate(kept, augment.channels)
    if room > UNASKED_BYTES and not asked:
        found.cure = f"a cache of {_readable(room)} would end it: data.augment=batch, in data.cache_dir"
        found.size_text += f" ({_readable(room)} if kept: augment=batch)"
        return found
    images = KeptImages(found, kept, augment.channels, place)
    parent = next(path for path in (place, *place.parents) if os.path.exists(path))
    if images.nbytes > shutil.disk_usage(parent).free and not os.path.exists(images.path):
        size = _readable(images.nbytes)
        raise CantCacheError(f"decoded they take {size}, more than is free in {place}; choose another data.cache_dir")
    try:
        images.create()
    except (OSError, UserError) as error:
        what = f"{place} can't be written ({reason(error.__cause__ or error)})"
        raise CantCacheError(f"{what}; choose another data.cache_dir") from error
    return images


def pixels_in_memory(dataset: Any) -> Array | None:
    """All images, uint8, of a data set that holds them as one array."""
    held = (getattr(dataset, name, None) for name in ("images", "data"))
    arrays = (x for x in held if isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim in (3, 4))
    return next(arrays, None)


def planes(array: Array) -> Tensor:
    """`(N, H, W)`, `(N, H, W, C)` or `(N, 3, H, W)` -> `(N, C, H, W)`."""
    images = torch.from_numpy(array)
    return images[:, None] if images.ndim == 3 else images.movedim(3, 1) if images.shape[1] != 3 else images
