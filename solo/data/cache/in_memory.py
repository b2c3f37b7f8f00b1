"""Validation images in memory that need nothing but normalising: whole batches at once."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchvision import transforms as tvt

from solo.data.cache.images import pixels_in_memory
from solo.data.labels.subsets import Around, level_targets
from solo.data.views.image_ops import Normalize, Pipeline


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
