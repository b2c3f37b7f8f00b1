"""The folder of one run, which one program at a time may use, and finding that of the run that was interrupted."""

import contextlib
import errno
import os
import random
import socket
import string
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig

from solo.args.config import Difference, differences, fill_defaults, may_change, to_plain
from solo.args.fields import get
from solo.args.schema import PretrainCfg
from solo.errors import UserError, explained
from solo.files import clean, parse_json, plain_values

if sys.platform != "win32":
    import fcntl

NAME = ".lock"
_held: dict[Path, int] = {}  # by this process, whose locks don't exclude each other


def acquire(folder: Path) -> None:
    """Take the folder by POSIX's lock (where there is one) until `release`, or until this process ends; twice = once.

    So a dead process holds nothing, and workers inherit nothing. A `UserError` says which process has it, where and
    since when, or that the folder can't be written.
    """
    path = folder.resolve() / NAME
    while sys.platform != "win32" and path not in _held:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"{folder} can't be written: {error.strerror}; choose another folder") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
            os.close(file)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return
            text = f"{folder} is in use by {holder}; wait until it ends, stop it, or start a new run"
            raise UserError(text) from None
        with contextlib.suppress(FileNotFoundError):  # its last holder has just removed it
            if os.path.samestat(os.fstat(file), os.stat(path)):
                os.ftruncate(file, 0)
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}, since {since}".encode())
                _held[path] = file
                return
        os.close(file)


def release(folder: Path) -> None:
    """Give the folder back, if this process has it."""
    path = folder.resolve() / NAME
    file = _held.pop(path, None)
    if file is not None:
        path.unlink(missing_ok=True)
        os.close(file)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """`acquire` a folder for a block; who had it before keeps it."""
    before = folder.resolve() / NAME in _held
    acquire(folder)
    try:
        yield
    finally:
        if not before:
            release(folder)


def random_string(letter_count: int = 4, digit_count: int = 4) -> str:
    """Letters and digits in random order, from the operating system: the run's seed is not touched."""
    source = random.SystemRandom()
    characters = source.choices(string.ascii_lowercase, k=letter_count) + source.choices(string.digits, k=digit_count)
    source.shuffle(characters)
    return "".join(characters)


def defaults_of(section: str) -> Callable[[DictConfig], DictConfig]:
    """A function that writes the defaults of a section into a config and returns it; solo-learn's classes have one."""
    return lambda cfg: fill_defaults(cfg, PretrainCfg, section)


class RunDirectory:
    """`root/<run id>`: all processes agree on it, the first one creates it.

    The id is the one given (a run that is continued), or the logger's version (a W&B run's id), or `offline-` with
    four letters and four digits. It is this program's alone, unless `locked` is false.
    """

    def __init__(self, root: str | Path, run_id: str | None = None, locked: bool = True) -> None:
        self.root = Path(root)
        self.run_id = run_id
        self.locked = locked
        self.wandb_run_id: str | None = None
        self.is_open = False

    @property
    def path(self) -> Path:
        """The folder; known once it was opened."""
        if self.run_id is None:
            raise RuntimeError("the run directory has no id before training starts")
        return self.root / self.run_id

    def open(self, trainer: Trainer) -> Path:
        """Agree on the id, create the folder, take it for this run, return it. Every process has to call this.

        A `UserError`, in all processes: the folder can't be created, or another program is at work in it.
        """
        if self.is_open:
            return self.path
        wandb = next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)
        version = getattr(wandb or trainer.logger, "version", None)
        version = None if version in (None, "") else str(version)
        ids = self.run_id or version or f"offline-{random_string()}", version if wandb is not None else None
        self.run_id, self.wandb_run_id = trainer.strategy.broadcast(ids)
        problem = None
        if trainer.is_global_zero:
            try:
                self.open_alone()
                if self.locked:
                    acquire(self.path)
                clean(self.path)  # what a killed process left half written
            except UserError as error:
                problem = str(error)
        if problem := trainer.strategy.broadcast(problem):
            self.is_open = False
            raise UserError(problem)
        self.is_open = True
        return self.path

    def close(self) -> None:
        """Let go of the folder, so that other programs may use it."""
        if self.is_open:
            release(self.path)

    def open_alone(self) -> Path:
        """`open` for a command of one process that has no trainer."""
        self.run_id = self.run_id or f"offline-{random_string()}"
        with explained(f"the folder {self.path} can't be written", "choose another checkpoint.dir", OSError):
            self.path.mkdir(parents=True, exist_ok=True)
        self.is_open = True
        return self.path


