"""Image files decoded whenever they are asked for: more than a cache should take without being asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo.data.cache.files import readable
from solo.data.cache.skipping import SkippingFiles
from solo.data.storage.reading import ImageReading
from solo.data.storage.stored import Source


class UncachedFiles(SkippingFiles):
    """Image files, decoded in the loader's processes and cropped there; all else happens to whole batches.

    JPEG files whose shorter side is more than twice `side` are decoded at a half, a quarter or an eighth of their size,
    so that it stays at least `side`: pixels are averaged that a crop would average. All others are decoded as they are.

    Args:
        files: paths, or images in tar, HDF5 and other files.
        targets: of all of them.
        side: pixels of the shorter side that no crop can use more of.
        reading: how the files become images.
        convert: what makes the wanted channels of `(B, C, H, W)`.
        skip: the next readable image, with unknown labels, stands for one that can't be read.
        cache: bytes that all of them would take, decoded.
        problems: of the data set, one line each.
    """

    def __init__(
        self,
        files: Sequence[Source],
        targets: Tensor,
        side: int,
        reading: ImageReading,
        convert: Callable[[Tensor], Tensor],
        skip: bool,
        cache: int,
        problems: Sequence[str] = (),
    ) -> None:
        self.files, self.targets, self.side, self.reading, self.convert = list(files), targets, side, reading, convert
        self.skip = skip
        self.problems = list(problems)
        self.broken = torch.zeros(len(self.files), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]
        self.cure = f"a cache of {readable(cache)} would end it: data.augment=batch, in data.cache_dir"
        self.size_text = f"{len(self.files):,} files, decoded in each epoch ({readable(cache)} if kept: augment=batch)"

    def _broken(self, rows: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
        known: np.ndarray[Any, Any] = self.broken.numpy()
        return known if rows is None else known[list(rows)]

    def _mark_broken(self, row: int) -> None:
        self.broken[row] = True

    def _image(self, row: int) -> Tensor:
        pixels = torch.from_numpy(np.array(self.reading.read(self.files[row], at_least=self.side)))
        planes = pixels[None] if pixels.ndim == 2 else pixels.movedim(2, 0)
        return self.convert(planes[None])[0]


def side_of_crops(size: int, smallest: float, ratio: float = 3 / 4) -> int:
    """Pixels of an image's shorter side from which on no crop is enlarged.

    Args:
        size: of the views.
        smallest: share of the image's area that a crop has at least.
        ratio: of a crop's sides, at its most oblong.
    """
    return math.ceil(size / math.sqrt(smallest * ratio))
