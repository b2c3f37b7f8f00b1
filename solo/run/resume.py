"""Going on with an interrupted run: which checkpoint, whether it can be read, is of the same run and the same data."""

import contextlib
import gzip
import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from solo.args.config import NOT_SET, differences, may_change, never_matters, to_plain, unknown_names
from solo.args.schema import RunCfg
from solo.callbacks.checkpointer import BACKUP
from solo.callbacks.run_directory import AutoResumer, RunDirectory, stored_wandb_id
from solo.checkpoint import checkpoint_file, load_checkpoint, misfit, saved_settings
from solo.data.batches.loaders import BatchLoader, SeededDataset
from solo.data.cache import pixels_in_memory
from solo.data.labels.subsets import Indexed, level_targets
from solo.data.sources.images import image_sources
from solo.errors import ConfigError, UserError
from solo.files import replacing
from solo.run.report import say

_MOST = 2**40  # steps or epochs that nobody trains


class ResumeOrder(Callback):
    """Tells the sampler where a run goes on: with workers, Lightning asks for batches before it says so."""

    loader: DataLoader[Any] | BatchLoader
    _saved: Mapping[str, Any] | None = None  # the checkpoint, until the optimizers are there

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Whether the optimizers' and schedulers' states are of this run's: PyTorch takes what it is given."""
        saved, self._saved = self._saved, None
        if saved is not None and (found := _of_other_optimizers(trainer, saved)):
            what = f"the checkpoint's state of the optimizer or scheduler is not of this run: {found}"
            raise UserError(f"{what}; start a new run from its weights with finetune_from")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Mapping[str, Any]) -> None:
        """The resumed run starts with the batch after the last one that is done."""
        self._saved = checkpoint
        sampler: Any = self.loader.sampler
        if hasattr(sampler, "start_at"):
            loops = checkpoint["loops"]["fit_loop"]
            epochs = loops["epoch_progress"]["current"]
            batches = loops["epoch_loop.batch_progress"]["current"]["completed"]
            inside = epochs["started"] > epochs["processed"]
            samples = batches * (self.loader.batch_size or sampler.batch_size) * trainer.world_size
            sampler.start_at(epochs["processed"], samples if inside else 0)


def find_resume(cfg: RunCfg, root: Path) -> tuple[Path | None, str | None, Mapping[str, Any] | None]:
    """The checkpoint to continue, named or found below `root`, its W&B run's id and settings; or a `UserError`."""
    found = None
    if cfg.resume_from_checkpoint:
        named = Path(cfg.resume_from_checkpoint).expanduser()
        wanted = checkpoint_file(named)
        found = _readable(wanted, others=named.is_dir() or wanted.name == "last.ckpt")
    elif cfg.auto_resume.enabled or os.environ.get("SLURM_RESTART_COUNT", "0") != "0":  # it is back from SLURM's queue
        resumer = AutoResumer(root, max_hours=cfg.auto_resume.max_hours)
        newest, _ = resumer.find_checkpoint(cfg)
        found = None if newest is None else _readable(newest, others=True)
        for line in [f"continuing {found[0]}"] if found else resumer.passed_over:
            say(f"auto_resume: {line}")
    if found is None:
        return None, None, None
    file, checkpoint = found
    stored = saved_settings(checkpoint, file)["cfg"]
    _check_settings(cfg, stored, file)
    _check_progress(checkpoint, file)
    return file, stored_wandb_id(file.parent), stored


def _readable(file: Path, others: bool) -> tuple[Path, dict[str, Any]]:
    """The file, or with `others` the newest one beside it that is not damaged, and what it holds."""
    found = [*file.parent.glob("*.ckpt"), *file.parent.glob(BACKUP)] if others else []
    beside = [other for other in found if not other.samefile(file)]
    beside.sort(key=lambda other: other.stat().st_mtime, reverse=True)
    errors = []
    for candidate in [file, *beside]:
        try:
            checkpoint = load_checkpoint(candidate)
        except UserError as error:
            errors.append(error)
            continue
        if errors:
            say(f"{errors[0]}; going on with {candidate.name}, the one before")
        return candidate, checkpoint
    raise errors[0]


