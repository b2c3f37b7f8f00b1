"""What of a network isn't trained by gradients: a slow copy (momentum teacher) that follows it, and frozen layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solo.errors import UserError
from solo.nn.vit import parameters_like
from solo.suggest import did_you_mean


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
    """Freeze all layers of a backbone but those named: no gradient, BatchNorm in eval mode, as of those returned.

    Raises a `UserError` for a name that is no module of the backbone; it says which there are.
    """
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
