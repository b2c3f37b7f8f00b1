"""Saving a run, after epochs and inside them; and stopping it, by a signal or a time limit, with everything saved."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from solo import distributed
from solo.args.config import to_plain
from solo.callbacks.process_state import GoingOn, capture
from solo.callbacks.run_directory import RunDirectory, defaults_of, random_string
from solo.errors import NonFiniteError, UserError
from solo.files import file_name, replacing, write_text
from solo.screen import PIPE_CLOSED, reader_is_gone

# The `last.ckpt` before the last one, as long as a run goes on: should the newest be damaged.
BACKUP = "last.ckpt.bak"
TIME_LIMIT = 124  # exit code, that of `timeout`


class StopRunError(SystemExit):
    """The run stopped because it was asked to, everything is saved; `code` is that of `StopRequests`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.reason = signal.Signals(code - 128).name if code > 128 else "the time limit (max_time)"


class StopRequests:
    """Whether the run shall end: SIGTERM, SIGUSR1, SIGHUP, a reader of the output that left, or a time limit.

    `max_time` is Lightning's, `DD:HH:MM:SS`, a timedelta or its arguments, of this start of the program. The exit code
    of a request is 128 and the signal's number, or 124 at the time limit.
    """

    def __init__(self, max_time: str | timedelta | dict[str, Any] | None = None) -> None:
        self.code = 0  # of the latest signal
        self._end = math.inf if max_time is None else time.monotonic() + seconds_of(max_time)
        self._former: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals from here on, in place of Lightning, which would stop inside an accumulation of batches."""
        if threading.current_thread() is not threading.main_thread():
            return

        def note(number: int, frame: Any) -> None:
            self.code = 128 + number

        for name in ("SIGTERM", "SIGUSR1", "SIGHUP"):
            number = getattr(signal, name, None)  # not all on Windows
            if number and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):  # nohup
                self._former[number] = signal.signal(number, note)

    def unlisten(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def pending(self) -> int:
        """The exit code to stop with, 0 to go on."""
        late = time.monotonic() >= self._end
        return self.code or (TIME_LIMIT if late else PIPE_CLOSED if reader_is_gone() else 0)


def requeue(trainer: Trainer, run: Callable[[list[str]], Any] = subprocess.check_call) -> bool:
    """Put a SLURM job that got SIGUSR1 back into the queue; False outside of SLURM or where that is switched off."""
    environment = trainer._accelerator_connector.cluster_environment
    if not (isinstance(environment, SLURMEnvironment) and environment.auto_requeue):
        return False
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    run(["scontrol", "requeue", job])
    return True


def seconds_of(max_time: str | timedelta | dict[str, Any]) -> float:
    """Seconds of Lightning's three ways to write a duration; a `UserError` if it is none of them."""
    try:
        return float(Timer(duration=max_time).time_remaining() or 0)
    except (TypeError, ValueError, AttributeError, MisconfigurationException):
        raise UserError(f"max_time={max_time!r} is no duration; write DD:HH:MM:SS, or {{hours: 4}}") from None


