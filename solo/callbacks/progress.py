"""What the user sees while a run trains."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn
from rich.text import Text

from solo.callbacks.meter import Meter

_REFRESH_SECONDS = 0.5


class _TwoLines(Progress):
    """The bar, and below it the numbers: together they are wider than many terminals."""

    status = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self.status)


class RunProgress(ProgressBar):
    """One bar for the whole run on a terminal; one plain line an epoch everywhere else, so that log files stay clean.

    Args:
        meter: measures speed and loss; placed before this callback.
        bar: False writes lines on a terminal, too.
        console: where to write; standard output by default.
    """

    def __init__(self, meter: Meter, bar: bool = True, console: Console | None = None) -> None:
        super().__init__()
        self.meter = meter
        self.console = console or Console(soft_wrap=True, highlight=False)
        self._wants_bar = bar and self.console.is_terminal
        self._bar: _TwoLines | None = None
        self._enabled = True
        self._first_epoch = 0
        self._started = self._shown = 0.0
        self._last: dict[str, float] = {}

    def disable(self) -> None:
        """Lightning calls this on every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()
        self._first_epoch = trainer.current_epoch
        if self._enabled and self._wants_bar:
            columns = ("{task.description}", BarColumn(None), TaskProgressColumn(), "ETA {task.fields[eta]}")
            self._bar = _TwoLines(*columns, console=self.console, expand=True)
            self._bar.add_task("", total=_epochs(trainer), completed=trainer.current_epoch, eta="?")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, a few times a second at most: reading the loss waits for the device."""
        now = time.perf_counter()
        if self._bar is None or now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        self._show(trainer, trainer.current_epoch + (batch_idx + 1) / max(1, trainer.num_training_batches))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = {key: float(value) for key, value in trainer.callback_metrics.items() if value.numel() == 1}
        if self._enabled:
            self._show(trainer, trainer.current_epoch + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the terminal back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar (Lightning's hook for messages)."""
        self.console.print(*args)

    def _show(self, trainer: Trainer, done: float) -> None:
        """Show that `done` epochs (with a fraction) are done."""
        epochs, eta = _epochs(trainer), "?"
        if epochs and done > self._first_epoch:
            elapsed = time.perf_counter() - self._started  # validation included
            eta = clock(elapsed / (done - self._first_epoch) * max(0.0, epochs - done))
        head = f"epoch {trainer.current_epoch + 1}" + (f"/{epochs}" if epochs else "")
        status = status_line(self.meter, self._last)
        if self._bar is None:
            self.console.print(f"{head} · ETA {eta} · {status}")
        else:
            self._bar.status = status
            self._bar.update(self._bar.task_ids[0], description=head, completed=done, eta=eta)


def status_line(meter: Meter, metrics: Mapping[str, float]) -> str:
    """Speed, loss and the latest accuracies in one line."""
    parts = [f"{meter.images_per_second:,.0f} img/s", f"data wait {100 * meter.data_wait:.0f}%"]
    named = {"loss": meter.loss, "threshold": metrics.get("hex/threshold")}
    parts += [f"{name} {value:.3f}" for name, value in named.items() if value is not None and not math.isnan(value)]
    named = {"linear": metrics.get("val_acc1"), "knn": metrics.get("val_knn_acc1")}
    parts += [f"{name} {value:.2f}%" for name, value in named.items() if value is not None]
    return " · ".join(parts)


def _epochs(trainer: Trainer) -> int | None:
    return trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None


def clock(seconds: float) -> str:
    """A number of seconds as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
