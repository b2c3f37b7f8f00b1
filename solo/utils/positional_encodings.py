"""Sine and cosine encodings of places in one, two or three dimensions (Vaswani et al., 2017), for All4One.

Each dimension gets an equal share of the channels (an even number, the last ones cut off at the end), in which sine
and cosine of one frequency follow each other; frequencies fall from 1 to about 1/10000.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn


def _forget_tables(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """solo-learn stores what is computed here."""
    for name in ("inv_freq", "cached_penc", "penc.inv_freq", "penc.cached_penc"):
        state.pop(prefix + name, None)


class _Encoding(nn.Module):
    dims: ClassVar[int]
    permuted: ClassVar[bool] = False  # channels second instead of last

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.org_channels = channels
        self.channels = 2 * math.ceil(channels / (2 * self.dims))  # of one dimension
        self.register_load_state_dict_pre_hook(_forget_tables)

    def forward(self, tensor: Tensor) -> Tensor:
        """Encodings of the shape, type and device of the tensor; the same for all N.

        Raises:
            ValueError: if the tensor hasn't N, the places' dimensions, and channels.
        """
        if tensor.ndim != self.dims + 2:
            raise ValueError(f"expected a tensor of {self.dims + 2} dimensions, got {tuple(tensor.shape)}")
        sizes = tensor.shape[2:] if self.permuted else tensor.shape[1:-1]
        exponents = torch.arange(0, self.channels, 2, device=tensor.device) / self.channels
        parts = []
        for dim, size in enumerate(sizes):
            angles = torch.arange(size, device=tensor.device)[:, None] / 10000**exponents  # (size, channels / 2)
            part = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # (size, channels)
            shape = [1] * self.dims + [self.channels]
            shape[dim] = size
            parts.append(part.reshape(shape).expand(*sizes, self.channels))
        encoding = torch.cat(parts, dim=-1)[..., : self.org_channels].to(tensor.dtype)
        encoding = encoding.movedim(-1, 0) if self.permuted else encoding
        return encoding.expand(len(tensor), *encoding.shape)


class PositionalEncoding1D(_Encoding):
    """Encodes (N, x, channels)."""

    dims = 1


class PositionalEncoding2D(_Encoding):
    """Encodes (N, x, y, channels)."""

    dims = 2


class PositionalEncoding3D(_Encoding):
    """Encodes (N, x, y, z, channels)."""

    dims = 3


class PositionalEncodingPermute1D(PositionalEncoding1D):
    """Encodes (N, channels, x)."""

    permuted = True


class PositionalEncodingPermute2D(PositionalEncoding2D):
    """Encodes (N, channels, x, y)."""

    permuted = True


class PositionalEncodingPermute3D(PositionalEncoding3D):
    """Encodes (N, channels, x, y, z)."""

    permuted = True


class Summer(nn.Module):
    """Adds the encodings of `penc` to a tensor."""

    def __init__(self, penc: nn.Module) -> None:
        super().__init__()
        self.penc = penc

    def forward(self, tensor: Tensor) -> Tensor:
        """Tensor + encoding, of the tensor's shape.

        Raises:
            ValueError: if the number of channels differs.
        """
        encoding: Tensor = self.penc(tensor)
        if encoding.shape != tensor.shape:
            raise ValueError(f"the encoding is {tuple(encoding.shape)}, the tensor {tuple(tensor.shape)}")
        return tensor + encoding
