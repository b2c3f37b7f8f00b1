"""Views of images of any number of channels, which Pillow can't hold: uint8 arrays `(H, W, C)`.

They are made by the operations on tensors (`batched`), in the per-image path as well; what is about colours
changes nothing there.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from solo.data.storage.reading import Array
from solo.data.views.batched import BatchAugment


def _tensor(image: Array) -> Tensor:
    return torch.from_numpy(image).movedim(2, 0)


class PlanesViews:
    """One view of an entry of `augmentations`, its numbers from Python's generator as in the other pipelines.

    Args:
        entry: its keys.
        mean, std: per channel, of images in [0, 1].
        resample: the filter of the crop.
    """

    def __init__(self, entry: Any, mean: Sequence[float], std: Sequence[float], resample: Any = "bicubic") -> None:
        self.augment = BatchAugment([{**entry, "num_crops": 1}], mean, std, len(mean), resample)

    def __repr__(self) -> str:
        return repr(self.augment)

    def __call__(self, image: Array) -> Tensor:
        """uint8 `(H, W, C)` -> normalised float32 `(C, size, size)`."""
        seed = torch.tensor([random.getrandbits(62)])
        return self.augment([_tensor(image)], seed)[0][0].clone()


class PlanesEval:
    """Deterministic: shorter side to `resize` and centre crop; without `resize`: exactly `size` x `size`.

    Args:
        size: pixels.
        mean, std: per channel, of images in [0, 1].
        resize: pixels, or None.
    """

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], resize: int | None = None) -> None:
        self.size, self.resize, self.mean, self.std = size, resize, list(mean), list(std)

    def __repr__(self) -> str:
        return f"PlanesEval(size={self.size}, resize={self.resize}, mean={self.mean}, std={self.std})"

    def __call__(self, image: Array) -> Tensor:
        """uint8 `(H, W, C)` -> normalised float32 `(C, size, size)`."""
        x = tvf.resize(_tensor(image), [self.resize] if self.resize else [self.size, self.size], antialias=True)
        x = tvf.center_crop(x, [self.size, self.size]).float() / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        normalised: Tensor = (x - mean) / std
        return normalised