def _of_other_optimizers(trainer: Trainer, checkpoint: Mapping[str, Any]) -> str | None:
    """What in the checkpoint's state of optimizers and schedulers can't be of this run's."""
    saved, own = checkpoint["optimizer_states"], trainer.optimizers
    if len(saved) != len(own):
        return f"it has {len(saved)} optimizers for {len(own)}"
    for state, optimizer in zip(saved, own, strict=True):
        groups = optimizer.state_dict()["param_groups"]
        if found := misfit(state["param_groups"], groups, "param_groups"):
            return found
        if any(not {"lr", "params"} <= group.keys() for group in state["param_groups"]):
            return "param_groups have no lr or no params"
        parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
        for number, values in state["state"].items():
            if number not in parameters or not isinstance(values, Mapping):
                return f"state.{number} is of no parameter"
            for name, value in values.items():  # a counter of steps, or something of each weight
                plain = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
                like = 0.0 if isinstance(plain, (int, float)) else parameters[number]
                if plain is not None and (found := misfit(plain, like, f"state.{number}.{name}")):
                    return found
    schedulers = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    had_none = False
    with contextlib.suppress(LookupError, TypeError):
        had_none = checkpoint["solo"]["cfg"]["scheduler"]["name"] == "none"
    if not schedulers or (had_none and not checkpoint["lr_schedulers"]):
        return None  # resume_allow has the key
    return misfit(checkpoint["lr_schedulers"], schedulers, "lr_schedulers")


def _check_progress(checkpoint: Mapping[str, Any], file: Path) -> None:
    """Where the run was, as far as Lightning and the callbacks take it for granted; what fits where, they find out."""

    def counters(state: Any) -> Iterator[Any]:
        for name, value in state.items() if isinstance(state, Mapping) else ():
            yield from [value] if name in ("ready", "started", "processed", "completed") else counters(value)

    try:
        loops, optimizers = checkpoint["loops"]["fit_loop"], checkpoint["optimizer_states"]
        epochs = loops["epoch_progress"]["current"]
        batches = loops["epoch_loop.batch_progress"]["current"]
        counts = [epochs["started"], epochs["processed"], batches["completed"], *counters(loops)]
        counts += [checkpoint["epoch"], checkpoint["global_step"]]
        counts += [scheduler["last_epoch"] for scheduler in checkpoint["lr_schedulers"]]
        sound = isinstance(checkpoint["pytorch-lightning_version"], str)
        sound &= all(type(count) is int and 0 <= count < _MOST for count in counts)
        sound &= all(isinstance(part, dict) for part in [*checkpoint.get("callbacks", {}).values(), *optimizers])
        # Without any, the run would go on with an optimizer that knows of nothing.
        sound &= bool(optimizers) and all({"state", "param_groups"} <= part.keys() for part in optimizers)
    except (LookupError, TypeError, AttributeError):
        sound = False
    if not sound:
        what = "doesn't say where its run was, or holds something else in that place, so nothing can go on from it"
        raise UserError(f"{file} {what}; start a new run from its weights with finetune_from={file}")


def _check_settings(cfg: RunCfg, stored: Mapping[str, Any], file: Path) -> None:
    current = to_plain(cfg)
    if current.get("precision") == "auto":  # it goes on with what was decided
        current["precision"] = stored.get("precision", NOT_SET)
    allowed = list(cfg.resume_allow)
    if misspelt := unknown_names(allowed, stored, current):
        names = ", ".join(misspelt)
        raise ConfigError(f"resume_allow has {names}, which is no setting; give keys as --cfg resolved prints them")
    if not stored:
        return
    changes = list(differences(stored, current))
    if refused := [change for change in changes if not may_change(change.key, [*allowed, *never_matters()])]:
        listed = "".join(f"\n  {change}" for change in refused)
        keys = ",".join(change.key for change in refused)
        cure = f"take them back, allow them with 'resume_allow=[{keys}]', or start a new run"
        raise UserError(f"{file} is of a run with other settings:{listed}\n{cure}")
    for change in changes:
        if may_change(change.key, allowed):
            say(f"resumed with {change}")


_KEY, _LIST, _LONGEST = "training_data", "training_data.txt.gz", 200_000  # lines of a list that is kept


