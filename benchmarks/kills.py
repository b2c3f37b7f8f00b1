"""A run that is killed again and again, and resumed each time by the user's command, against one that isn't.

    python benchmarks/kills.py [--kills 50] [--epochs 40] [--seed 0] [--fork] [--folder FOLDER]

Pretrains on scikit-learn's digits with a checkpoint after every step. SIGKILL comes at a random moment: in a third of
the cases while a checkpoint is being written, else anywhere, the start of the program included. Before each resume all
checkpoints are read. In the end weights, optimizer, random streams and metrics must be those of the uninterrupted run.
With `--fork` the command runs in a copy of this process, which has the libraries loaded: most of the time is saved.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solo.checkpoint import load_checkpoint
from solo.errors import UserError

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "main_pretrain.py", "scripts/pretrain/digits", "hex.yaml"]
SMALL = ["backbone.kwargs.width=8", "optimizer.batch_size=128", "knn_eval.k=5", "tensorboard.enabled=False"]
SAVING = ["checkpoint.every_steps=1", "checkpoint.frequency=5", "auto_resume.enabled=True", "progress=off"]
_PATIENCE = 600  # seconds
MEASURED = {"images_per_second", "data_wait", "peak_memory_mb", "seconds"}  # of the machine, not of the run


class Forked:
    """The command in a copy of this process, with what `subprocess.Popen` has."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=(words, log))
        self.process.start()

    @staticmethod
    def _run(words: list[str], log: Path) -> None:
        from solo.cli import main as command

        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        raise SystemExit(command(words))

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def wait(self) -> int:
        """The exit code, once it is there."""
        self.process.join()
        return self.process.exitcode or 0


Process = subprocess.Popen[bytes] | Forked


def start(folder: Path, epochs: int, fork: bool) -> Process:
    """The user's command, the same each time."""
    words = [*SMALL, *SAVING, f"max_epochs={epochs}", f"checkpoint.dir={folder}"]
    log = folder.parent / f"{folder.name}.log"
    if fork:
        import sklearn.datasets  # noqa: F401 - loads the libraries once, before the copy

        import solo.methods.contrastive
        import solo.run.pretrain  # noqa: F401

        return Forked(["pretrain", *COMMAND[2:], *words], log)
    with log.open("ab") as stream:
        return subprocess.Popen([*COMMAND, *words], cwd=ROOT, stdout=stream, stderr=stream)


def wait_for(
    process: Process, folder: Path, checkpoints: int = 1, writing: bool = False, patience: float = 600
) -> bool:
    """Until `last.ckpt` was renewed so often, and with `writing` the next one is being written.

    Returns:
        False if the process has ended before.
    """
    begun, seen, count = time.time(), _files(folder, "last.ckpt"), 0
    while process.poll() is None:
        now = _files(folder, "last.ckpt")
        if now != seen:
            seen, count = now, count + 1
        if count >= checkpoints and (not writing or is_written(folder, begun)):
            return True
        if time.time() > begun + _PATIENCE:
            raise TimeoutError(f"nothing new in {folder} for {_PATIENCE} s; see {folder}.log")
        time.sleep(0.001)
    return False


def is_written(folder: Path, since: float) -> bool:
    """Whether a checkpoint was begun after that moment, and isn't complete."""
    return any(modified > since * 1e9 for _, modified in _files(folder, ".*.tmp"))


def _files(folder: Path, pattern: str) -> set[tuple[Path, int]]:
    """Paths and times of change, in nanoseconds."""
    try:
        return {(file, file.stat().st_mtime_ns) for file in folder.rglob(pattern)}
    except OSError:  # it was renamed in between
        return _files(folder, pattern)


def kill(process: Process, folder: Path, chance: random.Random, steps: float, step_seconds: float) -> str:
    """Kill at a random moment, on average `steps` after the start of training; say which."""
    begun, kind = time.time(), chance.random()
    if kind < 0.1:
        time.sleep(chance.uniform(0, 5))
        where = "in the start"
    else:
        where = "anywhere"
        writing = kind > 0.6
        if not wait_for(process, folder, chance.randint(0, round(2 * steps)), writing):
            return "finished"
        time.sleep(chance.uniform(0, 0.01 if writing else step_seconds))
    if process.poll() is not None:
        return "finished"
    process.kill()
    process.wait()
    return "inside a write" if is_written(folder, begun) else where


def unreadable(folder: Path) -> list[str]:
    """The checkpoints that can't be read: what half a write leaves must not be among those with a name."""
    found = []
    for file in [*folder.rglob("*.ckpt"), *folder.rglob("*.ckpt.bak")]:
        try:
            load_checkpoint(file)
        except UserError as error:
            found.append(str(error))
    return found


def differing(a: Any, b: Any, where: str = "") -> list[str]:
    """Places in which two nests of dictionaries, lists, tensors and values differ."""
    if isinstance(a, Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [place for key in a for place in differing(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, (list, tuple)) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [place for index, (x, y) in pairs for place in differing(x, y, f"{where}[{index}]")]
    return [] if a == b else [where]


def outcome(folder: Path) -> dict[str, Any]:
    """What a run has come to: all of its state that is a function of the settings, and its metrics."""
    (last,) = folder.rglob("last.ckpt")
    state = load_checkpoint(last)
    processes = state["callbacks"]["Checkpointer"]["processes"]
    with (last.parent / "metrics.csv").open() as stream:
        rows = [{key: value for key, value in row.items() if key not in MEASURED} for row in csv.DictReader(stream)]
    kept = {key: state[key] for key in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers")}
    return kept | {"rng": [process["rng"] for process in processes], "metrics": rows}


def main(words: Sequence[str] | None = None) -> int:
    """Run both, print the counts; 0 if all is identical and readable."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fork", action="store_true")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args(words)
    root = given.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    whole, killed = root / "whole", root / "killed"
    for folder in (whole, killed):
        folder.mkdir(parents=True)

    begun = time.time()
    process = start(whole, given.epochs, given.fork)
    wait_for(process, whole)
    start_up, training = time.time() - begun, time.time()
    if process.wait():
        raise SystemExit(f"the uninterrupted run failed; see {whole}.log")
    training = time.time() - training
    total = int(outcome(whole)["global_step"])
    steps = total / (1.1 * given.kills)
    print(f"uninterrupted: {total} steps, {start_up:.1f} s to start, {training:.1f} s to train", flush=True)

    chance, kinds, bad = random.Random(given.seed), Counter[str](), []
    while sum(kinds.values()) < given.kills:
        where = kill(start(killed, given.epochs, given.fork), killed, chance, steps, training / total)
        bad += unreadable(killed)
        if where == "finished":
            print("the run came to its end before the last kill; give more --epochs", flush=True)
            break
        kinds[where] += 1
        print(f"kill {sum(kinds.values())}: {where}, {time.time() - begun:.0f} s", flush=True)
    if sum(kinds.values()) == given.kills and start(killed, given.epochs, given.fork).wait():
        raise SystemExit(f"the last resume failed; see {killed}.log")
    places = differing(outcome(whole), outcome(killed))
    print(f"{sum(kinds.values())} kills ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})")
    print(f"unreadable checkpoints: {len(bad)}{''.join(f'; {line}' for line in bad)}")
    runs = len(list(killed.rglob("last.ckpt")))
    print(f"final state of {runs} run against the uninterrupted one: {'identical' if not places else places[:5]}")
    return int(bool(places or bad or sum(kinds.values()) < given.kills))


if __name__ == "__main__":
    raise SystemExit(main())
