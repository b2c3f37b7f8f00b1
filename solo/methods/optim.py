"""Optimizers and schedules, built the same way for pretraining and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, MultiStepLR, ReduceLROnPlateau

from solo.errors import UserError
from solo.utils.lars import LARS
from solo.utils.lr_scheduler import LinearWarmupCosineAnnealingLR

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
    name: str, groups: Sequence[dict[str, Any]], lr: float, weight_decay: float, kwargs: dict[str, Any]
) -> Optimizer:
    """The optimizer `name` over parameter groups.

    Raises:
        AssertionError: if there is no such optimizer (solo-learn's tests expect this type).
        UserError: if the optimizer refuses `optimizer.kwargs`, their names or their values.
    """
    assert name in OPTIMIZERS, f"optimizer.name={name!r} is unknown; choose one of {', '.join(OPTIMIZERS)}"
    constructor: Callable[..., Optimizer] = OPTIMIZERS[name]
    try:
        return constructor(groups, lr=lr, weight_decay=weight_decay, **kwargs)
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(f"optimizer.kwargs={dict(kwargs)} don't fit the optimizer {name!r}: {error}") from error


@dataclass(frozen=True)
class Schedule:
    """What a schedule needs to know.

    Attributes:
        name: warmup_cosine, step, exponential, reduce.
        interval: whether warmup_cosine moves by `step` or by `epoch`.
        max_epochs: length of the run.
        total_steps: optimizer steps of the run; None outside of a run, where `interval` is then `epoch`.
        lr: where a cosine without warm-up starts.
        warmup_start_lr, warmup_epochs, min_lr: of warmup_cosine.
        decay_steps: epochs at which `step` divides by 10.
        gamma: factor of each epoch of `exponential`.
    """

    name: str
    interval: str
    max_epochs: int
    total_steps: float | None
    lr: float
    warmup_start_lr: float
    warmup_epochs: float
    min_lr: float
    decay_steps: Sequence[int] | None
    gamma: float

    def build(self, optimizer: Optimizer, choices: Sequence[str]) -> Scheduler:
        """The scheduler in the form that Lightning takes.

        Raises:
            UserError: if `name` is not among the choices.
        """
        if self.name not in choices:
            raise UserError(f"scheduler.name={self.name!r} is unknown; choose one of {', '.join(choices)}, none")
        if self.name == "warmup_cosine":
            return self._warmup_cosine(optimizer)
        if self.name == "step":
            return MultiStepLR(optimizer, self.decay_steps)  # type: ignore[arg-type]  # None: no step at all
        if self.name == "exponential":
            return ExponentialLR(optimizer, self.gamma)
        plateau = ReduceLROnPlateau(optimizer)
        # Lightning needs to be told what to watch; outside of a run callers expect the bare scheduler.
        return plateau if self.total_steps is None else {"scheduler": plateau, "monitor": "val_loss"}

    def _warmup_cosine(self, optimizer: Optimizer) -> dict[str, Any]:
        by_step = self.interval == "step" and self.total_steps is not None
        unit = self.total_steps / self.max_epochs if by_step and self.total_steps is not None else 1
        scheduler = LinearWarmupCosineAnnealingLR(
            optimizer,
            warmup_epochs=self.warmup_epochs * unit,
            max_epochs=self.max_epochs * unit,
            warmup_start_lr=self.warmup_start_lr if self.warmup_epochs > 0 else self.lr,
            eta_min=self.min_lr,
        )
        return {"scheduler": scheduler, "interval": "step" if by_step else "epoch", "frequency": 1}
