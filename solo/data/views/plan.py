"""What happens to the views of a batch, and the random numbers that decide it: functions of seed and view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor


def uniforms(seeds: Tensor, stream: int, count: int) -> Tensor:
    """`(B, count)` float64 in [0, 1): a hash of seed, stream and column (SplitMix64, Steele et al., 2014).

    Seeds are int64 `(B,)`; a stream is the number of a view.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    steps = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(stream * count)
    z = _mix(seeds.numpy().astype(np.uint64)[:, None]) + steps * golden
    return torch.from_numpy((_mix(z) >> np.uint64(11)) * 2.0**-53)


def _mix(z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray[Any, Any] = z ^ (z >> np.uint64(31))
    return mixed


@dataclass(frozen=True)
class Plan:
    """What happens to some views: one row each, in the order in which they are made."""

    rows: Tensor  # number of the view among those of a batch: all first views, then all second ones,
    box: Tensor  # what is cut out, int64 `(n, 4)`: left, top, width, height
    chosen: Tensor  # who gets jitter, greyscale, blur, solarise, equalise and mirror: bool `(n, 6)`
    turns: Tensor  # the jitter's operations, one digit to the base of 4 each, the first one in front; -1 for none
    strengths: Tensor  # of these operations, float32 `(n, 4)`
    sigma: Tensor  # of the blur, float32 `(n,)`

    def split(self, size: int) -> Iterator[Plan]:
        """Plans of `size` rows each, the last one of what is left."""
        return (Plan(*parts) for parts in zip(*(torch.split(column, size) for column in self._columns()), strict=True))

    def by_turns(self) -> Plan:
        """Sorted, so that views whose jitter begins with the same operations are neighbours and need no copies."""
        order = self.turns.argsort(stable=True)
        return Plan(*(column[order] for column in self._columns()))

    def _columns(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]
