"""Bugs to plant: what each check must turn red for."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from solo import distributed, precision
from solo.callbacks import process_state
from solo.losses import pairs
from solo.methods import base, exact
from solo.nn import memory, networks
from solo.run.resume import ResumeOrder
from tests.doctor import determinism

_QUEUES = ("queue", "local_memory", "center")


def _seen_by(module: Any, **functions: Any) -> Any:
    """Let `module` see other functions in `distributed`."""
    return patch.object(module, "distributed", SimpleNamespace(**{**vars(distributed), **functions}))


# ---- many processes ----


def gather_without_gradient() -> Any:
    """The gather passes no gradient to the other processes."""
    later = distributed.gather_later

    def gather(x: Tensor) -> Tensor:
        rows = later(x.detach())()[0]
        start = distributed.rank() * len(x)
        return torch.cat([rows[:start], x, rows[start + len(x) :]]) if distributed.is_distributed() else x

    return patch.object(distributed, "gather_later", lambda *rows: lambda: [gather(x) for x in rows])


def queue_of_own_rows() -> Any:
    """The queue keeps a process's own rows only."""
    return _seen_by(memory, gather_each=lambda *own: [rows.detach() for rows in own])


def own_batch_statistics() -> Any:
    """BatchNorm uses a process's own statistics."""
    return _seen_by(networks, is_distributed=lambda: False)


def counts_not_shared() -> Any:
    """Means over labelled rows are not shared."""
    return patch.object(distributed, "all_reduce_mean", lambda x: x.detach())


# ---- resume ----


def shifted_random_numbers() -> Any:
    """The random streams go on one number later."""
    set_state = process_state.set_rng_state

    def shift(state: Any) -> None:
        set_state(state)
        torch.rand(1)

    return patch.object(process_state, "set_rng_state", shift)


def empty_queue() -> Any:
    """Queues start empty again."""
    load = torch.nn.Module.load_state_dict

    def forget(module: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        bare = {k: torch.zeros_like(v) if any(part in k for part in _QUEUES) else v for k, v in state.items()}
        return load(module, bare, *args, **kwargs)

    return patch.object(torch.nn.Module, "load_state_dict", forget)


def first_batches_again() -> Any:
    """The sampler starts the epoch again."""
    load = ResumeOrder.on_load_checkpoint

    def forget(self: Any, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        load(self, trainer, pl_module, checkpoint)
        self.loader.sampler.start_at(1, 0)

    return patch.object(ResumeOrder, "on_load_checkpoint", forget)


# ---- exact accumulation ----


def every_part_a_loss() -> Any:
    """Plain accumulation: every part has its own loss."""

    def step(model: Any, batch: Any, online: Any) -> Tensor:
        model.zero_grad(set_to_none=True)
        parts = exact.split(batch, model.batch_size)
        losses = []
        for part in parts:
            loss = model.total_loss(model.view_outputs(part), part) / len(parts)
            loss.backward()
            losses.append(loss.detach())
        nothing = torch.stack([p.sum() for p in model.parameters() if p.requires_grad]).sum()
        return torch.stack(losses).sum() + 0 * nothing

    return patch.object(base, "exact_step", step)


def last_part_lost() -> Any:
    """The last part is forgotten, and the first comes twice."""
    split = exact.split

    def lose(batch: Any, size: int) -> list[Any]:
        return [*split(batch, size)[:-1], split(batch, size)[0]]

    return patch.object(exact, "split", lose)


# ---- precision and seeds ----


def _same(x: Tensor) -> Tensor:
    return x


def half_precision() -> Any:
    """Similarities are computed in half precision."""
    stack = ExitStack()
    for module in (precision, pairs):
        stack.enter_context(patch.object(module, "at_least_float32", _same))
    return stack


@contextmanager
def a_number_too_many() -> Any:
    """Each run draws one random number more than the one before."""
    seed_everything, runs = determinism.seed_everything, []

    def seed(*args: Any, **kwargs: Any) -> None:
        seed_everything(*args, **kwargs)
        torch.rand(len(runs) + 1)
        runs.append(1)

    with patch.object(determinism, "seed_everything", seed):
        yield


def seed_ignored() -> Any:
    """Every seed is the same."""
    train = determinism.train_once
    return patch.object(determinism, "train_once", lambda case, seed, workers=0: train(case, 5, workers))
