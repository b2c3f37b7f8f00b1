"""Memory for batches of views that is used again once nobody holds it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Buffers:
    """Gives out float32 tensors on the CPU that nobody has written to, and takes them back by itself.

    Fresh memory of a hundred MB a batch costs as much as the views that are put there: the system clears each page when
    it is first touched, and memory in long use has no huge pages left. A tensor, or anything that shares its memory,
    keeps its buffer occupied; usually two are in use, the batch that is being made and the one that is looked at.
    """

    def __init__(self) -> None:
        self._arrays: list[Any] = []

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of that shape."""
        size = math.prod(shape)
        idle = _idle(self._arrays)
        array = next((self._arrays[i] for i in idle if self._arrays[i].size >= size), None)
        if array is None:  # what lies idle is too small
            self._arrays = [kept for i, kept in enumerate(self._arrays) if i not in idle]
            array = np.empty(size, dtype=np.float32)
            self._arrays.append(array)
        return torch.from_numpy(array[:size]).view(shape)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getstate__(self) -> dict[str, list[Any]]:
        return {"_arrays": []}  # a copy in another process begins with none


def _idle(arrays: Sequence[object]) -> list[int]:
    """Places of those that only their list holds."""
    return [i for i, count in enumerate(_counts(arrays)) if count <= _ALONE]


def _counts(objects: Sequence[object]) -> list[int]:
    return [sys.getrefcount(item) for item in objects]


# What an object counts that nothing but a list holds; Python's versions differ in what the call itself adds.
_ALONE = _counts([object()])[0]
