"""The interface of whoever makes views of whole batches: loaders know nothing else of them."""

from __future__ import annotations

import random
from typing import Any, Protocol

import torch
from torch import Tensor


class ViewMaker(Protocol):
    """Images and the seeds of their samples in, views out.

    Every random number is a function of a sample's seed and of the view, so that the views of an image don't depend on
    who makes them, in which batch, or on what device.
    """

    def __call__(self, images: Tensor | list[Tensor], seeds: Tensor) -> list[Tensor]:
        """Normalised float32 `(B, C, size, size)` of each view.

        Args:
            images: uint8 `(B, C, H, W)` on any device, or `(C, H, W)` each.
            seeds: int64 `(B,)`, on the CPU.
        """
        ...

    def prepare(self, images: Tensor | list[Tensor], seeds: Tensor) -> Tensor | list[Tensor]:
        """What travels to the device that makes the views: the images, or of differing sizes what is cut out."""
        ...

    def finish(self, prepared: Tensor | list[Tensor], seeds: Tensor, device: torch.device) -> list[Tensor]:
        """The views of what `prepare` has made, on `device`."""
        ...


class OneByOne:
    """The only view of a maker as a transform of one image, its seed from Python's `random` as in other transforms."""

    def __init__(self, maker: ViewMaker) -> None:
        self.maker = maker

    def __repr__(self) -> str:
        return repr(self.maker)

    def __call__(self, image: Any) -> Tensor:
        """uint8 `(H, W, C)` -> normalised float32 `(C, size, size)`."""
        seed = torch.tensor([random.getrandbits(62)])
        return self.maker([torch.from_numpy(image).movedim(2, 0)], seed)[0][0].clone()
