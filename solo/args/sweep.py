"""`--multirun`: words with several values become one command line for each combination."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from solo.args.words import MOST_JOBS, read_word
from solo.errors import ConfigError


class Sweep(NamedTuple):
    """What `--multirun` comes to: the overrides of each run, and what a run has for itself, for messages."""

    jobs: list[list[str]]
    differing: list[list[str]]


def expand(words: Sequence[str]) -> Sweep:
    """Read overrides in Hydra's grammar: `a=1,2`, `a=choice(1,2)`, `a=range(0,10,5)`; the last word varies fastest.

    Raises a `ConfigError` for a word that is none, or nothing or too much to sweep.
    """
    read = [read_word(line, sweeps=True) for line in words]
    if hydras := [word.line for word in read if word.key.startswith("hydra")]:
        raise ConfigError(f"command line: {hydras[0]!r} does nothing here: runs go to checkpoint.dir; leave it out")
    sizes = [len(word.choices) for word in read]
    if not any(size > 1 for size in sizes):
        raise ConfigError("--multirun needs a word with several values, such as seed=1,2,3; or leave --multirun out")
    combinations = itertools.product(*(word.choices for word in read))
    jobs = [list(job) for job in itertools.islice(combinations, MOST_JOBS + 1)]
    if len(jobs) > MOST_JOBS:
        raise ConfigError(f"--multirun: these words make more than {MOST_JOBS} runs; give fewer values")
    return Sweep(jobs, [[word for word, size in zip(job, sizes, strict=True) if size > 1] for job in jobs])
