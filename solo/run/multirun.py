"""`--multirun`: each run is a program of its own, one after the other here, or as jobs of submitit.

A run that fails doesn't stop the others. Only this process starts jobs; each of them starts its own processes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from solo.args.sweep import Sweep
from solo.errors import UserError
from solo.run.report import grid, say

_FOLDER = "submitit"
# Options of submitit that are the same everywhere; the others are SLURM's.
_COMMON = (
    *("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task"),
    *("gpus_per_node", "tasks_per_node", "stderr_to_stdout"),
)


class Job:
    """One run, as submitit calls it: the words behind `solo`."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)

    def __call__(self) -> int:
        """The exit code of the run."""
        return subprocess.call([sys.executable, "-m", "solo", *self.words])

    def checkpoint(self) -> Any:
        """What submitit puts into the queue when the time is over: the same run, which goes on where it was."""
        from submitit.helpers import DelayedSubmission

        goes_on = [word for word in self.words if not word.startswith("auto_resume.enabled=")]
        return DelayedSubmission(Job([*goes_on, "auto_resume.enabled=True"]))


def multirun(command: str, recipe: Sequence[str], sweep: Sweep) -> int:
    """Start all runs of a sweep and wait for them; 0 if all left with 0, else 1.

    Raises a `UserError`: submitit isn't installed, or refuses its options.
    """
    jobs = [Job([command, *recipe, *words]) for words in sweep.jobs]
    codes = _one_by_one(jobs, sweep) if sweep.launcher == "basic" else _submitted(jobs, sweep)
    rows = enumerate(zip(sweep.differing, codes, strict=True), start=1)
    table = grid(
        "runs", ("run", "with", "exit code"), ((str(n), Text(" ".join(words)), str(c)) for n, (words, c) in rows)
    )
    Console(highlight=False).print(table)
    return 0 if all(code == 0 for code in codes) else 1


def _one_by_one(jobs: Sequence[Job], sweep: Sweep) -> list[int]:
    codes = []
    for number, (job, words) in enumerate(zip(jobs, sweep.differing, strict=True), start=1):
        say(f"\nrun {number} of {len(jobs)}: {' '.join(words)}")
        sys.stdout.flush()
        codes.append(job())
    return codes


def _submitted(jobs: Sequence[Job], sweep: Sweep) -> list[int]:
    """Exit codes of the jobs; -1 for one that left none (killed, or cancelled)."""
    try:
        import submitit
    except ImportError as error:
        advice = "pip install 'solo-hex[submitit]', or leave hydra/launcher out"
        raise UserError(f"hydra/launcher={sweep.launcher} needs submitit: {advice}") from error
    options = dict(sweep.options)
    folder = Path(str(options.pop("submitit_folder", _FOLDER))).expanduser()
    cluster = sweep.launcher.removeprefix("submitit_")
    if cluster == "local" and options.get("tasks_per_node", 1) != 1:
        raise UserError("hydra.launcher.tasks_per_node is for SLURM; on this machine devices=N starts N processes")
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**{launcher_option(name, cluster): value for name, value in options.items()})
        with executor.batch():
            started = [executor.submit(job) for job in jobs]
    except (RuntimeError, NameError, TypeError, AssertionError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"submitit refuses hydra/launcher={sweep.launcher} with {options}: {reason}") from error
    for job, words in zip(started, sweep.differing, strict=True):
        say(f"job {job.job_id}: {' '.join(words)} (its output: {job.paths.stdout})")
    codes = []
    for job in started:
        try:
            codes.append(int(job.result()))
        except Exception as error:  # whatever ended it; the others go on
            say(
                f"job {job.job_id} left no result: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            )
            codes.append(-1)
    return codes


def launcher_option(name: str, cluster: str) -> str:
    """What submitit calls an option of `hydra.launcher` on a cluster: SLURM's own get their prefix."""
    known = name in _COMMON or name.startswith("slurm_") or cluster == "local"
    return name if known else f"slurm_{name}"
