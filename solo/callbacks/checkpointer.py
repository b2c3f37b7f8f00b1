"""Saving a run: `last.ckpt` after every epoch and inside it, and a file of its own for every `frequency` epochs."""

import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig
from torch import Tensor

from solo import distributed
from solo.args.config import fill_defaults, to_plain
from solo.args.schema import PretrainCfg
from solo.callbacks.process_state import GoingOn, capture
from solo.callbacks.run_directory import RunDirectory, random_string
from solo.callbacks.stop import StopRequests, StopRunError, requeue
from solo.errors import NonFiniteError
from solo.files import file_name, replacing, write_text

# The `last.ckpt` before the last one, as long as a run goes on: should the newest be damaged.
BACKUP = "last.ckpt.bak"
_EPOCH = re.compile(r".+-ep=\d+\.ckpt")


@dataclass(eq=False)
class Checkpointer(Callback):
    """Writes `args.json`, `<name>-<run id>-ep=<epoch>.ckpt` and `last.ckpt` into `logdir/<run id>/`.

    A file appears complete or not at all. It holds the state of every process, so that a resumed run continues
    exactly; inside an epoch too, where the order of the images can be continued (solo's own loaders).

    It makes itself the last callback, since it saves what the others have done in the epoch.
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
        """Nothing is opened before training starts."""
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

    @staticmethod
    def add_and_assert_specific_cfg(cfg: DictConfig) -> DictConfig:
        """Write the defaults of the `checkpoint` section into `cfg` and return it."""
        return fill_defaults(cfg, PretrainCfg, "checkpoint")

    def initial_setup(self, trainer: Trainer) -> None:
        """Open the run's folder and name the files."""
        self.path = self.run.open(trainer)
        self.ckpt_placeholder = f"{file_name(str(self.cfg.name))}-{self.run.run_id}-ep={{}}.ckpt"

    def save_args(self, trainer: Trainer) -> None:
        """Write `args.json`: the whole configuration and the id of the W&B run, if it is one."""
        if trainer.is_global_zero:
            args = {**to_plain(self.cfg), "wandb_run_id": self.run.wandb_run_id}
            write_text(self.run.path / "args.json", json.dumps(args, indent=2, default=str) + "\n")

    def save(self, trainer: Trainer) -> None:
        """Write `last.ckpt` and, where the epoch is due, the epoch's own file. Every process has to call this."""
        due = trainer.current_epoch % self.frequency == 0 or _is_last(trainer)
        previous = self.last_ckpt
        self._write_last(trainer)
        if due:
            self.last_ckpt = str(self.run.path / self.ckpt_placeholder.format(trainer.current_epoch))
        if due and self.last_ckpt is not None and trainer.is_global_zero:
            with replacing(Path(self.last_ckpt)) as temporary:
                _same_file(self.run.path / "last.ckpt", temporary)
            if previous and previous != self.last_ckpt and not self.keep_prev:
                Path(previous).unlink(missing_ok=True)

    def save_inside(self, trainer: Trainer) -> None:
        """Write `last.ckpt` between two batches of an epoch. Every process has to call this."""
        self._inside = True
        try:
            self._write_last(trainer)
        finally:
            self._inside = False

    def _write_last(self, trainer: Trainer) -> None:
        last = self.run.path / "last.ckpt"
        found = [name for name in _not_finite(trainer) if name not in self._odd]
        if distributed.any_process(int(bool(found))):  # what is not finite never takes the place of what is
            listed = f"{found[0]} and {len(found) - 1} more" if found[1:] else (found or ["another process's"])[0]
            raise NonFiniteError(
                f"the weights are not finite after step {trainer.global_step} ({listed}) and are not saved: "
                f"{last} stays as it was; try a smaller optimizer.lr or a longer warm-up"
            )
        if trainer.is_global_zero:
            with replacing(last) as temporary:
                trainer.save_checkpoint(temporary)
                if last.is_file():
                    with replacing(last.with_name(BACKUP)) as backup:
                        _same_file(last, backup)
        else:
            trainer.save_checkpoint(last)  # takes part in collecting the state, writes nothing
        self._saved_at = time.monotonic()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the places before and behind all other callbacks."""
        others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
        trainer.callbacks = [GoingOn(self), *others, self]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the folder and write `args.json`."""
        self.initial_setup(trainer)
        self.save_args(trainer)
        self._stop.listen()
        self._saved_at = time.monotonic()
        weights = {name for name, _ in pl_module.named_parameters()}
        self._odd = {name for name in _not_finite(trainer) if name not in weights}
        name = self._loaded.get("last_ckpt")
        # It is removed when the next one is there, so that a checkpoint of somebody else names no other file.
        if isinstance(name, str) and Path(name).name == name and _EPOCH.fullmatch(name):
            file = self.run.path / name
            self.last_ckpt = str(file) if file.is_file() and not file.is_symlink() else None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; stop if asked to, unless this was the last epoch."""
        self.save(trainer)
        code = distributed.any_process(self._stop.pending())
        if code and not _is_last(trainer):
            self._leave(trainer, code)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last checkpoint: the run is complete."""
        if trainer.is_global_zero and self.run.is_open:
            (self.run.path / BACKUP).unlink(missing_ok=True)

    def on_step_boundary(self, trainer: Trainer) -> None:
        """Save if it is time to, or if the run shall stop; between two batches, after an optimizer step."""
        due = bool(self.every_steps and trainer.global_step % self.every_steps == 0)
        if self.every_minutes is not None:
            due |= time.monotonic() - self._saved_at >= 60 * self.every_minutes
        found = distributed.any_process(self._stop.pending() or int(due))  # an exit code is larger than 1
        if found:
            self.save_inside(trainer)
        if found > 1:
            self._leave(trainer, found)

    def _leave(self, trainer: Trainer, code: int) -> None:
        stop = StopRunError(code)
        if stop.reason == "SIGUSR1" and trainer.is_global_zero:
            requeue(trainer)
        raise stop

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals and the folder back."""
        self._stop.unlisten()
        self.run.close()

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
        """Keep the state until training starts."""
        self._loaded = state_dict

    def loaded_state(self, trainer: Trainer) -> dict[str, Any] | None:
        """What the checkpoint that is resumed holds of this process; None for a new run."""
        states = self._loaded.get("processes")
        if states is None:  # of an earlier version
            rng = self._loaded.get("rng")
            return {"rng": rng} if rng and trainer.world_size == 1 else None
        if len(states) == trainer.world_size:
            mine: dict[str, Any] = states[trainer.global_rank]
            return mine
        rank_zero_warn(
            f"the checkpoint holds the states of {len(states)} processes and this run has {trainer.world_size}: "
            "random streams, memories of a process and means of the running epoch start anew"
        )
        return None


def _not_finite(trainer: Trainer) -> list[str]:
    """Names of weights, buffers and states of the optimizers that hold NaN or infinity."""
    named = dict(trainer.lightning_module.state_dict())
    for place, optimizer in enumerate(trainer.optimizers):
        for number, state in enumerate(optimizer.state.values()):
            named |= {f"optimizer {place}, {key} {number}": value for key, value in state.items()}
    named = {name: distributed.own_share(x) for name, x in named.items()}
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
