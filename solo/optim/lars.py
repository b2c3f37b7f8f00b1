"""LARS: layer-wise adaptive rate scaling on top of SGD with momentum.

You, Gitman, Ginsburg: Large batch training of convolutional networks, https://arxiv.org/abs/1708.03888.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """SGD whose gradient is scaled, for each parameter p, by `r = eta * |p| / (|g| + weight_decay * |p| + eps)`.

    The step direction is `r * (g + weight_decay * p)`. Parameters with a zero norm or a zero gradient, and with
    `exclude_bias_n_norm` those of one dimension, get neither the scaling nor weight decay.

    Args:
        params: parameters or groups.
        lr: learning rate, >= 0.
        momentum: as in SGD.
        dampening: as in SGD.
        weight_decay: as in SGD, >= 0.
        nesterov: as in SGD; needs a momentum and no dampening.
        eta: trust coefficient.
        eps: keeps the division finite.
        clip_lr: use `min(r / lr, 1)`, so that the rate of a layer never exceeds `lr`.
        exclude_bias_n_norm: leave out parameters of one dimension.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        eta: float = 1e-3,
        eps: float = 1e-8,
        clip_lr: bool = False,
        exclude_bias_n_norm: bool = False,
    ) -> None:
        for name, value in {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta}.items():
            if value < 0:
                raise ValueError(f"LARS: {name}={value} must be at least 0")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(f"LARS: nesterov needs momentum > 0 and dampening 0, got {momentum} and {dampening}")
        defaults = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)
        defaults |= dict(eta=eta, eps=eps, clip_lr=clip_lr, exclude_bias_n_norm=exclude_bias_n_norm)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            scaled = [p for p in group["params"] if p.grad is not None and not _excluded(p, group)]
            plain = [p for p in group["params"] if p.grad is not None and _excluded(p, group)]
            if params := [*scaled, *plain]:
                directions = [*_scaled_gradients(scaled, group), *(p.grad for p in plain)]
                torch._foreach_add_(params, self._with_momentum(params, directions, group), alpha=-group["lr"])
        return loss

    def _with_momentum(self, params: list[Tensor], directions: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        if group["momentum"] == 0:
            return directions
        states = [self.state[p] for p in params]
        moving = [(s["momentum_buffer"], d) for s, d in zip(states, directions, strict=True) if "momentum_buffer" in s]
        if moving:
            buffers, added = map(list, zip(*moving, strict=True))
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, added, alpha=1 - group["dampening"])
        for state, direction in zip(states, directions, strict=True):
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = direction.clone()
        buffers = [state["momentum_buffer"] for state in states]
        return list(torch._foreach_add(directions, buffers, alpha=group["momentum"])) if group["nesterov"] else buffers


def _excluded(p: Tensor, group: dict[str, Any]) -> bool:
    return bool(group["exclude_bias_n_norm"]) and p.ndim == 1


def _scaled_gradients(params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """`r * (g + weight_decay * p)` of each parameter; no value is read back, so that a GPU never waits."""
    if not params:
        return []
    grads = [p.grad for p in params if p.grad is not None]
    p_norm = torch.stack(torch._foreach_norm(params))  # (number of parameters,)
    g_norm = torch.stack(torch._foreach_norm(grads))
    r = group["eta"] * p_norm / (g_norm + group["weight_decay"] * p_norm + group["eps"])
    if group["clip_lr"]:
        r = (r / group["lr"]).clamp(max=1)
    r = torch.where(p_norm == 0, 1.0, r)  # without a gradient r * weight_decay * p is to vanish, too
    r = torch.where(g_norm == 0, 0.0, r)
    directions = torch._foreach_mul(params, group["weight_decay"])  # not fused with the sum, which rounds otherwise
    torch._foreach_add_(directions, grads)
    torch._foreach_mul_(directions, list(r.unbind()))
    return list(directions)
