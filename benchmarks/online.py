"""What watching costs: the share of a run's training time that `online.*` takes.

    python benchmarks/online.py [scripts/pretrain/fashion_mnist hex.yaml] [key=value ...]

Runs the recipe (default: one epoch of HEX-SimCLR on Fashion-MNIST) through the command line with every default of
`online.*`, and measures, inside that one run, the time in the hooks of the vital signs and the guard, and in what the
methods and the HEX loss do for them, against the time from the start of each epoch to its last step. On a CPU it is
processor time, so that other programs don't count; on a GPU wall time, in which a hook that waits for the device pays
for steps that are still computed there: an upper bound. Prints one line a part, and their sum.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from solo import cli
from solo.callbacks import EmbeddingMonitor, Meter, NonFiniteGuard
from solo.hex.rows import HexRows
from solo.methods.base import BaseMethod

PARTS = [
    (EmbeddingMonitor, "on_train_batch_end", "vital signs: keeping features"),
    (EmbeddingMonitor, "on_train_epoch_end", "vital signs: measuring"),
    (NonFiniteGuard, "on_train_batch_start", "guard"),
    (NonFiniteGuard, "on_before_backward", "guard"),
    (BaseMethod, "keep_views", "vital signs: keeping features"),
    (HexRows, "_compare_groups", "share of the superclass in the loss"),
]
DEFAULT = ["scripts/pretrain/fashion_mnist", "hex.yaml", "max_epochs=1", "warm_epoch=0"]


def clock() -> float:
    """Processor time without a GPU, else wall time."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def timed(spent: dict[str, float], owner: type, name: str, part: str) -> None:
    """Add the time in a method to its part."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = clock()
        try:
            return original(*args, **kwargs)
        finally:
            spent[part] += clock() - start

    setattr(owner, name, wrapper)


def timed_epochs(total: list[float]) -> None:
    """Add up the time from the start of each epoch to its last step."""
    begin, step = Meter.on_train_epoch_start, Meter.on_train_batch_end
    started = [0.0]

    def on_start(self: Meter, *args: Any) -> None:
        started[0] = clock()
        total.append(0.0)
        begin(self, *args)

    def on_step(self: Meter, *args: Any) -> None:
        step(self, *args)
        total[-1] = clock() - started[0]

    Meter.on_train_epoch_start, Meter.on_train_batch_end = on_start, on_step  # type: ignore[method-assign]


def main() -> int:
    """Run the recipe and print the shares."""
    spent: dict[str, float] = defaultdict(float)
    epochs: list[float] = []
    timed_epochs(epochs)
    for owner, name, part in PARTS:
        timed(spent, owner, name, part)
    given = sys.argv[1:]
    recipe, words = (given[:2], given[2:]) if given and "=" not in given[0] else (DEFAULT, given)
    with tempfile.TemporaryDirectory() as folder:
        code = cli.main(["pretrain", *recipe, f"checkpoint.dir={folder}", *words])
    if code or not epochs:
        return code or 1
    total = sum(epochs)
    for part, seconds in spent.items():
        print(f"{part:40} {100 * seconds / total:6.3f} %")
    print(f"{'together, of the training time':40} {100 * sum(spent.values()) / total:6.3f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
