"""What `solo embed`, `search`, `predict` and `export` share: their words, the files they look at, features of files."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from solo.args.check import check
from solo.args.fields import keys_of
from solo.args.show import help_text
from solo.args.words import read_word
from solo.data.storage.folders import Problems
from solo.errors import BrokenImageError, ConfigError, UserError
from solo.run.pretrained import PretrainedModel

Cfg = TypeVar("Cfg")
_THREADS = 8  # that decode images; Pillow lets go of Python's lock meanwhile


def command(name: str, schema: type[Cfg], run: Callable[[Cfg], object]) -> Callable[[Sequence[str]], int]:
    """What `solo NAME WORDS...` calls: it reads the words into the settings, and runs with them; wrong ones raise."""

    def main(words: Sequence[str]) -> int:
        cfg = read_words(name, schema, words)
        if cfg is not None:
            run(cfg)
        return 0

    return main


def read_words(command: str, schema: type[Cfg], words: Sequence[str]) -> Cfg | None:
    """The settings of a command, or a `ConfigError` with all problems, one a line; None after printing `--help`."""
    known: Any = schema
    if {"-h", "--help"} & set(words):
        places = " ".join(name.upper() for name in known.POSITIONAL)
        about = str(schema.__doc__).strip()
        sys.stdout.write(f"usage: solo {command} {places} [KEY=VALUE ...]\n\n{about}\n\n{help_text(schema)}\n")
        return None
    keys = keys_of(schema)
    values: dict[str, Any] = {}
    free = [name for name in known.POSITIONAL if not any(word.startswith(f"{name}=") for word in words)]
    for word in words:
        if word.split("=", 1)[0].lstrip("+") in keys and "=" in word or not free:
            found = read_word(word, schema)
            if values.get(found.key, found.value) != found.value:
                raise ConfigError(f"{found.key} is given twice, {values[found.key]!r} and {found.value!r}; drop one")
            values[found.key] = found.value
        else:
            values[free.pop(0)] = word
    return settings_of(schema, values)


def settings_of(schema: type[Cfg], values: Mapping[str, Any]) -> Cfg:
    """The settings, or a `ConfigError` with all problems, one a line."""
    checked, problems = check(values, schema)
    if problems:
        raise ConfigError("\n".join(f"{problem.key}{problem.text}" for problem in problems))
    return schema(**{name: checked[name] for name in keys_of(schema)})


class FileFeatures:
    """Runs a model over image files, decoding them in threads while it computes, and shows how far it is.

    `problems` says whether it goes on when an image can't be read, and is told which; `skipped` are its lines.
    """

    def __init__(self, model: PretrainedModel, batch_size: int, problems: Problems) -> None:
        self.model, self.batch_size, self.skip, self.skipped = model, batch_size, problems.skip, problems.found

    def batches(self, files: Sequence[Path], what: str) -> Iterator[tuple[list[Path], Tensor]]:
        """Batches of files that could be read (all of them, without `skip`), and their features (B, F)."""
        screen = Console(file=sys.stderr)
        with ThreadPoolExecutor(_THREADS) as pool, Progress(console=screen, disable=not screen.is_terminal) as bar:
            task = bar.add_task(what, total=len(files))
            waiting = [files[start : start + self.batch_size] for start in range(0, len(files), self.batch_size)]
            ready = [pool.submit(self._decode, file) for file in waiting[0]] if waiting else []
            for index, batch in enumerate(waiting):
                images, following = ready, waiting[index + 1] if index + 1 < len(waiting) else []
                ready = [pool.submit(self._decode, file) for file in following]
                found = [(file, image.result()) for file, image in zip(batch, images, strict=True)]
                kept = [(file, image) for file, image in found if isinstance(image, Tensor)]
                self.skipped += [str(image) for _, image in found if not isinstance(image, Tensor)]
                if kept:
                    yield [file for file, _ in kept], self.model.embed([image for _, image in kept], self.batch_size)
                bar.advance(task, len(batch))

    def all(self, files: Sequence[Path], what: str) -> tuple[list[Path], Tensor]:
        """The same in one piece; a `UserError` if no image can be read."""
        parts = list(self.batches(files, what))
        if not parts:
            raise UserError(f"none of {len(files)} images can be read: {self.skipped[-1]}")
        return [file for names, _ in parts for file in names], torch.cat([features for _, features in parts])

    def _decode(self, file: Path) -> Tensor | str:
        try:
            return self.model.read(file)
        except BrokenImageError as error:
            if not self.skip:
                raise
            return str(error)


def say_skipped(skipped: Sequence[str], say: Callable[[str], None]) -> None:
    """Name what was left out: the first ones, and how many."""
    if skipped:
        shown = "\n".join(f"  {line}" for line in skipped[:5])
        more = f"\n  and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        say(f"{len(skipped)} files or folders were skipped:\n{shown}{more}")
