"""What methods remember of earlier batches: the one FIFO queue, and buffers whose size is known at the start only."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.errors import UserError
from solo.precision import at_least_float32


class QueueSizeError(UserError, AssertionError):
    """The queue is no multiple of the batch of all processes (an `AssertionError`, as in solo-learn)."""


class QueueMixin(nn.Module):
    """A ring of unit rows that is the same on all processes: the newest rows replace the oldest, in place.

    Its tensors are buffers of the module itself, so that checkpoints hold `queue`, `queue_ptr`, `queue_y`, ...
    """

    queue: Tensor  # (K, D), or (V, D, K) with one bank a view
    queue_ptr: Tensor  # (1,) place of the oldest row
    queue_y: Tensor  # (K,) labels, -1 for unknown; further ones as named in `make_queue`

    def make_queue(self, size: int, dim: int, views: int | None = None, labels: Sequence[str] = ("queue_y",)) -> None:
        """Register the buffers: `size` random unit rows of width `dim`, without labels, in one bank or one a view."""
        rows = F.normalize(torch.randn(*([] if views is None else [views]), size, dim), dim=-1)
        self.register_buffer("queue", rows if views is None else rows.mT.contiguous())
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        for name in labels:
            self.register_buffer(name, torch.full((size,), -1))

    @property
    def banks(self) -> Tensor:
        """The queue with its rows before its features, (K, D) or (V, K, D): a view, not a copy."""
        return self.queue if self.queue.ndim == 2 else self.queue.mT

    @torch.no_grad()
    def enqueue(self, rows: Tensor, **labels: Tensor) -> None:
        """Put the rows of all processes into the queue, in rank order.

        Rows are (N, D), or (V, N, D), the same N on every process; `labels` are (N,) integers by the name of their
        buffer. Raises a `QueueSizeError` if the queue is no multiple of the batch of all processes.
        """
        first = at_least_float32(rows.transpose(0, -2))  # rows first, for gathering
        found, *numbers = distributed.gather_each(first, *labels.values())
        rows = found.transpose(0, -2)
        size, batch = self.banks.shape[-2], rows.shape[-2]
        if size % batch:
            what = f"method_kwargs.queue_size={size} is no multiple of the batch of all processes, {batch}"
            raise QueueSizeError(f"{what}; take {max(1, size // batch) * batch}, or another optimizer.batch_size")
        # Modulo, because the batch, and with it the pointer, may differ after a resume.
        places = (self.queue_ptr + torch.arange(batch, device=rows.device)) % size
        self.banks.index_copy_(-2, places, rows.to(self.queue.dtype))
        for name, values in zip(labels, numbers, strict=True):
            getattr(self, name).index_copy_(0, places, values.long())
        self.queue_ptr.copy_((self.queue_ptr + batch) % size)

    @torch.no_grad()
    def nearest(self, z: Tensor, k: int = 1) -> Tensor:
        """Places of the k queue rows closest in angle, closest first: (N, D) -> (N, k).

        In float32, also under autocast: half precision would tie the closest rows.
        """
        with torch.autocast(z.device.type, enabled=False):
            return (z.to(self.queue.dtype) @ self.queue.T).topk(k, dim=1).indices

    def neighbour_accuracy(self, places: Tensor, targets: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Share, among labelled rows, (N,) with -1 unknown, of those whose neighbour (its place) has the same label.

        Its mean over processes is that of one process on all rows, of which `labelled` are per process, if known.
        """
        known = targets >= 0
        labelled = distributed.per_process(known.sum()) if labelled is None else labelled
        return ((self.queue_y[places] == targets) & known).sum() / labelled

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Checkpoints of solo-learn have a queue of MoCo without labels: these are unknown then.
        if f"{prefix}queue" in state_dict and hasattr(self, "queue_y"):
            state_dict.setdefault(f"{prefix}queue_y", torch.full_like(self.queue_y, -1))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class LateBuffers(nn.Module):
    """Buffers that are None until training starts or a checkpoint brings them, in its size: so they load on resume."""

    late: ClassVar[tuple[str, ...]] = ()

    def make_late_buffers(self) -> None:
        """Register the names of `late`, without tensors; these are in no state dict."""
        for name in self.late:
            self.register_buffer(name, None)
        # DistributedDataParallel would copy the first process's tensors, if it saw them, to all others at each step.
        self._ddp_params_and_buffers_to_ignore = list(self.late)

    def set_late_buffer(self, name: str, start: Tensor) -> bool:
        """Use `start` unless a tensor of its shape is there; whether it was used."""
        present: Tensor | None = getattr(self, name)
        if present is not None and present.shape == start.shape:
            return False
        self.register_buffer(name, start)
        return True

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        device = next(self.parameters()).device
        for name in self.late:
            if prefix + name in state_dict:
                self.register_buffer(name, torch.empty_like(state_dict[prefix + name], device=device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
