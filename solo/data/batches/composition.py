"""What composes batches, and the plainest way to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np


class BatchRule(Protocol):
    """How batches are composed. `name` and `limit` (how many images there are for a batch) are for people."""

    name: str
    limit: str

    def count(self, size: int) -> int:
        """Batches of `size` images in an epoch."""
        ...

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        """As many batches of image indexes; no image comes twice."""
        ...


class Random:
    """Batches by chance.

    Args:
        number: of images.
    """

    name = "random"

    def __init__(self, number: int) -> None:
        self.number = number
        self.limit = f"there are {number}"

    def count(self, size: int) -> int:
        """Batches of `size` images in an epoch."""
        return self.number // size

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        """As many batches of image indexes."""
        order = rng.permutation(self.number)
        return (order[start : start + size].tolist() for start in range(0, self.count(size) * size, size))
