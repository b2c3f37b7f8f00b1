"""What the measures do to rows of features before they look at them."""

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


def best(similarity: Tensor, depth: int) -> Tensor:
    """Columns of the `depth` largest numbers of each row, in their order: (n, m) -> (n, depth)."""
    width = similarity.shape[1]
    if depth * 8 < width and width > 1000:
        return similarity.topk(depth, dim=1).indices
    if similarity.device.type != "cpu" or similarity.dtype != torch.float32:
        return similarity.sort(dim=1, descending=True, stable=True).indices[:, :depth]
    # NumPy sorts whole numbers ten times faster than PyTorch does rows with their places: here the number as one that
    # has its order, and below it the column.
    bits = (similarity + 0.0).contiguous().view(torch.int32)
    keys = (~(bits ^ ((bits >> 31) & 0x7FFFFFFF))).long() << 32 | torch.arange(width)
    found = keys.numpy()
    if depth < width // 2:
        found.partition(depth - 1, axis=1)
        found = found[:, :depth]
    found.sort(axis=1)
    return torch.from_numpy(found[:, :depth] & 0xFFFFFFFF)
