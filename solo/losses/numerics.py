"""What the losses share: arithmetic in float32 or better, cosines, and the off-diagonal of a matrix."""

import functools
from collections.abc import Callable
from itertools import chain
from typing import Any, ParamSpec

import torch
from torch import Tensor

from solo.losses.pairs import unit
from solo.precision import at_least_float32

P = ParamSpec("P")


def _widen(x: Any) -> Any:
    if isinstance(x, Tensor):
        return at_least_float32(x)
    return [_widen(item) for item in x] if isinstance(x, (list, tuple)) else x


def full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Let a loss of tensors, or lists of them, compute in float32 or better: autocast is off, half precision raised."""

    @functools.wraps(loss)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        lists = (x if isinstance(x, (list, tuple)) else [x] for x in (*args, *kwargs.values()))
        device = next(x.device for x in chain.from_iterable(lists) if isinstance(x, Tensor))
        with torch.autocast(device.type, enabled=False):
            return loss(*map(_widen, args), **{name: _widen(value) for name, value in kwargs.items()})

    return wrapper


def mean_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the rows of the cosine of ``a`` and ``b``, (..., D) each; a zero row has cosine 0."""
    return (unit(a) * unit(b)).sum(dim=-1).mean()


def off_diagonal(c: Tensor) -> Tensor:
    """The entries of a square matrix off its diagonal: (D, D) -> (D - 1, D), in reading order."""
    d = len(c)
    return c.flatten()[:-1].view(d - 1, d + 1)[:, 1:]