@dataclass
class AutoResumer:
    """Looks for a checkpoint of the same run: same settings, not finished, not older than `max_hours`."""

    checkpoint_dir: str | Path = Path("trained_models")  # of all runs of this kind, `<checkpoint.dir>/<method>`
    max_hours: float = 36  # older checkpoints are not considered
    # for each unfinished run of the same name that the last search didn't take, a line that says why
    passed_over: list[str] = field(default_factory=list, init=False)

    SHOULD_MATCH = [
        *("name", "backbone", "method", "data.dataset", "max_epochs", "optimizer.name", "optimizer.batch_size"),
        *("optimizer.lr", "optimizer.weight_decay", "wandb.project", "wandb.entity", "pretrained_feature_extractor"),
    ]
    # Compared where the candidate's args.json has them; solo-learn's resumer continued the wrong run without.
    ALSO_MATCH = ["method_kwargs", "augmentations", "seed", "scheduler", "momentum", "hex", "optimizer.kwargs"]

    add_and_assert_specific_cfg = staticmethod(defaults_of("auto_resume"))

    def find_checkpoint(self, cfg: Any) -> tuple[Path, str | None] | tuple[None, None]:
        """The newest checkpoint of the run with this config, typed or not, and its W&B run's id, or `(None, None)`."""
        wanted = to_plain(cfg)
        self.passed_over = []
        candidates = []
        for args in Path(self.checkpoint_dir).rglob("args.json"):
            file = _newest_checkpoint(args.parent)
            finished = (_read(args.parent / "summary.json") or {}).get("status") == "finished"
            if file is not None and not finished:
                candidates.append((file.stat().st_mtime, file, args))
        for modified, file, args in sorted(candidates, reverse=True):
            stored, hours = _read(args), (time.time() - modified) / 3600
            if stored is None:
                why = "args.json beside it can't be read"
            elif stored.get("name") != wanted.get("name"):
                continue
            elif other := self._mismatches(wanted, stored):
                why = f"it has other settings ({', '.join(other)})"
            elif hours > self.max_hours:
                old = f"it is {hours:.1f} h old (auto_resume.max_hours={self.max_hours})"
                why = f"{old}; resume_from_checkpoint={file} continues it"
            else:
                return file, stored.get("wandb_run_id")
            self.passed_over.append(f"{file} is not continued: {why}")
        return None, None

    def _mismatches(self, wanted: dict[str, Any], stored: dict[str, Any]) -> list[str]:
        """The settings that make it another run, `key: old -> new`."""
        also = [key for key in self.ALSO_MATCH if get(stored, key) is not None]
        found = []
        for key in [*self.SHOULD_MATCH, *also]:
            old, new = get(stored, key), get(wanted, key)
            if old != new:
                changes = differences({key: old}, {key: new}) or [Difference(key, old, new)]
                found += [str(one) for one in changes if not may_change(one.key, wanted.get("resume_allow") or [])]
        return found


def stored_wandb_id(folder: Path) -> str | None:
    """The id of the W&B run in a run's folder, if it is one."""
    return (_read(folder / "args.json") or {}).get("wandb_run_id")


def _newest_checkpoint(folder: Path) -> Path | None:
    last, files = folder / "last.ckpt", list(folder.glob("*.ckpt"))
    if last in files:  # by its epoch's name where it has one: that is what `Checkpointer.last_ckpt` says
        return next((file for file in files if file != last and file.samefile(last)), last)
    return max(files, key=lambda file: file.stat().st_mtime, default=None)


def _read(file: Path) -> dict[str, Any] | None:
    """None: there is none, it is damaged, or looks up variables."""
    with contextlib.suppress(OSError, ValueError):
        return dict(plain_values(parse_json(file.read_bytes()), mapping=True))
    return None
