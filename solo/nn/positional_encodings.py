"""Sine and cosine encodings of places in one, two or three dimensions (Vaswani et al., 2017), for All4One.

Each dimension gets an equal share of the channels (an even number, the last ones cut off at the end), in which sine
and cosine of one frequency follow each other; frequencies fall from 1 to about 1/10000.
"""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
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
        self.register_load_state_dict_pre_hook(_forget_tables)  # type: ignore[no-untyped-call]

    def forward(self, tensor: Tensor) -> Tensor:
        """Encodings of the shape, type and device of the tensor; the same for all N.

        Raises a `ValueError` if the tensor hasn't N, the places' dimensions, and channels.
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
    """Positional encoding of a tensor (N, x, channels), of its shape."""

    dims = 1


class PositionalEncodingPermute1D(PositionalEncoding1D):
    """Positional encoding of a tensor (N, channels, x), of its shape."""

    permuted = True


# The same of (N, x, y, channels) and (N, x, y, z, channels), and with the channels second.
PositionalEncoding2D = type("PositionalEncoding2D", (_Encoding,), {"dims": 2})
PositionalEncoding3D = type("PositionalEncoding3D", (_Encoding,), {"dims": 3})
PositionalEncodingPermute2D = type("PositionalEncodingPermute2D", (PositionalEncoding2D,), {"permuted": True})
PositionalEncodingPermute3D = type("PositionalEncodingPermute3D", (PositionalEncoding3D,), {"permuted": True})


class Summer(nn.Module):
    """Adds the encodings of `penc` to a tensor."""

    def __init__(self, penc: nn.Module) -> None:
        super().__init__()
        self.penc = penc

    def forward(self, tensor: Tensor) -> Tensor:
        """Tensor + encoding, of the tensor's shape. Raises a `ValueError` if the number of channels differs."""
        encoding: Tensor = self.penc(tensor)
        if encoding.shape != tensor.shape:
            raise ValueError(f"the encoding is {tuple(encoding.shape)}, the tensor {tuple(tensor.shape)}")
        return tensor + encoding


def generate_2d_sincos_pos_embed(embed_dim: int, grid_size: int, cls_token: bool = False) -> NDArray[np.float64]:
    """Sin-cos encoding of the places of a square grid, row by row: the first half of the columns encodes x.

    Args:
        embed_dim: width, divisible by 4.
        grid_size: places on a side.
        cls_token: put a row of zeros first.

    Returns:
        (grid_size^2, embed_dim), or one row more.
    """
    xy = np.stack(np.meshgrid(np.arange(grid_size), np.arange(grid_size)))  # (2, rows, columns)
    table = generate_2d_sincos_pos_embed_from_grid(embed_dim, xy)
    return np.pad(table, ((int(cls_token), 0), (0, 0)))


def generate_2d_sincos_pos_embed_from_grid(embed_dim: int, grid: NDArray[Any]) -> NDArray[np.float64]:
    """Both coordinates, `grid[0]` and `grid[1]` of any shape with M entries -> (M, embed_dim), one half each."""
    return np.concatenate([generate_1d_sincos_pos_embed_from_grid(embed_dim // 2, axis) for axis in grid[:2]], axis=1)


def generate_1d_sincos_pos_embed_from_grid(embed_dim: int, pos: NDArray[Any]) -> NDArray[np.float64]:
    """Positions of any shape with M entries -> (M, embed_dim): sines, then cosines, of wave lengths up to 10000 * 2 pi.

    Raises a `ValueError` if `embed_dim` is odd.
    """
    if embed_dim % 2:
        raise ValueError(f"one sin-cos coordinate can't have the odd width {embed_dim}; choose an even one")
    omega = 10000.0 ** (-np.arange(embed_dim // 2) / (embed_dim / 2))
    angles = np.outer(np.asarray(pos, dtype=np.float64), omega)  # (M, embed_dim / 2)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
