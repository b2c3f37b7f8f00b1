"""Low-rank adapters: frozen weights of a ViT's attention, and a small matrix product that is added to them and trained.

Hu et al.: LoRA, low-rank adaptation of large language models, https://arxiv.org/abs/2106.09685: W + (alpha / r) B A.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_ADDED = "parametrizations.weight"


class LowRank(nn.Module):
    """`weight (out, in) + scale * b @ a`; b starts at 0, so that the network starts as it was.

    Args:
        weight: what is added to; not kept.
        rank: r, rows of `a` (r, in) and columns of `b` (out, r).
        scale: alpha / r of the paper.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.a = nn.Parameter(torch.empty(rank, weight.shape[1], dtype=weight.dtype, device=weight.device))
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank, dtype=weight.dtype, device=weight.device))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with what is added."""
        return weight + self.scale * (self.b @ self.a)


def add_adapters(model: nn.Module, part: str, rank: int) -> list[str]:
    """Give the linear layers of attention in `model.<part>` low-rank adapters; the rest of the part is left as it is.

    `model.state_dict()` has the sums under the weights' own names, so that every program reads it, and beside them
    `lora.<layer>.weight`, `.a` and `.b`, from which `load_state_dict` goes on with the same bits. The names of the
    layers in `part` are returned; none if it has no attention of timm's form (`attn.qkv`, `attn.proj`, ...).
    """
    network = model.get_submodule(part)
    linear = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    layers = {name: layer for name, layer in linear.items() if name.split(".")[-2:-1] == ["attn"]}
    for layer in layers.values():
        weight: Tensor = layer.weight
        parametrize.register_parametrization(layer, "weight", LowRank(weight, rank), unsafe=True)
        weight.requires_grad_(False)
    names = [f"{part}.{name}" for name in layers]

    def merge(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        for name in names:
            inner = f"{prefix}{name}.{_ADDED}"
            held = {"weight": state.pop(f"{inner}.original")} | {x: state.pop(f"{inner}.0.{x}") for x in "ab"}
            state[f"{prefix}{name}.weight"] = parameters_like(module, [f"{name}.weight"])[0].detach()
            state |= {f"{prefix}lora.{name}.{key}": value for key, value in held.items()}

    def split(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name in names:
            inner = f"{prefix}{name}.{_ADDED}"
            merged = state.pop(f"{prefix}{name}.weight", None)
            places = {"weight": f"{inner}.original", "a": f"{inner}.0.a", "b": f"{inner}.0.b"}
            for key, place in places.items():
                value = state.pop(f"{prefix}lora.{name}.{key}", merged if key == "weight" else None)
                if value is not None:
                    state[place] = value

    if names:
        model.register_state_dict_post_hook(merge)  # type: ignore[no-untyped-call]
        model.register_load_state_dict_pre_hook(split)  # type: ignore[no-untyped-call]
    return names


def parameters_like(network: nn.Module, names: Iterable[str]) -> list[Tensor]:
    """Parameters of a network by the names that they have without adapters; an adapted weight with its adapter.

    Those of a network without any are all its parameters, in its own order.
    """
    if not any(isinstance(part, LowRank) for part in network.modules()):
        return list(network.parameters())
    return [getattr(network.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]
