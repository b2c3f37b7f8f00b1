"""Schedulers whose learning rates are pure functions of the step."""

import math
from bisect import bisect_right
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, MultiStepLR


class PureLR(LRScheduler):
    """A scheduler whose rates are a function of the step and of its own settings alone.

    A checkpoint tells it the step and nothing else: after a change of the settings (a longer run), a resumed run
    follows the new curve.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the step of a checkpoint, and no setting."""
        progress = ("last_epoch", "_step_count", "_last_lr")
        self.__dict__.update({key: state_dict[key] for key in progress if key in state_dict})


class PureMultiStepLR(PureLR, MultiStepLR):
    """torch's `MultiStepLR`, computed from the epoch."""

    def __init__(self, optimizer: Optimizer, milestones: list[int] | None, gamma: float = 0.1) -> None:
        self.steps = milestones
        super().__init__(optimizer, milestones or [], gamma)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Rates of the groups in the current epoch."""
        factor = self.gamma ** bisect_right(sorted(self.steps or []), self.last_epoch)
        return [float(base * factor) for base in self.base_lrs]


class PureExponentialLR(PureLR, ExponentialLR):
    """torch's `ExponentialLR`, computed from the epoch."""

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Rates of the groups in the current epoch."""
        return [float(base * self.gamma**self.last_epoch) for base in self.base_lrs]


class LinearWarmupCosineAnnealingLR(PureLR):
    """The learning rate as a pure function of the step, for each group from its own base rate.

    It starts at `warmup_start_lr`, rises by `(base - start) / (warmup_epochs - 1)` a step so that the base rate is
    reached one step before the warm-up is over, then falls to `eta_min` at `max_epochs` and stays there.
    "Epochs" are whatever the caller steps by; they may be fractions.

    Args:
        optimizer: the optimizer to schedule.
        warmup_epochs: length of the warm-up, >= 0.
        max_epochs: length of everything.
        warmup_start_lr: rate of the first step.
        eta_min: rate of the last step.
        last_epoch: index of the last step done, -1 to start.
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
