"""The schedules of a run, written down before its first step: `schedule.csv`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from typing import Any, Protocol, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from solo.callbacks.run_directory import RunDirectory
from solo.files import write_text

# More steps than these are thinned out evenly; the first and the last one stay.
MOST_ROWS = 20_000


class Planned(Protocol):
    """A module that knows its schedules."""

    def planned(self, step: int, steps_per_epoch: float) -> dict[str, float | None]:
        """Name and value of each of them in an optimizer step, 0-based; None where there is none."""
        ...


class SchedulePlan(Callback):
    """Writes `schedule.csv`: learning rates, weight decays, tau and threshold of every optimizer step.

    All of them are functions of step and total number of steps. Where the run turns out otherwise (another number of
    steps, another learning rate), it says so.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self.total = 0
        self.per_epoch = 1.0
        self._complained = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the plan of all steps, `schedule.csv`."""
        self.per_epoch = steps_of_epoch(trainer.num_training_batches, trainer.accumulate_grad_batches)
        total = trainer.estimated_stepping_batches
        self.total = int(total) if math.isfinite(total) else 0
        if trainer.is_global_zero and self.total and hasattr(pl_module, "planned"):
            text = table(cast(Planned, pl_module), self.total, self.per_epoch)
            write_text(self.run.path / "schedule.csv", text)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the plan with what has happened."""
        if not self.total or self._complained or not hasattr(pl_module, "planned"):
            return
        done = trainer.global_step
        planned = min(round((trainer.current_epoch + 1) * self.per_epoch), self.total)
        if done != planned:
            self._complain(
                f"{done:,} optimizer steps are done by the end of epoch {trainer.current_epoch}, but {planned:,} were "
                f"planned ({self.total:,} in all): the schedules won't end with the run"
            )
            return
        rate = cast(Planned, pl_module).planned(done, self.per_epoch).get("lr")
        used = float(trainer.optimizers[0].param_groups[0]["lr"])
        if rate is not None and not math.isclose(rate, used, rel_tol=1e-9, abs_tol=1e-15):
            self._complain(f"the learning rate after step {done:,} is {used:.8g}, but {rate:.8g} was planned")

    def _complain(self, text: str) -> None:
        rank_zero_warn(f"{text}; see schedule.csv")
        self._complained = True


def steps_of_epoch(batches: float, accumulate: int) -> float:
    """Optimizer steps of an epoch: one for every `accumulate` batches of a process, the last one may have fewer."""
    return math.ceil(batches / accumulate)


def table(module: Planned, total: int, per_epoch: float) -> str:
    """The steps' rows: `step`, `epoch` and the schedules; empty where a schedule has no value."""
    rows: list[dict[str, Any]] = []
    for step in shown_steps(total):
        planned = module.planned(step, per_epoch)
        texts = {key: "" if value is None else f"{value:.8g}" for key, value in planned.items()}
        rows.append({"step": step, "epoch": int(step // per_epoch), **texts})
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def shown_steps(total: int) -> Iterable[int]:
    """All steps, or `MOST_ROWS` of them, evenly spread."""
    if total <= MOST_ROWS:
        return range(total)
    return [index * (total - 1) // (MOST_ROWS - 1) for index in range(MOST_ROWS)]
