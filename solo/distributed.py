"""Collectives: the only file that touches ``torch.distributed``.

Without a process group every function is the identity, so the same code runs on one process and on many.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether a process group with more than one process is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Index of this process, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of processes, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


class _Gather(torch.autograd.Function):
    """Concatenate equal-sized tensors over processes; backward sums the gradients of all processes.

    Written by hand because torch's functional ``all_gather`` returns wrong gradients on gloo when the incoming
    gradient is not contiguous (a transposed consumer is enough).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        return _all_gather(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        start = rank() * ctx.rows
        return grad[start : start + ctx.rows]


def _all_gather(x: Tensor) -> Tensor:
    out = x.new_empty((world_size() * x.shape[0], *x.shape[1:]))
    dist.all_gather(list(out.chunk(world_size())), x.contiguous())
    return out


def gather(x: Tensor) -> Tensor:
    """Rows of all processes, in rank order, with gradient.

    Args:
        x: (N, ...) with the same shape on every process.

    Returns:
        (N * world_size, ...). Its gradient is summed over processes, so that a mean loss per process, averaged by
        DDP, has the gradient of one process on the whole batch.
    """
    return _Gather.apply(x) if is_distributed() else x  # type: ignore[no-any-return]


@torch.no_grad()
def gather_no_grad(x: Tensor) -> Tensor:
    """Rows of all processes, in rank order, detached: (N, ...) -> (N * world_size, ...)."""
    return _all_gather(x) if is_distributed() else x.detach()


@torch.no_grad()
def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum over processes, detached; the input is left as it is."""
    if not is_distributed():
        return x.detach()
    total = x.detach().clone().contiguous()
    dist.all_reduce(total)
    return total


def all_reduce_mean(x: Tensor) -> Tensor:
    """Mean over processes, detached."""
    return all_reduce_sum(x) / world_size()


def any_process(flag: int) -> int:
    """The largest of the flags (>= 0) that the processes hold, the same on all of them."""
    if not is_distributed():
        return flag
    found = torch.tensor([flag], device=_device())
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)


@torch.no_grad()
def of_first(x: Tensor) -> Tensor:
    """What the first process holds, detached: (...) of the same shape on every process."""
    if not is_distributed():
        return x.detach()
    copy = x.detach().clone().contiguous()
    dist.broadcast(copy, src=0)
    return copy


def gather_plain(value: Any) -> list[Any]:
    """Plain values and tensors on the CPU of all processes, in rank order; only the first process gets the list."""
    if not is_distributed():
        return [value]
    found: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, found)
    return found or []


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def gather_lines(lines: list[str]) -> list[str]:
    """Texts of all processes, in rank order; every process must call it."""
    if not is_distributed():
        return list(lines)
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, lines)
    return [line for part in found for line in part]
