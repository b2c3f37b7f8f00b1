"""`--multirun`: words with several values become one command line for each combination; words for the launcher."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from solo.args.check import unknown
from solo.args.parse import one_line
from solo.errors import ConfigError

LAUNCHERS = ("basic", "submitit_local", "submitit_slurm")
_MOST = 1000  # jobs; more are a slip


@dataclass(frozen=True)
class Sweep:
    """What `--multirun` comes to.

    Attributes:
        jobs: the overrides of each run.
        differing: what a job has for itself, for messages.
        launcher: one of `LAUNCHERS`.
        options: `hydra.launcher.*`, by their last name.
    """

    jobs: list[list[str]]
    differing: list[list[str]]
    launcher: str = "basic"
    options: dict[str, Any] = field(default_factory=dict)


def expand(words: Sequence[str]) -> Sweep:
    """Read overrides in Hydra's grammar: `a=1,2`, `a=choice(1,2)`, `a=range(0,10,5)`; the last word varies fastest.

    Raises:
        ConfigError: for a word that is none, a launcher that isn't there, or nothing or too much to sweep.
    """
    launcher, options = "basic", {}
    choices: list[list[str]] = []
    for word in words:
        override = _parse(word)
        name = override.key_or_group
        if name == "hydra/launcher":
            launcher = str(override.value())
            if launcher not in LAUNCHERS:
                raise ConfigError(f"command line: {name}{unknown(launcher, LAUNCHERS)}")
        elif name.startswith("hydra.launcher."):
            options[name.removeprefix("hydra.launcher.")] = override.value()
        elif name.startswith("hydra"):
            raise ConfigError(f"command line: {word!r} does nothing here: runs go to checkpoint.dir; leave it out")
        else:
            choices.append(_values(word, override))
    sizes = [len(values) for values in choices]
    if not any(size > 1 for size in sizes):
        raise ConfigError("--multirun needs a word with several values, such as seed=1,2,3; or leave --multirun out")
    jobs = [list(job) for job in itertools.islice(itertools.product(*choices), _MOST + 1)]
    if len(jobs) > _MOST:
        raise ConfigError(f"--multirun: these words make more than {_MOST} runs; give fewer values")
    if options and launcher == "basic":
        raise ConfigError("command line: hydra.launcher.* is read with hydra/launcher=submitit_local or submitit_slurm")
    differing = [[word for word, size in zip(job, sizes, strict=True) if size > 1] for job in jobs]
    return Sweep(jobs, differing, launcher, options)


def _parse(word: str) -> Override:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(f"command line: {word!r} is not key=value: {one_line(error)}") from error


def _values(word: str, override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [word]
    if not override.is_discrete_sweep() or override.is_choice_sweep() and _has_glob(word):
        raise ConfigError(f"command line: {word!r} can't be listed; give the values, as in key=1,2,3")
    try:
        key = word.split("=", 1)[0]
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    except HydraException as error:
        raise ConfigError(f"command line: {word!r}: {one_line(error)}") from error


def _has_glob(word: str) -> bool:
    return "glob(" in word
