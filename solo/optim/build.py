"""Optimizers and schedules, built the same way for pretraining and evaluation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from solo.errors import UserError
from solo.optim.lars import LARS
from solo.optim.lr_scheduler import LinearWarmupCosineAnnealingLR, PureExponentialLR, PureLR, PureMultiStepLR

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "lars": LARS, "adam": Adam, "adamw": AdamW}

Scheduler = LRScheduler | ReduceLROnPlateau | dict[str, Any]


def static_lr(
    get_lr: Callable[[], Sequence[float]], param_group_indexes: Sequence[int], lrs_to_replace: Sequence[float]
) -> list[float]:
    """The rates of `get_lr`, those of the given groups replaced."""
    lrs = list(get_lr())
    for index, lr in zip(param_group_indexes, lrs_to_replace, strict=True):
        lrs[index] = lr
    return lrs


def build_optimizer(
    name: str,
    groups: Sequence[dict[str, Any]],
    lr: float,
    weight_decay: float,
    kwargs: dict[str, Any],
    table: Mapping[str, Callable[..., Optimizer]] = OPTIMIZERS,
) -> Optimizer:
    """The optimizer `name` over parameter groups.

    Raises an `AssertionError` if there is no such optimizer (solo-learn's tests expect this type). Raises a `UserError`
    if the optimizer refuses `optimizer.kwargs`, their names or their values.
    """
    assert name in table, f"optimizer.name={name!r} is unknown; choose one of {', '.join(table)}"
    try:
        return table[name](groups, lr=lr, weight_decay=weight_decay, **kwargs)
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(f"optimizer.kwargs={dict(kwargs)} don't fit the optimizer {name!r}: {error}") from error


def fused_on_gpu(name: str, kwargs: Mapping[str, Any], device: str, clips: bool) -> dict[str, Any]:
    """`optimizer.kwargs` with torch's fused kernels where there are some: one launch for hundreds of parameters.

    Args:
        name: of the optimizer.
        kwargs: what is said of `fused` or `foreach` stays.
        device: its type.
        clips: gradients are clipped, which Lightning refuses with them.
    """
    able = device == "cuda" and name in ("sgd", "adam", "adamw") and not clips
    return {**({"fused": True} if able and "foreach" not in kwargs else {}), **kwargs}


def keep_own_settings(
    optimizer: Optimizer, schedulers: Sequence[Any], fresh: Sequence[dict[str, Any]], static: Sequence[int]
) -> None:
    """Let a resumed run follow its own settings where they differ from the stored ones; else nothing changes.

    Args:
        optimizer: after the checkpoint was loaded.
        schedulers: that move its rates.
        fresh: its parameter groups' settings as they were before.
        static: indexes of the groups that don't follow the schedule.
    """
    for group, new in zip(optimizer.param_groups, fresh, strict=True):
        old_base, base = (float(part.get("initial_lr", part["lr"])) for part in (group, new))
        if base != old_base:
            group["lr"] = group["lr"] * (base / old_base) if old_base else base
        own = ("lr", "fused", "foreach")  # how it computes follows from where its state lies
        group.update({key: value for key, value in new.items() if key not in own})
    for scheduler in schedulers:
        if isinstance(scheduler, PureLR):
            for index, (group, rate) in enumerate(zip(optimizer.param_groups, scheduler.get_lr(), strict=True)):
                if index not in static:
                    group["lr"] = rate


@dataclass(frozen=True)
class Schedule:
    """What a schedule needs to know."""

    name: str  # warmup_cosine, step, exponential, reduce
    interval: str  # whether warmup_cosine moves by `step` or by `epoch`
    max_epochs: int  # length of the run
    total_steps: float | None  # optimizer steps of the run; None outside of a run, where `interval` is then `epoch`
    lr: float  # where a cosine without warm-up starts
    warmup_start_lr: float  # of warmup_cosine, as the next two
    warmup_epochs: float
    min_lr: float
    decay_steps: Sequence[int] | None  # epochs at which `step` divides by 10
    gamma: float  # factor of each epoch of `exponential`

    def build(self, optimizer: Optimizer, choices: Sequence[str]) -> Scheduler:
        """The scheduler in the form that Lightning takes. Raises a `UserError` if `name` is not among the choices."""
        if self.name not in choices:
            raise UserError(f"scheduler.name={self.name!r} is unknown; choose one of {', '.join(choices)}, none")
        if self.name == "warmup_cosine":
            unit = self.total_steps / self.max_epochs if self.by_step and self.total_steps is not None else 1
            start = self.warmup_start_lr if self.warmup_epochs > 0 else self.lr
            lengths = self.warmup_epochs * unit, self.max_epochs * unit
            scheduler = LinearWarmupCosineAnnealingLR(optimizer, *lengths, start, self.min_lr)
            return {"scheduler": scheduler, "interval": "step" if self.by_step else "epoch", "frequency": 1}
        if self.name == "step":
            return PureMultiStepLR(optimizer, None if self.decay_steps is None else list(self.decay_steps))
        if self.name == "exponential":
            return PureExponentialLR(optimizer, self.gamma)
        return ReduceLROnPlateau(optimizer)

    @property
    def by_step(self) -> bool:
        """Whether a step moves it; else an epoch does."""
        return self.interval == "step" and self.total_steps is not None


def layer_groups(backbone: nn.Module, lr: float, weight_decay: float, decay: float) -> list[dict[str, Any]]:
    """The parameter group `backbone`, or where `decay` isn't 0 some whose rate falls by it from layer to layer.

    These are timm's: biases and norms have no weight decay, frozen parameters are in none; `name` and `lr` are set.
    Raises a `UserError`: a backbone that doesn't know its layers.
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
    """Split each group into `<name>` and `<name>_no_decay`, the latter without weight decay.

    Args:
        parameter_groups: dicts with `params` (any iterable) and, optionally, `name`, `lr`, ...

    Returns:
        Twice as many groups; parameters of one dimension (biases, norms) are in the `_no_decay` ones.
    """
    groups = []
    for group in parameter_groups:
        params: Sequence[nn.Parameter] = list(group["params"])
        plain = {**group, "params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0}
        if "name" in group:
            plain["name"] = f"{group['name']}_no_decay"
        groups += [{**group, "params": [p for p in params if p.ndim > 1]}, plain]
    return groups
