"""Parts of ViTs: the tokens of their patches, low-rank adapters of their attention, and encodings of places."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from solo.errors import UserError


class PatchTokens:
    """The patch tokens of one of timm's ViTs while it runs: some are hidden or left out, those of the last layer seen.

    By hooks on `patch_embed`, `norm` and `patch_drop`, so that the network is called as ever, and any ViT that timm
    builds will do. `grid` is its (rows, columns) of patches, `patch` the side of one in pixels. Raises a `UserError`
    for a network without these, or that drops patches itself.
    """

    def __init__(self, network: Any, name: str) -> None:
        dropping = getattr(network, "patch_drop", None)
        if not all(hasattr(network, part) for part in ("patch_embed", "norm", "num_prefix_tokens")):
            raise UserError(f"backbone.name={name!r} has no patches to hide, choose vit_small or another ViT")
        if not isinstance(dropping, (nn.Identity, type(None))):
            raise UserError("backbone.kwargs.patch_drop_rate doesn't go with a method that hides patches; leave it out")
        self.grid, self.patch = tuple(network.patch_embed.grid_size), int(network.patch_embed.patch_size[0])
        self._prefix: int = network.num_prefix_tokens
        self._hidden: tuple[Tensor, Tensor] | None = None
        self._kept: Tensor | None = None
        self._seen: Tensor | None = None
        network.patch_embed.register_forward_hook(self._hide)
        network.norm.register_forward_hook(self._see)
        if dropping is not None:
            dropping.register_forward_hook(self._keep)

    @contextmanager
    def showing(self, hidden: tuple[Tensor, Tensor] | None = None, kept: Tensor | None = None) -> Iterator[None]:
        """In the block some patches are hidden, or left out.

        `hidden` is a mask (N, L), bool, of those that are a token (1, 1, D) before positions are added, `kept` the
        index (N, K) of those that go on after that, beside class token and such.
        """
        self._hidden, self._kept = hidden, kept
        try:
            yield
        finally:
            self._hidden = self._kept = None

    def take(self) -> Tensor:
        """The patches of the last pass, behind the last norm: (N, L or K, D); once."""
        seen, self._seen = self._seen, None
        assert seen is not None
        return seen[:, self._prefix :]

    def _hide(self, module: nn.Module, inputs: Any, x: Tensor) -> Tensor:
        if self._hidden is None:
            return x
        mask, token = self._hidden
        return torch.where(mask.view(*x.shape[:-1], 1), token.to(x.dtype).view(-1), x)

    def _keep(self, module: nn.Module, inputs: Any, x: Tensor) -> Tensor:
        if self._kept is None:
            return x
        return torch.cat([x[:, : self._prefix], rows_of(x[:, self._prefix :], self._kept)], dim=1)

    def _see(self, module: nn.Module, inputs: Any, x: Tensor) -> None:
        self._seen = x


def rows_of(tokens: Tensor, index: Tensor) -> Tensor:
    """Of tokens (N, L, D) those of `index` (N, K), image by image: (N, K, D)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


class LowRank(nn.Module):
    """`weight (out, in) + b (out, rank) @ a (rank, in)`; b starts at 0, so that the network starts as it was.

    Hu et al.: LoRA, low-rank adaptation of large language models, https://arxiv.org/abs/2106.09685, with alpha = r.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, weight.shape[1], dtype=weight.dtype, device=weight.device))
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank, dtype=weight.dtype, device=weight.device))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with what is added."""
        return weight + self.b @ self.a


