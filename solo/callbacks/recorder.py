"""Everything a run learned, on disk while it runs."""

import csv
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from solo.analysis.curves import plot_curves
from solo.args.config import to_yaml
from solo.callbacks.meter import Meter, peak_memory_mb
from solo.callbacks.run_directory import RunDirectory
from solo.callbacks.summary import Facts, Row, summarize
from solo.errors import UserError, reason
from solo.files import csv_text, write_text


class _Events(TensorBoardLogger):
    """TensorBoard's event files without Lightning's `hparams.yaml`: the settings are in `config.yaml`."""

    @rank_zero_only
    def save(self) -> None:
        """Write the events that are waiting to disk."""
        self.experiment.flush()


@dataclass(eq=False)
class Recorder(Callback):
    """Writes `config.yaml`, `metrics.csv`, `summary.json` and `curves.png` into the run's folder.

    The first three are renewed every epoch, so that a killed run keeps what it had. Place it last.
    """

    cfg: Any  # of the run, typed or a `DictConfig`
    run: RunDirectory  # the run's folder
    meter: Meter  # measures speed and loss; placed before this callback
    facts: Facts  # what the summary says besides the numbers
    history: Path | None = None  # `metrics.csv` of the run that is resumed; its epochs before this run's are kept
    tensorboard: bool = False  # also write the metrics as TensorBoard events into the run's folder
    rows: list[Row] = field(default_factory=list, init=False)
    summary: dict[str, Any] = field(default_factory=dict, init=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open the folder, keep the configuration, attach TensorBoard (its folder is known only now)."""
        folder = self.run.open(trainer)
        if self.tensorboard:
            trainer.loggers = [*trainer.loggers, _Events(self.run.root, name="", version=self.run.run_id)]
        if trainer.is_global_zero:
            write_text(folder / "config.yaml", to_yaml(self.cfg))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Mapping[str, Any]) -> None:
        if self.history is not None:
            finished = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            self.rows = [row for row in read_rows(self.history) if row["epoch"] < finished]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = {key: float(value) for key, value in trainer.callback_metrics.items() if value.numel() == 1}
        # A metric logged per step too appears once, with its epoch value.
        doubled = {key for key in logged if key.endswith("_step") and f"{key[:-5]}_epoch" in logged}
        doubled |= {key for key in logged if key.endswith("_epoch") and key[:-6] in logged}
        row = {
            "epoch": float(trainer.current_epoch),
            "step": float(trainer.global_step),
            "loss": self.meter.loss,
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "images_per_second": self.meter.images_per_second,
            "data_wait": self.meter.data_wait,
            "peak_memory_mb": peak_memory_mb(trainer.strategy.root_device),
            "seconds": time.perf_counter() - self.meter.epoch_started,
            **{key: value for key, value in sorted(logged.items()) if key not in doubled},
        }
        self.rows.append(row)
        if trainer.is_global_zero:
            whole = ("epoch", "step")
            rows = [{k: int(x) if k in whole else f"{x:.8g}" for k, x in row.items()} for row in self.rows]
            write_text(self.run.path / "metrics.csv", csv_text(rows))
            self._summarize("running")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._finish("finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what there is: a user or the machine stopped the run, or it failed."""
        stopped = isinstance(exception, (KeyboardInterrupt, SystemExit))  # SIGTERM raises a SystemExit
        if trainer.is_global_zero and self.run.is_open:
            self._finish("interrupted" if stopped else "failed")

    def add(self, name: str, value: Any) -> None:
        """Put a further entry into the summary of a finished run; None is none."""
        if value is not None:
            self.facts = replace(self.facts, extra={**self.facts.extra, name: value})
            self._summarize("finished")

    def _summarize(self, status: str) -> None:
        self.summary = summarize(self.rows, self.facts, run_id=self.run.run_id or "", status=status)
        write_text(self.run.path / "summary.json", json.dumps(self.summary, indent=2, allow_nan=False) + "\n")

    def _finish(self, status: str) -> None:
        self._summarize(status)
        plot_curves(self.rows, self.run.path / "curves.png", title=self.facts.title)


def read_rows(path: Path) -> list[Row]:
    """Read `metrics.csv` back; no file gives no rows.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            table = csv.DictReader(stream)
            rows = [{key: float(value) for key, value in row.items() if key and value} for row in table]
        if any("epoch" not in row for row in rows):
            raise ValueError("a row has no epoch")
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({reason(error)}); remove it, and the run goes on without it") from error
    return rows
