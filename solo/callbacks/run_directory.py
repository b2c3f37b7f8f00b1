"""The folder of one run."""

import random
import string
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger

from solo.callbacks import run_lock
from solo.errors import UserError
from solo.files import clean


def random_string(letter_count: int = 4, digit_count: int = 4) -> str:
    """Letters and digits in random order, from the operating system: the run's seed is not touched."""
    source = random.SystemRandom()
    characters = source.choices(string.ascii_lowercase, k=letter_count) + source.choices(string.digits, k=digit_count)
    source.shuffle(characters)
    return "".join(characters)


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

        What a killed process left half written is removed.

        Raises:
            UserError: the folder can't be created, or another program is at work in it; in all processes.
        """
        if self.is_open:
            return self.path
        wandb = next((logger for logger in trainer.loggers if isinstance(logger, WandbLogger)), None)
        logger = wandb or trainer.logger
        version = None if logger is None or logger.version in (None, "") else str(logger.version)
        run_id = self.run_id or version or f"offline-{random_string()}"
        self.run_id = trainer.strategy.broadcast(run_id)
        self.wandb_run_id = trainer.strategy.broadcast(version if wandb is not None else None)
        problem = None
        if trainer.is_global_zero:
            try:
                self.open_alone()
                if self.locked:
                    run_lock.acquire(self.path)
                clean(self.path)
            except UserError as error:
                problem = str(error)
        problem = trainer.strategy.broadcast(problem)
        self.is_open = problem is None
        if problem is not None:
            raise UserError(problem)
        return self.path

    def close(self) -> None:
        """Let go of the folder, so that other programs may use it."""
        if self.is_open:
            run_lock.release(self.path)

    def open_alone(self) -> Path:
        """`open` for a command of one process that has no trainer."""
        self.run_id = self.run_id or f"offline-{random_string()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the folder {self.path} can't be written ({error.strerror}); choose another checkpoint.dir"
            ) from error
        self.is_open = True
        return self.path
