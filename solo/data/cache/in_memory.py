"""Validation images in memory that need nothing but normalising: whole batches at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms as tvt

from solo.data.cache.images import pixels_in_memory
from solo.data.labels.subsets import level_targets
from solo.data.views.image_ops import ToMode, ToNormalizedTensor


class PlainImages(Dataset[Any]):
    """Images handed out a batch at a time, the same as one by one.

    Args:
        dataset: whose items these are.
        pixels: uint8 `(N, C, H, W)`.
        last: its last transform.
    """

    def __init__(self, dataset: Any, pixels: Tensor, last: ToNormalizedTensor) -> None:
        self.dataset = dataset
        self.targets = level_targets(dataset)
        self._pixels = pixels
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (last.mean, last.std))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """`[X (B, C, H, W), targets]`, for `as_it_is`."""
        pixels = self._pixels[torch.tensor(indices)].contiguous()
        return [pixels.float().div_(255).sub_(self._mean).div_(self._std), self.targets[torch.tensor(indices)]]


def plain(dataset: Any) -> PlainImages | None:
    """The data set as `PlainImages`, if all that its transform does to images in memory is to normalise them."""
    array, pipeline = pixels_in_memory(dataset), getattr(dataset, "transform", None)
    if array is None or not isinstance(pipeline, tvt.Compose) or len(pipeline.transforms) != 3:
        return None
    mode, resize, last = pipeline.transforms
    if not (isinstance(mode, ToMode) and isinstance(resize, tvt.Resize) and isinstance(last, ToNormalizedTensor)):
        return None
    pixels = torch.from_numpy(array)
    pixels = pixels[:, None] if array.ndim == 3 else pixels.movedim(3, 1) if array.shape[1] != 3 else pixels
    fits = list(pixels.shape[1:]) == [len(last.mean), *(resize.size if isinstance(resize.size, Sequence) else ())]
    return PlainImages(dataset, pixels, last) if fits else None


def as_it_is(batch: Any) -> Any:
    """A collate function for data sets that make whole batches."""
    return batch
