"""`performance.profile`: where a step's time goes, as a trace and as a table."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile, schedule

from solo.callbacks.run_directory import RunDirectory
from solo.files import write_text

FIRST, STEPS = 5, 5  # steps before, which pay for the start, and steps that are looked at
_ROWS = 30


class StepProfile(Callback):
    """Writes `profile.json` (for chrome://tracing and Perfetto) and `profile.txt` into the run's folder.

    The first process looks at `STEPS` steps of the first epoch, after `FIRST` others, or at what there is of them.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        self._profile: profile | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        gpu = trainer.strategy.root_device.type == "cuda"
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
        order = f"self_{'device' if gpu else 'cpu'}_time_total"
        warm = min(FIRST, max(1, int(trainer.num_training_batches) - STEPS))

        def write(found: Any) -> None:
            found.export_chrome_trace(str(self.run.path / "profile.json"))
            table = found.key_averages().table(sort_by=order, row_limit=_ROWS, max_name_column_width=60)
            write_text(self.run.path / "profile.txt", f"{STEPS} steps, the longest operations first\n{table}\n")

        turns = schedule(wait=0, warmup=warm, active=STEPS, repeat=1)
        self._profile = profile(activities=kinds, schedule=turns, on_trace_ready=write)
        self._profile.start()

    def on_train_batch_end(self, *_: Any) -> None:
        if self._profile is not None:
            with torch.no_grad():
                self._profile.step()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None
