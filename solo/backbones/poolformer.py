"""PoolFormer: Yu et al., MetaFormer is actually what you need for vision, https://arxiv.org/abs/2111.11418.

Imports nothing of this package: `solo export to=hf` hands the file on beside the weights.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import DropPath, GroupNorm1, Mlp  # type: ignore[attr-defined]
from timm.models.metaformer import Pooling
from torch import Tensor, nn


class PoolFormer(nn.Module):
    """Four stages of blocks that mix tokens by average pooling; parameters' names are its authors', timm has others.

    Each stage has as many blocks as `layers` says, and `dims` channels. `drop_rate` is of the MLPs, `drop_path_rate`
    the last block's stochastic depth, growing from 0, `layer_scale_init_value` of both branches of a block.
    """

    def __init__(
        self,
        layers: Sequence[int],
        dims: Sequence[int],
        in_chans: int = 3,
        pool_size: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-5,
    ) -> None:
        super().__init__()
        self.num_features = dims[-1]
        self.patch_embed = _projection(in_chans, dims[0], 7, stride=4, padding=2)
        drop_paths = (drop_path_rate * i / (sum(layers) - 1) for i in range(sum(layers)))
        stages: list[nn.Module] = []
        for i, (depth, dim) in enumerate(zip(layers, dims, strict=True)):
            if i:
                stages.append(_projection(dims[i - 1], dim, 3, stride=2, padding=1))
            blocks = (_Block(dim, pool_size, layer_scale_init_value, drop_rate, next(drop_paths)) for _ in range(depth))
            stages.append(nn.Sequential(*blocks))
        self.network = nn.Sequential(*stages)
        self.norm = GroupNorm1(dims[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> features (N, dims[-1])."""
        x = self.norm(self.network(self.patch_embed(x)))
        return x.mean(dim=(2, 3))


class _Block(nn.Module):
    def __init__(self, dim: int, pool_size: int, scale: float, drop_rate: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = GroupNorm1(dim)
        self.token_mixer = Pooling(pool_size)
        self.norm2 = GroupNorm1(dim)
        self.mlp = Mlp(dim, 4 * dim, drop=drop_rate, use_conv=True)
        self.drop_path = DropPath(drop_path)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), scale))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), scale))
        for layer in (self.mlp.fc1, self.mlp.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * self.token_mixer(self.norm1(x)))
        out: Tensor = x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))
        return out


def _projection(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding)
    return nn.Sequential(OrderedDict(proj=conv))


def _poolformer(
    layers: Sequence[int], dims: Sequence[int], scale: float, method: str | None = None, *args: Any, **kwargs: Any
) -> nn.Module:
    """Without classifier, the same for every `method`; the rest is `PoolFormer`'s."""
    return PoolFormer(layers, dims, *args, **{"layer_scale_init_value": scale, **kwargs})


_S, _M = (64, 128, 320, 512), (96, 192, 384, 768)
poolformer_s12 = partial(_poolformer, (2, 2, 6, 2), _S, 1e-5)
poolformer_s24 = partial(_poolformer, (4, 4, 12, 4), _S, 1e-5)
poolformer_s36 = partial(_poolformer, (6, 6, 18, 6), _S, 1e-6)
poolformer_m36 = partial(_poolformer, (6, 6, 18, 6), _M, 1e-6)
poolformer_m48 = partial(_poolformer, (8, 8, 24, 8), _M, 1e-6)
