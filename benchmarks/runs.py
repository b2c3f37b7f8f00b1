"""What the benchmarks share that train: commands in clean processes, runs that are not repeated, paired tables.

Every run is a command that a user would type, `solo pretrain`, `solo linear`, ..., in a process of its own; the
libraries are imported once, for all of them. What is finished in a folder is not run again.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from solo.eval.intervals import paired

ROOT = Path(__file__).parents[1]
# What says that a command has finished, in the folder of its run.
RESULTS = {"pretrain": "summary.json", "linear": "summary.json", "knn": "knn.json", "evaluate": "evaluate.json"}

T = TypeVar("T")
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_PROCESSES = multiprocessing.get_context(_METHOD)
if _METHOD == "forkserver":
    _PROCESSES.set_forkserver_preload([f"solo.run.{command}" for command in RESULTS])


def solo(*words: str, threads: int) -> None:
    """Run a command of the library, quietly; show its output if it fails."""
    with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
        process = _PROCESSES.Process(target=_command, args=(words, threads, log.name))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"solo {' '.join(words)}\n{log.read()}")


def _command(words: Sequence[str], threads: int, log: str) -> None:
    os.chdir(ROOT)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(threads)
    from solo.cli import main

    sys.exit(main(list(words)))


def finished(folder: Path, command: str, words: Sequence[str], threads: int) -> Path:
    """The folder of a finished run of the command below `folder`; runs it where there is none."""
    for attempt in range(2):
        for path in sorted(folder.glob(f"*/{RESULTS[command]}")):
            if read(path).get("status", "finished") == "finished":
                return path.parent
        if attempt == 0:
            solo(command, *words, threads=threads)
    raise SystemExit(f"{command} left no finished run in {folder}")


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def slug(text: str) -> str:
    """A name for a folder."""
    return "".join(c if c.isalnum() else "-" for c in text)


def run_all(run: Callable[..., T], cases: Sequence[tuple[Any, ...]], jobs: int) -> list[T]:
    """`run(*case, threads)` of all cases, some at a time; a failure stops the rest."""
    threads = max(1, (os.cpu_count() or 1) // jobs) if not torch.cuda.is_available() else 4
    with ThreadPoolExecutor(jobs) as pool, Progress(transient=True) as progress:
        bar = progress.add_task("runs", total=len(cases))
        futures = [pool.submit(run, *case, threads) for case in cases]
        for future in futures:
            future.add_done_callback(lambda _: progress.advance(bar))
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def difference(values: Sequence[float], base: Sequence[float], comparisons: int) -> str:
    """Mean of the paired differences, its t interval, and the p value for so many comparisons in all."""
    return str(paired([value - other for value, other in zip(values, base, strict=True)], comparisons))


def of_differences(base: str, comparisons: int) -> str:
    """What `difference` prints, in words."""
    return (
        f"in brackets the paired difference to {base} with its 95 % t interval, and p of no difference, times the "
        f"{comparisons} comparisons of this table (Bonferroni)"
    )


def show(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> None:
    """Print a table."""
    table = Table(*header, title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=width).print(table)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """The single results."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def check_settings(path: Path, settings: Sequence[str]) -> None:
    """Results of another budget must not be mixed in."""
    if path.is_file() and read(path) != list(settings):
        raise SystemExit(f"{path.parent} holds runs with {read(path)}, asked for are {settings}; give another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(settings)))
