"""Runs of an experiment, one after the other or some at once, and their rows, a line of JSON each in `rows.jsonl`."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from solo import api
from solo.errors import UserError, explained
from solo.files import parse_json, read_facts

Row = dict[str, Any]
Choice = dict[str, Any]  # key -> value
NAME = "rows.jsonl"
_QUIET = ("progress=off", "tensorboard.enabled=false", "checkpoint.enabled=true", "auto_resume.enabled=true")
_PROBED = 12  # steps that are timed


@dataclasses.dataclass(frozen=True)
class Task:
    """One run: `solo pretrain` and `solo evaluate`."""

    arm: str
    budget: str  # "" where there is only one, without a name
    seed: int  # as the report counts it; the words have the run's own
    choice: Choice | None  # what it tries of the arm's grid; None for a run that is reported
    recipe: tuple[str, ...]  # the words that name it
    words: tuple[str, ...]  # all overrides
    evaluate: tuple[str, ...]  # words of `solo evaluate`
    id: str  # the same for runs that are the same, whatever arm asks for them


def read_rows(folder: Path, needs: Sequence[str] = ()) -> dict[str, Row]:
    """Rows by the id of their run; a `UserError` if a line is damaged, or its row lacks a key of `needs`."""
    file = folder / NAME
    content = file.read_bytes() if file.is_file() else b""
    if not content.endswith(b"\n") and content:  # half a line, of a process that was killed
        content = content[: content.rfind(b"\n") + 1]
        os.truncate(file, len(content))
    rows, cure = dict[str, Row](), "take it out, and its run is done again"
    for number, line in enumerate(content.splitlines(), start=1):
        with explained(f"{file}, line {number} is damaged", cure, ValueError, KeyError, TypeError, AttributeError):
            row = parse_json(line)
            if row.pop("crc", None) not in (None, _checksum(row)) or not {"id", *needs} <= row.keys():
                raise ValueError("another row was written here")
            rows[row["id"]] = row
    return rows


def add_row(folder: Path, row: Row) -> None:
    """Append a row in one piece, and wait until it is on disk."""
    plain = json.loads(json.dumps(row, default=str))
    with (folder / NAME).open("ab", buffering=0) as file:
        file.write(json.dumps({**plain, "crc": _checksum(plain)}).encode() + b"\n")
        os.fsync(file.fileno())


def _checksum(row: Row) -> int:
    return zlib.crc32(json.dumps(row).encode())


def perform(task: Task, folder: Path, keep: bool) -> Row:
    """Train, or go on with what is left in `folder/runs/<id>`, measure, and say how it went; an error is a row, too."""
    place = folder / "runs" / task.id
    place.mkdir(parents=True, exist_ok=True)
    wall, cpu = time.perf_counter(), time.process_time()
    with (place / "log.txt").open("a", encoding="utf-8") as log:
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                result = _train(task, place)
                found = api.evaluate(result, overrides=[*task.evaluate, f"checkpoint.dir={place}"])
        except Exception as error:  # whatever it is, the other runs go on
            if not isinstance(error, UserError):
                traceback.print_exc(file=log)
            return {**dataclasses.asdict(task), "error": " ".join(str(error).split()) or type(error).__name__}
    summary = parse_json((result / "summary.json").read_bytes())
    row = {
        **dataclasses.asdict(task),
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "gpu": torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0,
        # Of every level, and of the whole label tree: of each classifier's predictions, and `tree`.
        "numbers": {
            part["classes"]: {name: _numbers(values) for name, values in part.get("hierarchy", {}).items()}
            | {level["level"]: _numbers(level) for level in part["levels"]}
            for part in found["results"]
        },
        "summary": _numbers(summary) | _numbers(summary.get("hex") or {}),
        "versions": summary["versions"],
    }
    if not keep:
        shutil.rmtree(place, ignore_errors=True)
    return row


def _train(task: Task, place: Path) -> Path:
    """The folder of the finished run, done now or before."""
    for file in sorted(place.glob("*/*/summary.json")):
        summary = read_facts(file)  # of a damaged one the run is done again
        if summary.get("kind") == "pretrain" and summary.get("status") == "finished" and "versions" in summary:
            return file.parent
    return api.pretrain(*task.recipe, overrides=[*task.words, *_QUIET, f"checkpoint.dir={place}"]).folder


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in values.items() if isinstance(value, (int, float))}


def perform_all(tasks: Sequence[Task], folder: Path, jobs: int, keep: bool, done: Callable[[Row], None]) -> None:
    """All runs; `done` gets each row as it comes."""
    if jobs == 1:
        for task in tasks:
            done(perform(task, folder, keep))
        return
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, context, _begin, (context.Value("i", 0), threads)) as pool:
        futures = [pool.submit(perform, task, folder, keep) for task in tasks]
        try:
            for future in as_completed(futures):
                done(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(counter: Any, threads: int) -> None:
    """Give a process its share of the cores and of the GPUs."""
    with counter.get_lock():
        number, counter.value = counter.value, counter.value + 1
    torch.set_num_threads(threads)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = seen.split(",") if seen else [str(device) for device in range(torch.cuda.device_count())]
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]


def probe(task: Task) -> tuple[int, float, float]:
    """Steps of a run, seconds of one step, and seconds of all around them, measured by a run of twelve steps."""
    with (
        tempfile.TemporaryDirectory() as place,
        open(os.devnull, "w") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        started = time.perf_counter()
        words = [*task.words, *_QUIET, f"checkpoint.dir={place}", f"max_steps={_PROBED}"]
        result = api.pretrain(*task.recipe, overrides=words)
        api.evaluate(result.folder, overrides=[*task.evaluate, f"checkpoint.dir={place}", "cache=false"])
        total = time.perf_counter() - started
    trainer = result.model.trainer
    taken = max(int(trainer.global_step), 1)
    step = float(result.summary["run_seconds"]) / taken
    return int(trainer.num_training_batches) * int(result.summary["max_epochs"]), step, total - step * taken
