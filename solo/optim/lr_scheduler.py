"""Learning rates as pure functions of the step, and the schedulers that apply them."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, MultiStepLR


def warmup_cosine(step: float, base: float, warmup: float, total: float, start: float = 0.0, end: float = 0.0) -> float:
    """The rate of a step: linear from `start` to `base` in `warmup` steps, then half a cosine to `end`.

    Args:
        step: 0-based; from `total` on, the rate is `end`.
        base: highest rate, reached one step before the warm-up is over.
        warmup: length of the warm-up, >= 0, may be a fraction.
        total: length of everything.
        start: rate of step 0.
        end: rate after the last step.
    """
    if step == 0:
        return start
    if step < warmup:
        done = min(1.0, step / (warmup - 1)) if warmup > 1 else 1.0
        return start + done * (base - start)
    done = min(1.0, (step - warmup) / max(total - warmup, 1e-12))
    return end + (base - end) * (1 + math.cos(math.pi * done)) / 2


def multi_step(epoch: int, base: float, steps: list[int] | None, gamma: float = 0.1) -> float:
    """`base`, times `gamma` for each of the epochs in `steps` that is reached."""
    return float(base * gamma ** bisect_right(sorted(steps or []), epoch))


def exponential(epoch: int, base: float, gamma: float) -> float:
    """The rate of an epoch, `base * gamma^epoch`."""
    return float(base * gamma**epoch)


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
        return [multi_step(self.last_epoch, float(base), self.steps, self.gamma) for base in self.base_lrs]


class PureExponentialLR(PureLR, ExponentialLR):
    """torch's `ExponentialLR`, computed from the epoch."""

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Rates of the groups in the current epoch."""
        return [exponential(self.last_epoch, float(base), self.gamma) for base in self.base_lrs]


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
        self.warmup_epochs = warmup_epochs
        self.max_epochs = max_epochs
        self.warmup_start_lr = warmup_start_lr
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Rates of the groups at the current step."""
        settings = (self.warmup_epochs, self.max_epochs, self.warmup_start_lr, self.eta_min)
        return [warmup_cosine(self.last_epoch, float(base), *settings) for base in self.base_lrs]
