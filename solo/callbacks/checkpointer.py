"""Saving weights: every `frequency` epochs, the last epoch, and always `last.ckpt`."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf

from solo.callbacks.run_directory import RunDirectory, random_string
from solo.files import replacing, write_text


class Checkpointer(Callback):
    """Writes `args.json`, `<name>-<run id>-ep=<epoch>.ckpt` and `last.ckpt` into `logdir/<run id>/`.

    A file appears complete or not at all. The random generators' states are saved too, so that a resumed run on one
    process continues exactly.

    Args:
        cfg: the run's configuration, written to `args.json` as it is.
        logdir: the folder of all runs of this kind, `<checkpoint.dir>/<method>`.
        frequency: the epochs divisible by it are kept under their own name.
        keep_prev: keep the earlier epochs' files.
        run: the run's folder, where other callbacks write there too.
    """

    def __init__(
        self,
        cfg: DictConfig,
        logdir: str | Path = Path("trained_models"),
        frequency: int = 1,
        keep_prev: bool = False,
        run: RunDirectory | None = None,
    ) -> None:
        self.cfg = cfg
        self.run = run or RunDirectory(logdir)
        self.logdir = self.run.root
        self.frequency = frequency
        self.keep_prev = keep_prev
        self.path: Path | None = None
        self.ckpt_placeholder = ""
        self.last_ckpt: str | None = None
        self._loaded: dict[str, Any] = {}

    random_string = staticmethod(random_string)

    @staticmethod
    def add_and_assert_specific_cfg(cfg: DictConfig) -> DictConfig:
        """Write the defaults of the `checkpoint` section into `cfg` and return it."""
        defaults = {"enabled": False, "dir": "trained_models", "frequency": 1, "keep_prev": False}
        for key, value in defaults.items():
            if OmegaConf.select(cfg, f"checkpoint.{key}") is None:
                OmegaConf.update(cfg, f"checkpoint.{key}", value, force_add=True)
        return cfg

    def initial_setup(self, trainer: Trainer) -> None:
        """Open the run's folder and name the files."""
        self.path = self.run.open(trainer)
        self.ckpt_placeholder = f"{self.cfg.name}-{self.run.run_id}-ep={{}}.ckpt"

    def save_args(self, trainer: Trainer) -> None:
        """Write `args.json`: the whole configuration and the id of the W&B run, if it is one."""
        if trainer.is_global_zero:
            args = {**plain_cfg(self.cfg), "wandb_run_id": self.run.wandb_run_id}
            write_text(self.run.path / "args.json", json.dumps(args, indent=2, default=str) + "\n")

    def save(self, trainer: Trainer) -> None:
        """Write `last.ckpt` and, where the epoch is due, the epoch's own file. Every process has to call this."""
        due = trainer.current_epoch % self.frequency == 0 or _is_last(trainer)
        previous = self.last_ckpt
        if due:
            self.last_ckpt = str(self.run.path / self.ckpt_placeholder.format(trainer.current_epoch))
        last = self.run.path / "last.ckpt"
        if not trainer.is_global_zero:
            trainer.save_checkpoint(last)  # takes part in collecting the state, writes nothing
            return
        with replacing(last) as temporary:
            trainer.save_checkpoint(temporary)
        if due and self.last_ckpt is not None:
            with replacing(Path(self.last_ckpt)) as temporary:
                _same_file(last, temporary)
            if previous and previous != self.last_ckpt and not self.keep_prev:
                Path(previous).unlink(missing_ok=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the folder and write `args.json`."""
        self.initial_setup(trainer)
        self.save_args(trainer)
        name = self._loaded.get("last_ckpt")
        if name and (self.run.path / name).is_file():
            self.last_ckpt = str(self.run.path / name)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        self.save(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue the random streams of the run that is resumed, before anything draws from them."""
        if "rng" in self._loaded and trainer.world_size == 1:
            _set_rng_state(self._loaded["rng"])

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors only, so that the checkpoint can be read without running code."""
        return {"rng": _rng_state(), "last_ckpt": Path(self.last_ckpt).name if self.last_ckpt else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts."""
        self._loaded = state_dict


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


def plain_cfg(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as dictionaries, lists, texts and numbers."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _rng_state() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(words), gauss],
        "numpy": [np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }


def _set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))
