"""A run that is continued trains on the data that it was started with."""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from solo.args.differences import may_change
from solo.callbacks.run_directory import RunDirectory
from solo.data.batches.fingerprint import Fingerprint, fingerprint
from solo.errors import UserError
from solo.files import replacing
from solo.run.report import say

_KEY, _LIST, _MOST = "training_data", "training_data.txt.gz", 200_000


class SameData(Callback):
    """Keeps a fingerprint of the training images in the checkpoint, a list of the files beside it, and compares.

    `data.train_path` in `allowed`, which is `resume_allow`, lets the images be others.
    """

    def __init__(self, run: RunDirectory, resumed: Path | None, allowed: Sequence[str]) -> None:
        self.run = run
        self.resumed = resumed
        self.allowed = may_change("data.train_path", allowed)
        self.found: Fingerprint | None = None

    def look_at(self, images: Any) -> None:
        """Take the fingerprint of a loader's data set."""
        self.found = fingerprint(images)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Mapping[str, Any]) -> None:
        """Refuse other images or labels than those of the run, with a list of what changed."""
        stored = checkpoint.get(_KEY)
        if self.found is None or not isinstance(stored, Mapping) or stored.get("digest") == self.found.digest:
            return
        what = self.found.changes(dict(stored.get("classes") or {}), _read(self.resumed))
        if not self.allowed:
            raise UserError(
                f"the training data are not those that the run was started with: {what}; bring them back, allow it "
                "with 'resume_allow=[data.train_path]', or start a new run"
            )
        say(f"resumed with other training data: {what}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the fingerprint of the data to the checkpoint."""
        if self.found is not None:
            checkpoint[_KEY] = self.found.plain()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the list, where it isn't too long."""
        if self.found is not None and trainer.is_global_zero and 0 < len(self.found.lines) <= _MOST:
            with replacing(self.run.path / _LIST) as temporary:
                text = "\n".join(self.found.lines).encode(errors="surrogateescape")
                temporary.write_bytes(gzip.compress(text, 1, mtime=0))


def _read(folder: Path | None) -> list[str]:
    try:
        with gzip.open((folder or Path()) / _LIST) as stream:
            return stream.read(2**28).decode(errors="surrogateescape").split("\n")
    except (OSError, EOFError, ValueError, zlib.error):
        return []
