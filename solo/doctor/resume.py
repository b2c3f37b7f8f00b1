"""Resume: a run that is killed inside an epoch and goes on is the uninterrupted one, bit for bit.

Two epochs of four steps on tiny images, with the pipeline, the sampler and the callbacks of a real run. The process is
"killed" in the second epoch: an exception that nobody can save after, so that only what is on the disk goes on.
"""

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from solo import distributed
from solo.args.data_schema import AugmentationCfg
from solo.args.fields import check
from solo.callbacks import Checkpointer, Meter
from solo.checkpoint import load_checkpoint
from solo.data.batches.loaders import BatchLoader
from solo.data.cache import ArrayImages
from solo.data.views.batched import BatchAugment
from solo.doctor.parity import on_processes
from solo.doctor.toy import SIDE, Case, Outcome, ToyImages, failure, quietly, toy_cfg, toy_trainer
from solo.methods import METHODS
from solo.rng import rng_state, set_rng_state
from solo.run.resume import ResumeOrder

BATCH, STEPS, EPOCHS, KILLED_AT = 8, 4, 2, 6


class _KilledError(BaseException):
    """Stands for SIGKILL: no callback saves anything because of it."""


class _Kill(Callback):
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step == KILLED_AT:
            raise _KilledError


def resume(case: Case, processes: int = 1) -> Outcome:
    """Whether a killed run of `case` goes on exactly, in one process or several with batches of their own.

    Compared are weights and buffers, optimizer, schedule, random streams, the epoch's means and the steps' number.
    """
    with tempfile.TemporaryDirectory() as folder:
        argument = (case.method, case.type, folder)
        try:
            places = _places(argument) if processes == 1 else on_processes(_places, processes, argument)[0]
        except Exception as error:
            return failure(error)
    steps = EPOCHS * STEPS
    if not places:
        return Outcome(True, f"{KILLED_AT} steps, killed, resumed: identical to {steps} steps")
    shown = ", ".join(place.lstrip(".") for place in places[:3])
    return Outcome(False, f"{KILLED_AT} steps, killed, resumed: differs from {steps} steps in {len(places)} ({shown})")


def _places(argument: tuple[str, str, str]) -> list[str]:
    """Where the two runs differ; in each of the processes."""
    method, kind, folder = argument
    case, before = Case(method, kind), rng_state()
    try:
        with quietly():
            whole = _train(case, Path(folder) / "whole", seed=1)
            killed = _train(case, Path(folder) / "killed", seed=1, kill=True)
            distributed.any_process(0)  # all wait for the file
            resumed = _train(case, Path(folder) / "killed", seed=2, ckpt_path=killed)
            distributed.any_process(0)
            return differing(_result(whole), _result(resumed))
    finally:
        set_rng_state(before)


def differing(a: Any, b: Any, where: str = "") -> list[str]:
    """Places in which two nests of mappings, lists, tensors and values differ in any bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.shape == b.shape and torch.equal(a.nan_to_num(nan=1e30), b.nan_to_num(nan=1e30))
        return [] if same else [where]
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        return [place for key in a for place in differing(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [place for index, (x, y) in pairs for place in differing(x, y, f"{where}[{index}]")]
    return [] if type(a) is type(b) and (a == b or (a != a and b != b)) else [where]


def _train(case: Case, root: Path, seed: int, kill: bool = False, ckpt_path: Path | None = None) -> Path:
    """Train, or go on with `ckpt_path`; the path of `last.ckpt`."""
    torch.manual_seed(seed)
    schedule = {"name": "warmup_cosine", "warmup_epochs": 0.5}
    cfg = toy_cfg(case, BATCH, max_epochs=EPOCHS, optimizer__name="adamw", scheduler=schedule, name="toy")
    order = ResumeOrder()
    jitter = {"prob": 0.8, "brightness": 0.4, "contrast": 0.4}
    views = {"num_crops": 2, "crop_size": SIDE, "color_jitter": jitter, "gaussian_blur": {"prob": 0.5}}
    augment = BatchAugment([check(views, AugmentationCfg)[0]], [0.5], [0.25])
    count = (BATCH * STEPS + 3) * distributed.world_size()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, SIDE, SIDE), generator=generator, dtype=torch.uint8).numpy()
    images = ArrayImages(pixels, np.arange(count), torch.arange(count) % 10, convert=nn.Identity())
    order.loader = BatchLoader(images, augment, BATCH, seed=3)
    saver = Checkpointer(cfg, root, every_steps=1)
    callbacks = [order, Meter(), saver, *([_Kill()] if kill else [])]
    trainer = toy_trainer(max_epochs=EPOCHS, callbacks=callbacks)
    val: DataLoader[Any] = DataLoader(ToyImages(BATCH, views=0, dtype=torch.float32), BATCH)
    with contextlib.suppress(_KilledError):
        trainer.fit(METHODS[case.method](cfg), order.loader, val, ckpt_path=ckpt_path)
    return saver.run.path / "last.ckpt"


def _result(file: Path) -> dict[str, Any]:
    """All of a checkpoint that is a function of settings and seed."""
    state = load_checkpoint(file)
    processes = state["callbacks"]["Checkpointer"]["processes"]
    weights = {key: state[key] for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers")}
    keys = ("rng", "buffers", "metrics", "logged")
    own = [{key: process[key] for key in keys} for process in processes]
    weights["logged steps"] = state["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
    return weights | {"process": own, "loss": [process["owners"]["Meter"]["loss"] for process in processes]}
