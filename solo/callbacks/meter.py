"""Speed and loss of an epoch, measured once, and what the user sees of them."""

import math
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn
from rich.text import Text
from torch import Tensor


class Meter(Callback):
    """Counts images, seconds and the training loss of the running epoch.

    Validation is not counted. Waiting for data is the time spent on the loader's `next` (`waited`), not that for a GPU;
    of a loader that doesn't tell, the time between two steps. Place it first among the callbacks.
    """

    images = 0  # of all processes
    wait_seconds = epoch_started = 0.0
    _start = _end = 0.0  # of the epoch, and of its last step, as if there had been no validation inside it
    _validation_started = 0.0
    _loss: Tensor | None = None
    _steps = 0
    _waited: float | None = None  # what the loader had told by the batch before

    @property
    def seconds(self) -> float:
        """Seconds from the start of the epoch to its last finished step, without validation."""
        return max(self._end - self._start, 1e-9)

    @property
    def images_per_second(self) -> float:
        """Images (not views) of all processes per second of training."""
        return self.images / self.seconds

    @property
    def data_wait(self) -> float:
        """Share of the time spent waiting for the next batch, 0 to 1."""
        return min(self.wait_seconds / self.seconds, 1.0)

    @property
    def loss(self) -> float:
        """Mean training loss of the epoch so far, without that of online classifiers; NaN before the first step."""
        return math.nan if self._loss is None else float(self._loss) / self._steps

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.images, self._steps, self.wait_seconds, self._loss = 0, 0, 0.0, None
        self.epoch_started = self._start = self._end = time.perf_counter()

    def process_state(self) -> dict[str, Any]:
        counted = {"images": self.images, "wait_seconds": self.wait_seconds, "seconds": self.seconds}
        return {"loss": self._loss, "steps": self._steps, **counted}

    def load_process_state(self, state: dict[str, Any]) -> None:
        """Go on counting; the time between the two runs is not training time."""
        self._loss, self._steps, self.images = state["loss"], state["steps"], state["images"]
        self.wait_seconds, self._end = state["wait_seconds"], time.perf_counter()
        self.epoch_started = self._start = self._end - state["seconds"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        told = getattr(getattr(trainer, "train_dataloader", None), "waited", None)
        if told is None or self._waited is None:
            self.wait_seconds += time.perf_counter() - self._end
        else:
            self.wait_seconds += told - self._waited
        self._waited = told

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the step; the loss, the method's own, stays on its device."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        classifiers = getattr(pl_module, "classifier_loss", None)
        if isinstance(loss, Tensor):
            loss = loss.detach().float() * trainer.accumulate_grad_batches
            if classifiers is not None:  # the step minimises both at once
                loss = loss - classifiers.float()
            self._loss = loss if self._loss is None else self._loss + loss
            self._steps += 1
        self.images += len(batch[-1]) * trainer.world_size
        self._end = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pause = time.perf_counter() - self._validation_started
        self._start += pause
        self._end += pause

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average the loss over the processes; have the means of the epoch ready for the other callbacks."""
        if hasattr(pl_module, "hand_on"):
            pl_module.hand_on()  # type: ignore[operator]
        if self._loss is not None and trainer.world_size > 1:
            self._loss = trainer.strategy.reduce(self._loss, reduce_op="mean")


def peak_memory_mb(device: torch.device) -> float:
    """Most memory this process has used: of the GPU it trains on, else of the machine. MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # not on Windows
        return math.nan
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 2**10


class _TwoLines(Progress):
    """The bar, and below it the numbers: together they are wider than many terminals."""

    status = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self.status)


class RunProgress(ProgressBar):
    """One bar for the whole run on a terminal (`bar`); else one plain line an epoch. Place it behind the `meter`."""

    def __init__(self, meter: Meter, bar: bool = True, console: Console | None = None) -> None:
        super().__init__()
        self.meter = meter
        self.console = console or Console(soft_wrap=True, highlight=False)
        self._wants_bar = bar and self.console.is_terminal
        self._bar: _TwoLines | None = None
        self._enabled = True
        self._first_epoch = 0
        self._epochs: int | None = None
        self._started = self._shown = 0.0
        self._last: dict[str, float] = {}

    def disable(self) -> None:
        """Show nothing: of every process but the first, and while Lightning's tuner searches."""
        self._enabled = False

    def enable(self) -> None:
        """Show what comes from now on."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()
        self._first_epoch = trainer.current_epoch
        self._epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        if self._enabled and self._wants_bar:
            columns = ("{task.description}", BarColumn(None), TaskProgressColumn(), "ETA {task.fields[eta]}")
            self._bar = _TwoLines(*columns, console=self.console, expand=True)
            self._bar.add_task("", total=self._epochs, completed=trainer.current_epoch, eta="?")
            self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar, a few times a second at most: reading the loss waits for the device."""
        now = time.perf_counter()
        if self._bar is None or now - self._shown < 0.5:
            return
        self._shown = now
        self._show(trainer, trainer.current_epoch + (batch_idx + 1) / max(1, trainer.num_training_batches))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = {key: float(value) for key, value in trainer.callback_metrics.items() if value.numel() == 1}
        if self._enabled:
            self._show(trainer, trainer.current_epoch + 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the terminal back to whoever writes next."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar (Lightning's hook for messages)."""
        self.console.print(*args)

    def _show(self, trainer: Trainer, done: float) -> None:
        epochs, eta = self._epochs, "?"
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


def clock(seconds: float) -> str:
    """A number of seconds as h:mm:ss."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