def add_adapters(model: nn.Module, part: str, rank: int) -> list[str]:
    """Give the linear layers of attention in `model.<part>` low-rank adapters; the rest of the part is left as it is.

    `model.state_dict()` has the sums under the weights' own names, so that every program reads it, and beside them
    `lora.<layer>.weight`, `.a` and `.b`, from which `load_state_dict` goes on with the same bits. The names of the
    layers in `part` are returned; none if it has no attention of timm's form (`attn.qkv`, `attn.proj`, ...).
    """
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    names = [name for name in linear if name.startswith(f"{part}.") and name.split(".")[-2] == "attn"]
    for name in names:
        weight: Tensor = linear[name].weight
        parametrize.register_parametrization(linear[name], "weight", LowRank(weight, rank), unsafe=True)
        weight.requires_grad_(False)
    inner = {"weight": "original", "a": "0.a", "b": "0.b"}
    places = {f"lora.{name}.{key}": f"{name}.parametrizations.weight.{inner[key]}" for name in names for key in inner}

    def merge(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        for outside, inside in places.items():
            state[prefix + outside] = state.pop(prefix + inside)
        for name in names:
            state[f"{prefix}{name}.weight"] = parameters_like(module, [f"{name}.weight"])[0].detach()

    def split(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name in names:
            merged = state.pop(f"{prefix}{name}.weight", None)
            if merged is not None:
                state.setdefault(f"{prefix}lora.{name}.weight", merged)
        for outside, inside in places.items():
            if prefix + outside in state:
                state[prefix + inside] = state.pop(prefix + outside)

    if names:
        model.register_state_dict_post_hook(merge)  # type: ignore[no-untyped-call]
        model.register_load_state_dict_pre_hook(split)  # type: ignore[no-untyped-call]
    return names


def parameters_like(network: nn.Module, names: Iterable[str]) -> list[Tensor]:
    """Parameters of a network by the names that they have without adapters; an adapted weight with its adapter."""
    if not any(isinstance(part, LowRank) for part in network.modules()):
        return list(network.parameters())
    return [getattr(network.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]


def _forget_tables(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """solo-learn stores what is computed here."""
    for name in ("inv_freq", "cached_penc", "penc.inv_freq", "penc.cached_penc"):
        state.pop(prefix + name, None)


class _Encoding(nn.Module):
    """Sine and cosine encodings of places in one, two or three dimensions (Vaswani et al., 2017), for All4One.

    Each dimension gets an equal share of the channels (an even number, the last ones cut off at the end), in which sine
    and cosine of one frequency follow each other; frequencies fall from 1 to about 1/10000.
    """

    dims: ClassVar[int]
    permuted: ClassVar[bool] = False  # channels second instead of last

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.org_channels = channels
        self.channels = 2 * math.ceil(channels / (2 * self.dims))  # of one dimension
        self.register_load_state_dict_pre_hook(_forget_tables)  # type: ignore[no-untyped-call]

    def forward(self, tensor: Tensor) -> Tensor:
        """Encodings like the tensor, the same for all N; a `ValueError` if it has another number of dimensions."""
        if tensor.ndim != self.dims + 2:
            raise ValueError(f"expected a tensor of {self.dims + 2} dimensions, got {tuple(tensor.shape)}")
        sizes = tensor.shape[2:] if self.permuted else tensor.shape[1:-1]
        exponents = torch.arange(0, self.channels, 2, device=tensor.device) / self.channels
        places = torch.meshgrid(*(torch.arange(size, device=tensor.device) for size in sizes), indexing="ij")
        angles = torch.stack(places, dim=-1)[..., None] / 10000**exponents  # (*sizes, dims, channels / 2)
        encoding = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)  # (*sizes, dims * channels)
        encoding = encoding[..., : self.org_channels].to(tensor.dtype)
        encoding = encoding.movedim(-1, 0) if self.permuted else encoding
        return encoding.expand(len(tensor), *encoding.shape)


# Of (N, x, channels), (N, x, y, channels) and (N, x, y, z, channels), and with the channels second.
PositionalEncoding1D = type("PositionalEncoding1D", (_Encoding,), {"dims": 1})
PositionalEncodingPermute1D = type("PositionalEncodingPermute1D", (PositionalEncoding1D,), {"permuted": True})
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
    """Sin-cos encoding (grid_size^2, embed_dim) of a square grid, x first; behind a row of zeros with `cls_token`."""
    xy = np.stack(np.meshgrid(np.arange(grid_size), np.arange(grid_size)))  # (2, rows, columns)
    table = generate_2d_sincos_pos_embed_from_grid(embed_dim, xy)
    return np.pad(table, ((int(cls_token), 0), (0, 0)))


def generate_2d_sincos_pos_embed_from_grid(embed_dim: int, grid: NDArray[Any]) -> NDArray[np.float64]:
    """Both coordinates, `grid[0]` and `grid[1]` of any shape with M entries -> (M, embed_dim), one half each."""
    return np.concatenate([generate_1d_sincos_pos_embed_from_grid(embed_dim // 2, axis) for axis in grid[:2]], axis=1)


def generate_1d_sincos_pos_embed_from_grid(embed_dim: int, pos: NDArray[Any]) -> NDArray[np.float64]:
    """Positions of any shape with M entries -> (M, embed_dim): sines, then cosines; a `ValueError` for an odd width."""
    if embed_dim % 2:
        raise ValueError(f"one sin-cos coordinate can't have the odd width {embed_dim}; choose an even one")
    omega = 10000.0 ** (-np.arange(embed_dim // 2) / (embed_dim / 2))
    angles = np.outer(np.asarray(pos, dtype=np.float64), omega)  # (M, embed_dim / 2)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
