"""Optimizers and schedules, built the same way for pretraining and evaluation.

LARS: You, Gitman, Ginsburg: Large batch training of convolutional networks, https://arxiv.org/abs/1708.03888.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, MultiStepLR, ReduceLROnPlateau
from torch.optim.sgd import sgd

from solo.errors import UserError

Scheduler = LRScheduler | ReduceLROnPlateau | dict[str, Any]


class LARS(Optimizer):
    """SGD whose gradient is scaled, for each parameter p, by `r = eta * |p| / (|g| + weight_decay * |p| + eps)`.

    The step direction is `r * (g + weight_decay * p)`. Parameters with a zero norm or a zero gradient, and with
    `exclude_bias_n_norm` those of one dimension, get neither the scaling nor weight decay. `eta` is the trust
    coefficient, `eps` keeps the division finite, and with `clip_lr` it is `min(r / lr, 1)`, so that the rate of a layer
    never exceeds `lr`; all else is as in SGD. Raises a `ValueError` if a value is out of its range.
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
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            spared = 1 if group["exclude_bias_n_norm"] else -1  # number of dimensions
            plain = [p for p in group["params"] if p.grad is not None and p.ndim == spared]
            scaled = [p for p in group["params"] if p.grad is not None and p.ndim != spared]
            params = [*scaled, *plain]
            directions = [*_scaled_gradients(scaled, group), *(p.grad for p in plain)]
            buffers = [self.state[p].get("momentum_buffer") for p in params]
            settings = {name: group[name] for name in ("lr", "momentum", "dampening", "nesterov")}
            sgd(params, directions, buffers, foreach=True, weight_decay=0, maximize=False, **settings)
            for p, buffer in zip(params, buffers, strict=True):
                if buffer is not None:
                    self.state[p]["momentum_buffer"] = buffer
        return loss


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


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "lars": LARS, "adam": Adam, "adamw": AdamW}


def build_optimizer(model: Any, groups: Sequence[dict[str, Any]]) -> Optimizer:
    """The optimizer of parameter groups that a module's attributes ask for (`optimizer`, `lr`, ...).

    On a GPU with torch's fused kernels where there are some, one launch for hundreds of parameters, unless the kwargs
    speak of `fused` or `foreach`, or gradients are clipped, where Lightning refuses them. An `AssertionError` if there
    is no such optimizer (solo-learn's tests expect it), a `UserError` if it refuses `optimizer.kwargs`.
    """
    name, table, kwargs = model.optimizer, model._OPTIMIZERS, model.extra_optimizer_args
    assert name in table, f"optimizer.name={name!r} is unknown; choose one of {', '.join(table)}"
    clips = model.config.trainer.get("gradient_clip_val")
    fused = model.device.type == "cuda" and name in ("sgd", "adam", "adamw") and not clips and "foreach" not in kwargs
    try:
        own = {"fused": True, **kwargs} if fused else kwargs
        return table[name](groups, lr=model.lr, weight_decay=model.weight_decay, **own)  # type: ignore[no-any-return]
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(f"optimizer.kwargs={dict(kwargs)} don't fit the optimizer {name!r}: {error}") from error


def layer_groups(backbone: nn.Module, lr: float, weight_decay: float, decay: float) -> list[dict[str, Any]]:
    """The parameter group `backbone`, or where `decay` isn't 0 some whose rate falls by it from layer to layer.

    These are timm's: biases and norms have no weight decay. A `UserError` for a backbone that doesn't know its layers.
    """
    if not decay:
        return [{"name": "backbone", "params": backbone.parameters()}]
    if not hasattr(backbone, "no_weight_decay"):
        what = f"optimizer.layer_decay={decay} needs a backbone that knows its layers (ViT, Swin, ConvNeXt)"
        raise UserError(f"{what}; {type(backbone).__name__} doesn't, so set optimizer.layer_decay=0")
    from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]

    spared = backbone.no_weight_decay()  # type: ignore[operator]
    groups = param_groups_layer_decay(backbone, weight_decay, no_weight_decay_list=spared, layer_decay=decay)
    return [{**group, "name": f"backbone_{i}", "lr": lr * group["lr_scale"]} for i, group in enumerate(groups)]


