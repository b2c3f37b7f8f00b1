"""Collectives: the only file that touches ``torch.distributed``.

Without a process group every function is the identity, so the same code runs on one process and on many.
"""

import atexit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
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


@contextmanager
def process_group(index: int, processes: int, meeting: Path) -> Iterator[None]:
    """Belong to a group of processes on this CPU (gloo), that of one is none; `meeting` is a file not there yet."""
    if processes == 1:
        yield
        return
    patience = timedelta(seconds=120)
    store = dist.FileStore(str(meeting), processes)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=index, world_size=processes, timeout=patience)
    try:
        yield
    finally:
        _waiting.clear()
        dist.destroy_process_group()


def leave_when_the_program_ends() -> None:
    """Leave the process group that is up, if one is, before the interpreter takes its modules apart.

    Lightning does so for NCCL alone; a thread of gloo that lets go of a Python object too late ends a finished program
    with "terminate called without an active exception".
    """
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """Concatenate each of several tensors over processes, by one collective; backward is one, too.

    They travel as bytes, side by side. Written by hand because torch's functional ``all_gather`` returns wrong
    gradients on gloo when the incoming gradient is not contiguous (a transposed consumer is enough).
    """

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.own, number = [(x.shape, x.dtype) for x in tensors], world_size()
        parts = [x.contiguous().view(-1).view(torch.uint8) for x in tensors]
        sent = torch.cat(parts)
        both = sent.new_empty(number, len(sent))
        dist.all_gather(list(both), sent)
        found = torch.split(both, [len(part) for part in parts], dim=1)
        every = [y.contiguous().view(x.dtype).view(-1, *x.shape[1:]) for x, y in zip(tensors, found, strict=True)]
        ctx.mark_non_differentiable(*(y for y, needed in zip(every, ctx.needs_input_grad, strict=True) if not needed))
        return tuple(every)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [grad for grad, needed in zip(grads, ctx.needs_input_grad, strict=True) if needed]
        total = torch.cat([grad.reshape(world_size(), -1) for grad in wanted], dim=1)
        dist.all_reduce(total)
        parts = iter(torch.split(total[rank()], [grad.numel() // world_size() for grad in wanted]))
        asked = zip(ctx.own, ctx.needs_input_grad, strict=True)
        return tuple(next(parts).view(shape).to(dtype) if needed else None for (shape, dtype), needed in asked)


_waiting: list[list[Tensor]] = []  # what has been asked for and not been sent yet


def gather_later(*tensors: Tensor) -> Callable[[], list[Tensor]]:
    """`gather` of several tensors (N, ...) of any types, which travel with whatever is gathered next.

    What is returned gives them; asked before anything else has been gathered, it gathers them, and all else that waits.
    """
    rows = list(tensors) if torch.is_grad_enabled() else [x.detach() for x in tensors]
    if is_distributed():
        _waiting.append(rows)

    def found() -> list[Tensor]:
        if any(rows is other for other in _waiting):
            asked, _waiting[:] = list(_waiting), []
            with torch.enable_grad():  # who asks for another tensor may want none
                every = iter(_Gather.apply(*(x for own in asked for x in own)))
            for own in asked:
                own[:] = [next(every) for _ in own]
        return rows

    return found


def gather_each(*tensors: Tensor) -> list[Tensor]:
    """`gather` of several tensors (N, ...) of any types, by one collective."""
    return gather_later(*tensors)()


def gather(x: Tensor) -> Tensor:
    """Rows of all processes, in rank order, with gradient: (N, ...), alike on every process, -> (N * world_size, ...).

    Its gradient is summed over processes, so that a mean loss per process, averaged by DDP, has the gradient of one
    process on the whole batch.
    """
    return gather_each(x)[0]


def gather_no_grad(x: Tensor) -> Tensor:
    """Rows of all processes, in rank order, detached: (N, ...) -> (N * world_size, ...)."""
    return gather(x.detach())


class _Sum(torch.autograd.Function):
    """Sum over processes; backward sums the gradients of all processes, as `_Gather` does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_reduce_sum(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return all_reduce_sum(grads[0])


def sum_with_grad(x: Tensor) -> Tensor:
    """Sum over processes, with the gradient as of `gather`; where something waits to be gathered, it travels along."""
    if _waiting:
        return gather(x[None]).sum(dim=0)
    return _Sum.apply(x) if is_distributed() else x  # type: ignore[no-any-return]


def pass_on(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Send tensors to the next process; what is returned waits for those of the one before, of the same shapes."""
    sent = [x.contiguous() for x in tensors]
    found = [torch.empty_like(x).contiguous() for x in tensors]
    here, number = rank(), world_size()
    sends = [dist.P2POp(dist.isend, x, (here + 1) % number) for x in sent]
    receives = [dist.P2POp(dist.irecv, x, (here - 1) % number) for x in found]
    works = dist.batch_isend_irecv([*sends, *receives])

    def arrived() -> list[Tensor]:
        for work in works:
            work.wait()
        return found

    return arrived


def own_rows(x: Tensor) -> Tensor:
    """This process's rows of a tensor that all processes have alike: (N * world_size, ...) -> (N, ...)."""
    return x.chunk(world_size())[rank()] if is_distributed() else x


@torch.no_grad()
def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum over processes, detached; the input is left as it is."""
    total = x.detach().clone().contiguous() if is_distributed() else x.detach()
    if is_distributed():
        dist.all_reduce(total)
    return total


def all_reduce_mean(x: Tensor) -> Tensor:
    """The mean over all processes, without gradient."""
    return all_reduce_sum(x) / world_size()


def per_process(count: Tensor) -> Tensor:
    """How many of all processes' rows, counted on each, a process has on average; what divides a sum over rows.

    A process that divides its sum by this has a value whose mean over processes is that of one process with all rows,
    however unevenly they are spread. At least one row of all processes, in torch's default type.
    """
    count = count if count.is_floating_point() else count.to(torch.get_default_dtype())
    return all_reduce_mean(count).clamp_min(1 / world_size())


def any_process(flag: int) -> int:
    """The largest of the flags (>= 0) that the processes hold, the same on all of them."""
    if not is_distributed():
        return flag
    nccl = dist.get_backend() == "nccl"
    found = torch.tensor([flag], device=torch.device("cuda", torch.cuda.current_device()) if nccl else "cpu")
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)


@torch.no_grad()
def of_first(x: Tensor) -> Tensor:
    """What the first process holds, detached: (...) of the same shape on every process."""
    copy = x.detach().clone().contiguous() if is_distributed() else x.detach()
    if is_distributed():
        dist.broadcast(copy, src=0)
    return copy


def gather_plain(value: Any) -> list[Any]:
    """Plain values and tensors on the CPU of all processes, in rank order; only the first process gets the list."""
    if not is_distributed():
        return [value]
    found: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, found)
    return found or []
