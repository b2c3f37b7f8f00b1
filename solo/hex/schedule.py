"""Schedules of the threshold: pure functions of the epoch, so a resumed run sees the same values."""

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """A value for every epoch."""

    def __call__(self, epoch: int, max_epochs: int) -> float:
        """The value in ``epoch`` (0-based) of a run of ``max_epochs``."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same value in every epoch."""

    value: float

    def __call__(self, epoch: int, max_epochs: int) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True)
class Step:
    """``max(end, start - down * floor(epoch / every))``."""

    start: float  # value of epoch 0
    end: float  # smallest value
    down: float  # what each step takes off
    every: int  # epochs between steps, at least 1

    def __post_init__(self) -> None:
        """Check the step length."""
        if self.every < 1:
            raise ValueError(f"epochs between steps must be at least 1, got {self.every}")

    def __call__(self, epoch: int, max_epochs: int) -> float:
        """The value in ``epoch``."""
        return max(self.end, self.start - self.down * (epoch // self.every))


@dataclass(frozen=True)
class Cosine:
    """``end + (start - end) * (1 + cos(pi * epoch / max_epochs)) / 2``."""

    start: float
    end: float

    def __call__(self, epoch: int, max_epochs: int) -> float:
        """The value in ``epoch``; ``end`` from ``max_epochs`` on."""
        progress = min(1.0, epoch / max(1, max_epochs))
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2
