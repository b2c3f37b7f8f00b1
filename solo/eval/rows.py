"""What the measures do to rows of features before they look at them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from solo.precision import at_least_float32

Array = np.ndarray[Any, np.dtype[Any]]


def unit_rows(features: Tensor) -> Tensor:
    """Rows of length 1, half precision widened to float32: (..., D) -> (..., D); a zero row stays zero."""
    return F.normalize(at_least_float32(features), dim=-1)


def unit(rows: Array) -> Array:
    """`unit_rows` of an array (n, d), in float64."""
    found: Array = unit_rows(torch.from_numpy(np.asarray(rows, dtype=np.float64))).numpy()
    return found


def draw(count: int, most: int, seed: int = 0) -> Tensor:
    """All of `count` rows, or `most` of them drawn at random, ascending: (min(count, most),) indices."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values
