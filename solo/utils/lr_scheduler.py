"""Linear warm-up, then half a cosine."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class LinearWarmupCosineAnnealingLR(LRScheduler):
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
        return [self._rate(float(base)) for base in self.base_lrs]

    def _rate(self, base: float) -> float:
        step = self.last_epoch
        if step == 0:
            return self.warmup_start_lr
        if step < self.warmup_epochs:
            done = min(1.0, step / (self.warmup_epochs - 1)) if self.warmup_epochs > 1 else 1.0
            return self.warmup_start_lr + done * (base - self.warmup_start_lr)
        done = min(1.0, (step - self.warmup_epochs) / max(self.max_epochs - self.warmup_epochs, 1e-12))
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * done)) / 2
