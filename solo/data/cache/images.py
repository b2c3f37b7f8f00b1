"""Decoded images, to take whole batches from: arrays that lie in memory, or files decoded once into one large file."""

import functools
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import transforms as tvt

from solo.data.cache.files import FileImages, KeptImages, readable
from solo.data.labels.subsets import Around, KnownLabels, Subset, level_targets
from solo.data.sources.images import SkipBroken, image_sources
from solo.data.storage.reading import ImageReading
from solo.data.views.batched import BatchAugment
from solo.data.views.image_ops import Normalize, Pipeline
from solo.data.views.tensor_ops import luminance
from solo.files import user_cache

# Above this the user decides: it is written to a disk that may be small or slow.
UNASKED_BYTES = 2 * 2**30


class CantCacheError(Exception):
    """Why whole batches can't be taken from a data set."""


@dataclass(eq=False)
class ArrayImages:
    """Images that lie in memory anyway; not copied."""

    images: np.ndarray[Any, Any]  # uint8 `(N, H, W)`, `(N, H, W, 3)` or `(N, 3, H, W)`
    indices: np.ndarray[Any, Any]  # which of them are meant
    targets: Tensor  # of these, int64, `(n,)` or `(n, levels)`
    convert: Callable[[Tensor], Tensor]  # makes the wanted channels of `(B, C, H, W)`

    @property
    def size_text(self) -> str:
        """How much there is, for people."""
        return f"{len(self.indices):,} images in memory, {readable(self.images.nbytes)}"

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

    def labels(self, rows: Tensor) -> Tensor:
        """Targets of these rows, `(B,)` or `(B, levels)`."""
        return self.targets[rows]


class Images(Protocol):
    """Decoded images of a data set; `targets` are int64 `(N,)` or `(N, levels)`."""

    targets: Tensor

    def __len__(self) -> int: ...
    def fetch(self, rows: Sequence[int]) -> Tensor | list[Tensor]:
        """uint8 `(B, C, H, W)`, or `(C, H, W)` each where sizes differ."""
        ...

    def labels(self, rows: Tensor) -> Tensor:
        """Targets of rows that were fetched."""
        ...


def cached(
    dataset: Any, augment: BatchAugment, side: int | None = None, folder: str | None = None, asked: bool = False
) -> ArrayImages | FileImages:
    """The decoded images of a data set of PIL images without a transform; kept in a file where that isn't large.

    `augment` is what they are for, `asked` whether the user wants it, whatever room it takes. Of files so many pixels
    of the shorter `side` are kept (default: 8/7 of the largest view's), in `folder` (default: `solo` in the user's
    cache folder). Raises a `CantCacheError` that says why not, or a `BrokenImageError` where a file is no image.
    """
    if any(entry.cfg.get("transforms") for entry in augment.entries):
        raise CantCacheError("augmentations.transforms change one image at a time")
    convert = functools.partial(_in_channels, channels=augment.channels, as_grey=augment.as_grey)
    targets = level_targets(dataset)
    indices = np.arange(len(dataset))
    while isinstance(dataset, (Subset, KnownLabels)):
        indices = np.array(dataset.indices)[indices] if isinstance(dataset, Subset) else indices
        dataset = dataset.dataset
    array = pixels_in_memory(dataset)
    if array is not None:
        return ArrayImages(array, indices, targets, convert)
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
    problems = getattr(dataset, "problems", [])
    found = FileImages(chosen, targets, enough, reading, convert, isinstance(dataset, SkipBroken), problems)
    room = found.estimate(kept, augment.channels)
    if room > UNASKED_BYTES and not asked:
        found.cure = f"a cache of {readable(room)} would end it: data.augment=batch, in data.cache_dir"
        found.size_text += f" ({readable(room)} if kept: augment=batch)"
        return found
    images = KeptImages(found, kept, augment.channels, place)
    parent = next(path for path in (place, *place.parents) if os.path.exists(path))
    if images.nbytes > shutil.disk_usage(parent).free and not os.path.exists(images.path):
        size = readable(images.nbytes)
        raise CantCacheError(f"decoded they take {size}, more than is free in {place}; choose another data.cache_dir")
    try:
        images.open()
    except OSError as error:
        reason = error.strerror or str(error)
        raise CantCacheError(f"{place} can't be written ({reason}); choose another data.cache_dir") from error
    return images


def pixels_in_memory(dataset: Any) -> np.ndarray[Any, Any] | None:
    """All images, uint8, of a data set that holds them as one array."""
    for name in ("images", "data"):
        array = getattr(dataset, name, None)
        if isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim in (3, 4):
            return array
    return None


def _in_channels(images: Tensor, channels: int, as_grey: bool) -> Tensor:
    """`(B, C, H, W)` uint8 with the wanted number of channels."""
    if images.shape[1] == 3 and (as_grey or channels == 1):
        images = luminance(images.float()).round_().to(torch.uint8)
    return images.expand(-1, channels, -1, -1)


class NormalisedBatches(Around):
    """Images, uint8 `(N, C, H, W)`, handed out a batch at a time, the same as a data set gives one by one."""

    def __init__(self, dataset: Any, pixels: Tensor, last: Normalize) -> None:
        super().__init__(dataset)
        self._labels = level_targets(dataset)
        self._pixels, self._pipeline = pixels, dataset.transform
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (last.mean, last.std))

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """`[X (B, C, H, W), targets]`, for `uncollated`."""
        if self.dataset.transform is not self._pipeline:  # somebody has put in another one
            return cast("list[Tensor]", default_collate([self.dataset[index] for index in indices]))
        pixels = self._pixels[torch.tensor(indices)].contiguous()
        return [pixels.float().div_(255).sub_(self._mean).div_(self._std), self._labels[torch.tensor(indices)]]


def whole_batches(dataset: Any) -> NormalisedBatches | None:
    """The data set as `NormalisedBatches`, if all that its transform does to images in memory is to normalise them."""
    array, pipeline = pixels_in_memory(dataset), getattr(dataset, "transform", None)
    if array is None or not isinstance(pipeline, Pipeline) or len(pipeline.transforms) != 3:
        return None
    resize, to_tensor, last = pipeline.transforms
    if not (isinstance(resize, tvt.Resize) and isinstance(to_tensor, tvt.ToTensor) and isinstance(last, Normalize)):
        return None
    pixels = torch.from_numpy(array)
    pixels = pixels[:, None] if array.ndim == 3 else pixels.movedim(3, 1) if array.shape[1] != 3 else pixels
    fits = list(pixels.shape[1:]) == [len(last.mean), *(resize.size if isinstance(resize.size, Sequence) else ())]
    return NormalisedBatches(dataset, pixels, last) if fits else None


def uncollated(batch: Any) -> Any:
    """A collate function for data sets that make whole batches."""
    return batch