@dataclass(eq=False)
class Checkpointer(Callback):
    """Writes `args.json`, `<name>-<run id>-ep=<epoch>.ckpt` and `last.ckpt` into `logdir/<run id>/`.

    A file appears complete or not at all, with the state of every process, so that a resumed run continues exactly;
    inside an epoch too with solo's loaders. It makes itself the last callback, to save what the others have done.
    """

    cfg: Any  # of the run, typed or a `DictConfig`; written to `args.json` as it is
    logdir: str | Path = Path("trained_models")  # the folder of all runs of this kind, `<checkpoint.dir>/<method>`
    frequency: int = 1  # the epochs divisible by it are kept under their own name
    keep_prev: bool = False  # keep the earlier epochs' files
    # the run's folder, where other callbacks write there too; None: one of its own
    run: RunDirectory = None  # type: ignore[assignment]
    every_steps: int | None = None  # write `last.ckpt` after as many optimizer steps, too; None: only after epochs
    every_minutes: float | None = None  # the same by the time since it was written last
    max_time: Any = None  # stop after it, with everything saved; see `StopRequests`

    def __post_init__(self) -> None:
        self.run = self.run or RunDirectory(self.logdir)
        self.logdir = self.run.root
        self.path: Path | None = None
        self.ckpt_placeholder = ""
        self.last_ckpt: str | None = None
        self._loaded: dict[str, Any] = {}
        self._stop = StopRequests(self.max_time)
        self._inside = False
        self._saved_at = 0.0
        self._odd: set[str] = set()  # buffers that are not finite by design

    random_string = staticmethod(random_string)
    add_and_assert_specific_cfg = staticmethod(defaults_of("checkpoint"))

    def save(self, trainer: Trainer) -> None:
        """Write `last.ckpt` and, where the epoch is due, the epoch's own file. Every process has to call this."""
        self._write_last(trainer, inside=False)
        if trainer.current_epoch % self.frequency != 0 and not _is_last(trainer):
            return
        previous = self.last_ckpt
        self.last_ckpt = str(self.run.path / self.ckpt_placeholder.format(trainer.current_epoch))
        if trainer.is_global_zero:
            with replacing(Path(self.last_ckpt)) as temporary:
                _same_file(self.run.path / "last.ckpt", temporary)
            if previous and previous != self.last_ckpt and not self.keep_prev:
                Path(previous).unlink(missing_ok=True)

    def _write_last(self, trainer: Trainer, inside: bool) -> None:
        """Write `last.ckpt`, `inside` an epoch between two of its batches."""
        self._inside, last = inside, self.run.path / "last.ckpt"
        found = [name for name in _not_finite(trainer) if name not in self._odd]
        if distributed.any_process(int(bool(found))):  # what is not finite never takes the place of what is
            listed = f"{found[0]} and {len(found) - 1} more" if found[1:] else (found or ["another process's"])[0]
            what = f"the weights are not finite after step {trainer.global_step} ({listed}) and are not saved"
            raise NonFiniteError(f"{what}: {last} stays as it was; try a smaller optimizer.lr or a longer warm-up")
        if trainer.is_global_zero:
            with replacing(last) as temporary:
                trainer.save_checkpoint(temporary)
                if last.is_file():
                    with replacing(last.with_name(BACKUP)) as backup:
                        _same_file(last, backup)
        else:
            trainer.save_checkpoint(last)  # takes part in collecting the state, writes nothing
        self._inside = False
        self._saved_at = time.monotonic()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the places before and behind all other callbacks."""
        others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
        trainer.callbacks = [GoingOn(self), *others, self]  # type: ignore[attr-defined]

    def initial_setup(self, trainer: Trainer) -> None:
        """Open the run's folder and name the files."""
        self.path = self.run.open(trainer)
        self.ckpt_placeholder = f"{file_name(str(self.cfg.name))}-{self.run.run_id}-ep={{}}.ckpt"

    def save_args(self, trainer: Trainer) -> None:
        """Write `args.json`: the whole configuration and the id of the W&B run, if it is one."""
        if trainer.is_global_zero:
            args = {**to_plain(self.cfg), "wandb_run_id": self.run.wandb_run_id}
            write_text(self.run.path / "args.json", json.dumps(args, indent=2, default=str) + "\n")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.initial_setup(trainer)
        self.save_args(trainer)
        self._stop.listen()
        self._saved_at = time.monotonic()
        weights = {name for name, _ in pl_module.named_parameters()}
        self._odd = {name for name in _not_finite(trainer) if name not in weights}
        name = self._loaded.get("last_ckpt")
        # It is removed when the next one is there, so that a checkpoint of somebody else names no other file.
        if isinstance(name, str) and Path(name).name == name and re.fullmatch(r".+-ep=\d+\.ckpt", name):
            file = self.run.path / name
            self.last_ckpt = str(file) if file.is_file() and not file.is_symlink() else None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)
        code = distributed.any_process(self._stop.pending())
        if code and not _is_last(trainer):
            self._leave(trainer, code)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The run is complete: nobody needs the one before the last."""
        if trainer.is_global_zero and self.run.is_open:
            (self.run.path / BACKUP).unlink(missing_ok=True)

    def on_step_boundary(self, trainer: Trainer) -> None:
        """Save if it is time to, or if the run shall stop; between two batches, after an optimizer step."""
        due = bool(self.every_steps and trainer.global_step % self.every_steps == 0)
        due |= self.every_minutes is not None and time.monotonic() - self._saved_at >= 60 * self.every_minutes
        found = distributed.any_process(self._stop.pending() or int(due))  # an exit code is larger than 1
        if found:
            self._write_last(trainer, inside=True)
        if found > 1:
            self._leave(trainer, found)

    def _leave(self, trainer: Trainer, code: int) -> None:
        stop = StopRunError(code)
        if stop.reason == "SIGUSR1" and trainer.is_global_zero:
            requeue(trainer)
        raise stop

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals and the folder back."""
        self._stop.unlisten()
        self.run.close()

    def state_dict(self) -> dict[str, Any]:
        """Plain values only; the processes' states follow in `on_save_checkpoint`."""
        return {"last_ckpt": Path(self.last_ckpt).name if self.last_ckpt else None}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the state of every process; plain values and tensors, so that reading it can't run code."""
        states = distributed.gather_plain(capture(trainer, pl_module, self._inside))
        checkpoint["callbacks"][self.state_key]["processes"] = states
        if self._inside:  # the batch at hand, which Lightning counts as fetched, is the resumed run's first one
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            for counts in (progress["total"], progress["current"]):
                counts["ready"] = counts["completed"]
            progress["is_last_batch"] = False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict

    def loaded_state(self, trainer: Trainer) -> dict[str, Any] | None:
        """What the checkpoint that is resumed holds of this process; None for a new run."""
        states: list[dict[str, Any]] = self._loaded.get("processes") or []
        if len(states) == trainer.world_size:
            return states[trainer.global_rank]
        if states:
            lost = "random streams, memories of a process and means of the running epoch start anew"
            held = f"the checkpoint holds the states of {len(states)} processes and this run has {trainer.world_size}"
            rank_zero_warn(f"{held}: {lost}")
        return None


def _not_finite(trainer: Trainer) -> list[str]:
    """Names of weights, buffers and states of the optimizers that hold NaN or infinity."""
    named = dict(trainer.lightning_module.state_dict())
    for place, optimizer in enumerate(trainer.optimizers):
        for number, state in enumerate(optimizer.state.values()):
            named |= {f"optimizer {place}, {key} {number}": value for key, value in state.items()}
    named = {name: x.to_local() if hasattr(x, "to_local") else x for name, x in named.items()}  # FSDP's shares
    floats = {name: x for name, x in named.items() if isinstance(x, Tensor) and x.is_floating_point() and x.numel()}
    if not floats:
        return []
    flags = [x.isfinite().all() for x in floats.values()]
    finite = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()  # one wait for a GPU
    return [name for name, fine in zip(floats, finite, strict=True) if not fine]


def _is_last(trainer: Trainer) -> bool:
    steps_done = 0 < trainer.max_steps <= trainer.global_step
    return bool(trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs or steps_done)


def _same_file(source: Path, target: Path) -> None:
    """A second name for the same bytes where the file system can, a copy where it can't."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
