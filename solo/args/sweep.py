"""`--multirun`: words with several values become one command line for each combination; words for the launcher."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from solo.args.check import unknown
from solo.args.words import MOST_JOBS, read_word
from solo.errors import ConfigError

LAUNCHERS = ("basic", "submitit_local", "submitit_slurm")


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

    Raises a `ConfigError`: for a word that is none, a launcher that isn't there, or nothing or too much to sweep.
    """
    launcher, options = "basic", {}
    choices: list[list[str]] = []
    for line in words:
        word = read_word(line, sweeps=True)
        name = word.key
        if name == "hydra/launcher":
            launcher = str(word.value)
            if launcher not in LAUNCHERS:
                raise ConfigError(f"command line: {name}{unknown(launcher, LAUNCHERS)}")
        elif name.startswith("hydra.launcher."):
            options[name.removeprefix("hydra.launcher.")] = word.value
        elif name.startswith("hydra"):
            raise ConfigError(f"command line: {line!r} does nothing here: runs go to checkpoint.dir; leave it out")
        else:
            choices.append(word.choices)
    sizes = [len(values) for values in choices]
    if not any(size > 1 for size in sizes):
        raise ConfigError("--multirun needs a word with several values, such as seed=1,2,3; or leave --multirun out")
    jobs = [list(job) for job in itertools.islice(itertools.product(*choices), MOST_JOBS + 1)]
    if len(jobs) > MOST_JOBS:
        raise ConfigError(f"--multirun: these words make more than {MOST_JOBS} runs; give fewer values")
    if options and launcher == "basic":
        raise ConfigError("command line: hydra.launcher.* is read with hydra/launcher=submitit_local or submitit_slurm")
    differing = [[word for word, size in zip(job, sizes, strict=True) if size > 1] for job in jobs]
    return Sweep(jobs, differing, launcher, options)