def remove_bias_and_norm_from_weight_decay(parameter_groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Split each group in two: what has one dimension (biases, norms) in `<name>_no_decay`, without weight decay."""
    groups = []
    for group in parameter_groups:
        params: Sequence[nn.Parameter] = list(group["params"])
        plain = {**group, "params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0}
        if "name" in group:
            plain["name"] = f"{group['name']}_no_decay"
        groups += [{**group, "params": [p for p in params if p.ndim > 1]}, plain]
    return groups


def static_lr(
    get_lr: Callable[[], Sequence[float]], param_group_indexes: Sequence[int], lrs_to_replace: Sequence[float]
) -> list[float]:
    """The rates of `get_lr`, those of the given groups replaced."""
    lrs = list(get_lr())
    for index, lr in zip(param_group_indexes, lrs_to_replace, strict=True):
        lrs[index] = lr
    return lrs


class PureLR(LRScheduler):
    """A scheduler whose rates are a function of the step and its own settings: a resumed run follows changed ones."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the step of a checkpoint, and no setting."""
        progress = ("last_epoch", "_step_count", "_last_lr")
        self.__dict__.update({key: state_dict[key] for key in progress if key in state_dict})


class PureMultiStepLR(PureLR, MultiStepLR):
    """torch's `MultiStepLR`, computed from the epoch."""

    get_lr = MultiStepLR._get_closed_form_lr


class PureExponentialLR(PureLR, ExponentialLR):
    """torch's `ExponentialLR`, computed from the epoch."""

    get_lr = ExponentialLR._get_closed_form_lr


class LinearWarmupCosineAnnealingLR(PureLR):
    """The learning rate as a pure function of the step, for each group from its own base rate.

    It starts at `warmup_start_lr`, rises by `(base - start) / (warmup_epochs - 1)` a step so that the base rate is
    reached one step before the warm-up is over, then falls to `eta_min` at `max_epochs` and stays there. "Epochs" are
    whatever the caller steps by; they may be fractions. `last_epoch` is the index of the last step done, -1 to start.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_epochs: float,
        max_epochs: float,
        warmup_start_lr: float = 0.0,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.warmup_epochs, self.max_epochs = warmup_epochs, max_epochs
        self.warmup_start_lr, self.eta_min = warmup_start_lr, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Rates of the groups at the current step."""
        step, warmup, bases = self.last_epoch, self.warmup_epochs, map(float, self.base_lrs)
        if step == 0:
            return [self.warmup_start_lr for _ in bases]
        if step < warmup:
            done = min(1.0, step / (warmup - 1)) if warmup > 1 else 1.0
            return [self.warmup_start_lr + done * (base - self.warmup_start_lr) for base in bases]
        done = min(1.0, (step - warmup) / max(self.max_epochs - warmup, 1e-12))
        return [self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * done)) / 2 for base in bases]


def build_scheduler(model: Any, optimizer: Optimizer, total_steps: float | None, choices: Sequence[str]) -> Scheduler:
    """The scheduler that a module's attributes ask for (`scheduler`, `warmup_epochs`, ...), in Lightning's form.

    `total_steps` are those of the run, None outside of one, where epochs move it. A `UserError` for an unknown name.
    """
    if model.scheduler not in choices:
        raise UserError(f"scheduler.name={model.scheduler!r} is unknown; choose one of {', '.join(choices)}, none")
    if model.scheduler == "warmup_cosine":
        steps = total_steps if model.scheduler_interval == "step" else None
        unit = 1 if steps is None else steps / model.max_epochs
        start = model.warmup_start_lr if model.warmup_epochs > 0 else model.lr
        lengths = model.warmup_epochs * unit, model.max_epochs * unit
        scheduler = LinearWarmupCosineAnnealingLR(optimizer, *lengths, start, model.min_lr)
        return {"scheduler": scheduler, "interval": "epoch" if steps is None else "step", "frequency": 1}
    if model.scheduler == "step":
        return PureMultiStepLR(optimizer, list(model.lr_decay_steps or []))
    if model.scheduler == "exponential":
        return PureExponentialLR(optimizer, model.scheduler_gamma)
    return ReduceLROnPlateau(optimizer)
