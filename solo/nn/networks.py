"""Heads of networks, slow copies that follow them (momentum teachers), and layers that are frozen."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo.errors import UserError
from solo.nn.vit import parameters_like
from solo.suggest import did_you_mean

# What torch.nn.utils.parametrizations.weight_norm calls the two.
_OTHER_NAMES = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


class WeightNormLinear(nn.Module):
    """Linear without bias, `weight = weight_g * weight_v / |weight_v|` row by row, all lengths 1 at first.

    Unlike torch's, it can be copied, and its names are those of published checkpoints; torch's newer ones load, too.
    `weight_g` is trained with `learn_length`.
    """

    def __init__(self, in_features: int, out_features: int, learn_length: bool = False) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_features, 1), requires_grad=learn_length)
        self.weight_v = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))

    @property
    def weight(self) -> Tensor:
        """The matrix that is applied, (out_features, in_features)."""
        return F.normalize(self.weight_v, dim=1) * self.weight_g

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(x, self.weight)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, other in _OTHER_NAMES.items():
            if prefix + other in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + other)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def mlp(
    in_dim: int,
    hidden_dim: int,
    out_dim: int,
    depth: int = 2,
    *,
    norm: bool = True,
    bias: bool = True,
    last_bias: bool = True,
    last_norm: Literal["affine", "plain"] | None = None,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """`depth` linear layers with BatchNorm and an activation between them: (N, in_dim) -> (N, out_dim).

    The places in the `Sequential` are those of solo-learn's heads, so that checkpoints are exchangeable. `bias` is that
    of the hidden layers; a BatchNorm after the last one is with (`affine`) or without (`plain`) weight and bias.
    """
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers.append(nn.Linear(in_dim, hidden_dim, bias=bias))
        layers += [nn.BatchNorm1d(hidden_dim)] if norm else []
        layers.append(activation())
        in_dim = hidden_dim
    layers.append(nn.Linear(in_dim, out_dim, bias=last_bias))
    if last_norm is not None:
        layers.append(nn.BatchNorm1d(out_dim, affine=last_norm == "affine"))
    return nn.Sequential(*layers)


@torch.no_grad()
def initialize_momentum_params(online_net: nn.Module, momentum_net: nn.Module) -> None:
    """Copy the online network's parameters and freeze the momentum network's."""
    for online, momentum in zip(online_net.parameters(), momentum_net.parameters(), strict=True):
        momentum.copy_(online)
        momentum.requires_grad = False


@dataclass
class MomentumUpdater:
    """Exponential moving average of parameters, its rate tau following a cosine from `base_tau` to `final_tau`.

    BatchNorm statistics are not averaged: the momentum network keeps its own.
    """

    base_tau: float = 0.996  # rate at the start, in [0, 1]; 1 never changes the momentum network
    final_tau: float = 1.0  # rate at the end, in [base_tau, 1]

    def __post_init__(self) -> None:
        """Refuse rates out of their range."""
        assert 0 <= self.base_tau <= self.final_tau <= 1, (
            f"momentum.base_tau={self.base_tau} and momentum.final_tau={self.final_tau} must hold "
            "0 <= base <= final <= 1"
        )
        self.cur_tau = self.base_tau

    @torch.no_grad()
    def update(self, online_net: nn.Module, momentum_net: nn.Module) -> None:
        """Momentum parameters <- tau * momentum + (1 - tau) * online; an adapted weight counts with its adapter."""
        slow: dict[str, Tensor] = dict(momentum_net.named_parameters())
        pairs = list(zip(parameters_like(online_net, slow), slow.values(), strict=True))
        if pairs:  # as lists: on a GPU a few kernels for all of them
            values = [online.to(momentum.dtype) for online, momentum in pairs]
            torch._foreach_lerp_(list(slow.values()), values, 1 - self.cur_tau)

    def update_tau(self, cur_step: int, max_steps: int) -> None:
        """Set `cur_tau` for a step, from its number alone, so that a resumed run has it."""
        fallen = math.cos(math.pi * cur_step / max_steps) + 1
        self.cur_tau = self.final_tau - (self.final_tau - self.base_tau) * fallen / 2


def freeze_layers(backbone: nn.Module, trained: Sequence[str]) -> list[nn.Module]:
    """Freeze all layers of a backbone but those named, and return them; a `UserError` for a name that isn't there."""
    modules = dict(backbone.named_modules())
    for name in trained:
        if not name or name not in modules:
            parts = [child for child, _ in backbone.named_children()]
            raise UserError(
                f"finetune_layers has {name!r}, which is no layer of {type(backbone).__name__}; "
                f"{did_you_mean(name, parts)}choose from {', '.join(parts)}, or layers inside of these"
            )
    inside = tuple(f"{name}." for name in trained)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name.startswith(inside))
    # A module around a trained one is not frozen itself; its other parts are on the list by their own names.
    outside = (module for name, module in modules.items() if name and not f"{name}.".startswith(inside))
    frozen = [module for module in outside if not any(p.requires_grad for p in module.parameters())]
    for module in frozen:
        module.eval()  # a trainer leaves the modes as it finds them
    return frozen