class SameData(Callback):
    """Keeps a fingerprint of the training images in the checkpoint, a list of files beside it, and compares."""

    def __init__(self, run: RunDirectory, resumed: Path | None, allowed: Sequence[str]) -> None:
        self.run, self.resumed, self.allowed = run, resumed, may_change("data.train_path", allowed)
        self.found: Fingerprint | None = None  # of the images, once there is a loader of them

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Mapping[str, Any]) -> None:
        """Refuse other images or labels than those of the run, with a list of what changed."""
        stored = checkpoint.get(_KEY)
        if self.found is None or not isinstance(stored, Mapping) or stored.get("digest") == self.found.digest:
            return
        lines: list[str] = []
        with contextlib.suppress(OSError, EOFError, ValueError, zlib.error):
            with gzip.open((self.resumed or Path()) / _LIST) as stream:
                lines = stream.read(2**28).decode(errors="surrogateescape").split("\n")
        what = self.found.changes(dict(stored.get("classes") or {}), lines)
        if not self.allowed:
            cure = "bring them back, allow it with 'resume_allow=[data.train_path]', or start a new run"
            raise UserError(f"the training data are not those that the run was started with: {what}; {cure}")
        say(f"resumed with other training data: {what}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.found is not None:
            checkpoint[_KEY] = {"digest": self.found.digest, "classes": self.found.classes}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the list, where it isn't too long."""
        if self.found is not None and trainer.is_global_zero and 0 < len(self.found.lines) <= _LONGEST:
            with replacing(self.run.path / _LIST) as temporary:
                text = "\n".join(self.found.lines).encode(errors="surrogateescape")
                temporary.write_bytes(gzip.compress(text, 1, mtime=0))


@dataclass(frozen=True)
class Fingerprint:
    """Images and labels of a data set in a few bytes, wherever its folder lies."""

    digest: str  # changes with any name, label, or pixel in memory, and with the size of a file
    classes: dict[str, int]  # its number -> images
    lines: tuple[str, ...]  # for images in files, `class <tab> name <tab> size` of each, sorted; else empty

    def changes(self, classes: dict[str, int], lines: Sequence[str]) -> str:
        """In words, what is other than it was: the classes then, and the lines, empty where nobody knows."""
        found = []
        for name in {**classes, **self.classes}:
            if (now := self.classes.get(name, 0)) != (then := classes.get(name, 0)):
                found.append(f"class {name} has {now} images instead of {then}")
        old, new = (dict(line.rpartition("\t")[::2] for line in side) for side in (lines, self.lines))
        changed = {name for name in new.keys() & old.keys() if new[name] != old[name]}
        kinds = {"added": new.keys() - old.keys(), "removed": old.keys() - new.keys(), "changed": changed}
        for what, names in kinds.items():
            if old and names:
                shown = ", ".join(name.partition("\t")[2] for name in sorted(names)[:5])
                found.append(f"{len(names)} files {what} ({shown}{', ...' if len(names) > 5 else ''})")
        return "; ".join(found) or "other images or labels"


def fingerprint(images: Any) -> Fingerprint | None:
    """Of a loader's data set, or the decoded images of one; None where nothing is known of it."""
    while isinstance(images, (SeededDataset, Indexed)):
        images = images.dataset
    known = getattr(images, "targets", None)
    if known is None:
        return None
    labels = known if isinstance(known, Tensor) else level_targets(images)
    called = [str(leaf) for leaf in labels.reshape(len(labels), -1)[:, -1].tolist()]
    rows, inner = np.arange(len(called)), images
    while inner is not None and not isinstance(inner, str):  # a folder knows the name of its data set
        images = inner
        rows = np.asarray(images.indices)[rows] if hasattr(images, "indices") else rows
        inner = getattr(images, "dataset", None)
    text = hashlib.sha256(labels.numpy().tobytes())
    lines: tuple[str, ...] = ()
    array = pixels_in_memory(images)
    if array is not None:
        text.update(np.ascontiguousarray(array[rows]).data)
    else:
        files = getattr(images, "files", None) or image_sources(images) or ()
        files = [files[row] for row in rows] if len(files) > len(rows) else files
        lines = tuple(sorted(f"{name}\t{line}" for name, line in zip(called, _described(files), strict=False)))
        text.update("\n".join(lines).encode(errors="surrogateescape"))
    return Fingerprint(text.hexdigest()[:32], dict(sorted(Counter(called).items())), lines)


_LOOK_AT = 20_000  # sizes of files that are asked for, evenly spread: on a network each may take a millisecond


def _described(files: Sequence[Any]) -> Iterator[str]:
    """`name <tab> size`; names are relative to the folder that all have in common."""
    paths = [file if isinstance(file, str) else str(file.container or "") for file in files]
    paths = [os.path.abspath(path) if path else "" for path in paths]  # a table may have both kinds
    folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if all(paths) and paths else ""
    size, every = lru_cache(maxsize=4096)(_size), max(1, len(files) // _LOOK_AT)
    for place, (file, path) in enumerate(zip(files, paths, strict=True)):
        part = "" if isinstance(file, str) else f" {file.part}"
        relative = os.path.relpath(path, folder) if folder else os.path.basename(path)
        yield f"{relative}{part}\t{size(path) if path and place % every == 0 else ''}"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
