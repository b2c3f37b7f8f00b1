"""Many processes against one: the same loss, gradients, metrics and state, step by step.

Each process trains on its share of the batches that a single process sees whole, in float64, with synchronised
BatchNorm and Lightning's DDP. Everything random for a row (dropout) is off: no two processes can draw it alike.
"""

import multiprocessing
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from solo import distributed
from solo.data.batches.loaders import eval_loader
from solo.doctor.toy import Case, Outcome, Record, ToyImages, compare, quietly, toy_model, toy_trainer, without_dropout
from solo.errors import UserError
from solo.run.machine import SyncedNorms

Work = Callable[[Any], Any]


def on_processes(work: Work, count: int, argument: Any) -> list[Any]:
    """What `work(argument)` returns in each of `count` processes that belong to one group (gloo, CPU).

    `work` is a function of a module and returns plain values and tensors; one process has no group. A `UserError` tells
    of the first process that failed.
    """
    return on_groups(work, [count], argument)[0]


def on_groups(work: Work, counts: list[int], argument: Any, seconds: float = 600) -> list[list[Any]]:
    """`on_processes` for groups of several sizes at the same time; who needs more than `seconds` is stopped."""
    # Processes are copies of one which has imported everything, where the system has them.
    copies = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if copies else "spawn")
    if copies:
        context.set_forkserver_preload(["solo.doctor.parity"])
    with tempfile.TemporaryDirectory() as folder:
        places = [(group, index, count) for group, count in enumerate(counts) for index in range(count)]
        processes = [
            context.Process(target=_in_group, args=(work, index, count, f"{folder}/{group}", argument), daemon=True)
            for group, index, count in places
        ]
        files = [Path(folder, f"{group}.{index}.pt") for group, index, _ in places]
        start = time.monotonic()
        for process in processes:
            process.start()
        left, dead = processes, list[Path]()
        while left and (rest := start + seconds - time.monotonic()) > 0:
            wait([process.sentinel for process in left], rest)
            left = [process for process in left if process.is_alive()]
            failed = (file for process, file in zip(processes, files, strict=True) if process.exitcode)
            if dead := [file for file in failed if not file.is_file()]:  # the others would wait for it
                break
        for process in left:
            process.kill()
        for process in processes:
            process.join()
        results = [_result(file) for file in (*dead, *files)]
    found = iter(results)
    return [[next(found) for _ in range(count)] for count in counts]


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


def _result(path: Path) -> Any:
    index = path.stem.rpartition(".")[2]
    if not path.is_file():
        raise UserError(f"process {index} of the check ended without a result (killed, out of memory, or too slow)")
    result = torch.load(path, weights_only=True)
    if "error" in result:
        raise UserError(f"process {index} of the check failed:\n{result['error']}")
    return result["value"]


BATCH = 16  # of all processes together
STEPS = 2  # of an epoch; two epochs, for what clusters or warms up between them
VALIDATION = 13  # no multiple of any number of processes

Fault = Callable[[], AbstractContextManager[Any]]


def parities(cases: Sequence[Case], processes: int = 2, fault: Fault = nullcontext) -> list[Outcome]:
    """Whether 2 or 4 processes train as one does; one start of them, which costs more than a case, for all cases.

    `fault` is entered in every process, for a test to break something; a function of a module. A `UserError` where the
    number of processes doesn't divide the batch.
    """
    if processes < 2 or BATCH % (4 * processes):
        raise UserError(f"processes={processes} can't share batches of {BATCH}; choose 2 or 4")
    plain = [(case.method, case.type) for case in cases]
    one, many = on_groups(_train_all, [1, processes], (plain, fault), seconds=600 + 60 * len(cases))
    outcomes = [[compare(*pair) for pair in zip(one[0], own, strict=True)] for own in many]
    return [min(found, key=lambda outcome: outcome.ok) for found in zip(*outcomes, strict=True)]  # the worst process's


def _train_all(argument: tuple[list[tuple[str, str]], Fault]) -> list[Record | str]:
    cases, fault = argument
    found: list[Record | str] = []
    with quietly(), fault():
        for case in cases:
            try:
                found.append(_train(Case(*case)))
            except Exception as error:
                found.append(f"{type(error).__name__}: {error}")
    return found


def _train(case: Case) -> Record:
    size, rank = BATCH // distributed.world_size(), distributed.rank()
    torch.manual_seed(0)
    model = toy_model(case, size)
    without_dropout(model)
    views = 0 if case.method == "linear" else 2
    images = ToyImages(BATCH * STEPS, views, unknown=3)
    validation = ToyImages(VALIDATION, views=0, unknown=4)
    own = [start + i for start in range(rank * size, len(images), BATCH) for i in range(size)]
    train: DataLoader[Any] = DataLoader(images, batch_size=size, sampler=own)
    steps = _Steps()
    options: Any = {"precision": "64-true", "use_distributed_sampler": False, "num_sanity_val_steps": 0}
    trainer = toy_trainer(max_epochs=2, plugins=[SyncedNorms(gpu=False)], callbacks=[steps], **options)
    torch.manual_seed(1)
    trainer.fit(model, train, eval_loader(validation, 4, 0))
    late = getattr(model, "late", ())  # a process's own share, which shows in the next loss
    state = {name: value.clone() for name, value in model.state_dict().items() if name not in late}
    metrics = {name: value.double() for name, value in trainer.callback_metrics.items()}
    return {"loss": steps.losses, "gradient": steps.gradients, "state": state, "metric": metrics}


class _Steps(Callback):
    """Keeps each step's loss, the mean over processes, and gradients, which DDP has averaged."""

    def __init__(self) -> None:
        self.losses: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        step = trainer.global_step
        for name, parameter in pl_module.named_parameters():
            if parameter.grad is not None:
                self.gradients[f"step {step} {name}"] = parameter.grad.clone()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        total = distributed.all_reduce_sum(outputs["loss"].double()) / distributed.world_size()
        self.losses[f"step {trainer.global_step - 1}"] = total
