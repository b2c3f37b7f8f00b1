"""Run a function on a group of processes, as cheaply as the machine allows."""

import multiprocessing
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch

from solo import distributed
from solo.errors import UserError

Work = Callable[[Any], Any]
_PRELOADED = ["solo.doctor.parity"]
_SECONDS = 600


def on_processes(work: Work, count: int, argument: Any) -> list[Any]:
    """What `work(argument)` returns in each of `count` processes that belong to one group (gloo, CPU).

    `work` is a function of a module and returns plain values and tensors; one process has no group.

    Raises:
        UserError: with the last line of the first process that failed.
    """
    return on_groups(work, [count], argument)[0]


def on_groups(work: Work, counts: list[int], argument: Any, seconds: float = _SECONDS) -> list[list[Any]]:
    """`on_processes` for groups of several sizes at the same time; who needs more than `seconds` is stopped."""
    context: Any = _context()
    with tempfile.TemporaryDirectory() as folder:
        places = [(group, index, count) for group, count in enumerate(counts) for index in range(count)]
        processes = [
            context.Process(target=_in_group, args=(work, index, count, f"{folder}/{group}", argument), daemon=True)
            for group, index, count in places
        ]
        start = time.monotonic()
        for process in processes:
            process.start()
        for process in processes:
            process.join(max(start + seconds - time.monotonic(), 0))
            if process.is_alive():
                process.kill()
        results = [_result(Path(folder, f"{group}.{index}.pt"), index) for group, index, _ in places]
    found = iter(results)
    return [[next(found) for _ in range(count)] for count in counts]


def _context() -> BaseContext:
    """Processes that are copies of one which has imported everything, where the system has them."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _in_group(work: Work, index: int, count: int, name: str, argument: Any) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(index)  # Lightning starts no processes then
    os.environ.pop("PL_GLOBAL_SEED", None)  # of an earlier run in this program: DDP alone would seed again by it
    result: dict[str, Any]
    try:
        with distributed.process_group(index, count, Path(f"{name}.meeting")):
            result = {"value": work(argument)}
    except Exception:
        result = {"error": traceback.format_exc()}
    torch.save(result, f"{name}.{index}.pt")


def _result(path: Path, index: int) -> Any:
    if not path.is_file():
        raise UserError(f"process {index} of the check ended without a result (killed, out of memory, or too slow)")
    result = torch.load(path, weights_only=True)
    if "error" in result:
        raise UserError(f"process {index} of the check failed:\n{result['error']}")
    return result["value"]
