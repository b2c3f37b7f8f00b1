"""What methods remember of the rows of all processes, and clusters of these: queue, late buffers, k-means, Sinkhorn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.errors import UserError
from solo.precision import at_least_float32


class SizeError(UserError, AssertionError):
    """A queue is no multiple of the batch, or there are fewer rows than clusters; an `AssertionError` in solo-learn."""


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
    def dequeue_and_enqueue(self, z: Tensor, y: Tensor | None = None, idx: Tensor | None = None) -> None:
        """Put the rows z of all processes into the queue, in rank order.

        Rows are (N, D), or (V, N, D), the same N on every process; `y` (N,) goes into `queue_y`, -1 by default, `idx`
        (N,) into `queue_index`. Raises a `SizeError` if the queue is no multiple of the batch of all processes.
        """
        if y is None and hasattr(self, "queue_y"):
            y = torch.full(z.shape[-2:-1], -1, device=z.device)
        labels = {name: values for name, values in (("queue_y", y), ("queue_index", idx)) if values is not None}
        first = at_least_float32(z.transpose(0, -2))  # rows first, for gathering
        found, *numbers = distributed.gather_each(first, *labels.values())
        rows = found.transpose(0, -2)
        size, batch = self.banks.shape[-2], rows.shape[-2]
        if size % batch:
            what = f"method_kwargs.queue_size={size} is no multiple of the batch of all processes, {batch}"
            raise SizeError(f"{what}; take {max(1, size // batch) * batch}, or another optimizer.batch_size")
        # Modulo, because the batch, and with it the pointer, may differ after a resume.
        places = (self.queue_ptr + torch.arange(batch, device=rows.device)) % size
        self.banks.index_copy_(-2, places, rows.to(self.queue.dtype))
        for name, values in zip(labels, numbers, strict=True):
            getattr(self, name).index_copy_(0, places, values.long())
        self.queue_ptr.copy_((self.queue_ptr + batch) % size)

    @torch.no_grad()
    def nearest(self, z: Tensor, k: int = 1) -> Tensor:
        """Places of the k queue rows closest in angle, closest first: (N, D) -> (N, k)."""
        # In float32, also under autocast: half precision would tie the closest rows.
        with torch.autocast(z.device.type, enabled=False):
            return (z.to(self.queue.dtype) @ self.queue.T).topk(k, dim=1).indices

    def neighbour_accuracy(self, places: Tensor, targets: Tensor, labelled: Tensor) -> Tensor:
        """Share, among labelled rows, (N,) with -1 unknown, of those whose neighbour (its place) has the same label.

        Its mean over processes is that of one process on all rows, of which `labelled` are per process.
        """
        return ((self.queue_y[places] == targets) & (targets >= 0)).sum() / labelled

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Checkpoints of solo-learn have a queue of MoCo without labels: these are unknown then.
        if f"{prefix}queue" in state_dict and hasattr(self, "queue_y"):
            state_dict.setdefault(f"{prefix}queue_y", torch.full_like(self.queue_y, -1))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class LateBuffers(nn.Module):
    """Buffers that are None until training starts or a checkpoint brings them, in its size: so they load on resume."""

    late: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.late:  # without tensors they are in no state dict
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


class SinkhornKnopp(nn.Module):
    """Scores of samples and prototypes -> soft assignments in which all prototypes are used alike.

    By `num_iters` rounds of normalising the prototypes, then the samples; the smaller `epsilon` > 0, the harder they
    are. `world_size` has no effect: the process group knows.
    """

    def __init__(self, num_iters: int = 3, epsilon: float = 0.05, world_size: int = 1) -> None:
        super().__init__()
        self.num_iters, self.epsilon, self.world_size = num_iters, epsilon, world_size

    def forward(self, Q: Tensor, counts: Tensor | None = None) -> Tensor:
        """Scores (B, K) of this process -> assignments (B, K) whose rows sum to 1, balanced over all processes.

        Or (V, B, K), each of the V balanced by itself. Rows that don't count (`counts` (B,) or (V, B) boolean, None:
        all do) have no part in the balance, and are 0.
        """
        return self.each(Q, counts=counts)[0]

    @torch.no_grad()
    def each(self, *scores: Tensor, counts: Tensor | None = None) -> list[Tensor]:
        """Assignments of several scores, each balanced by itself; their sums travel together."""
        log_q = [at_least_float32(own) / self.epsilon for own in scores]  # in log space, where no score is too large
        for _ in range(self.num_iters):
            if counts is not None:
                log_q = [q.masked_fill(~counts[..., None], -torch.inf) for q in log_q]
            sums = distributed.gather_each(*(q.logsumexp(dim=-2)[None] for q in log_q))
            balanced = (q - every.logsumexp(dim=0).unsqueeze(-2) for q, every in zip(log_q, sums, strict=True))
            log_q = [q.log_softmax(dim=-1) for q in balanced]
        return [q.exp() if counts is None else q.exp().masked_fill(~counts[..., None], 0) for q in log_q]


@dataclass
class KMeans:
    """Clusters the memory once for every set of prototypes; the sets take the large crops in turn."""

    world_size: int  # without effect, as is `rank`: the process group knows
    rank: int
    num_large_crops: int  # views in the memory
    dataset_size: int  # number of samples, as many as there may be indexes
    proj_features_dim: int  # D
    num_prototypes: Sequence[int]  # number of clusters of every set
    kmeans_iters: int = 10  # how often the centroids move

    @torch.no_grad()
    def cluster_memory(
        self, local_memory_index: Tensor, local_memory_embeddings: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Cluster the unit rows (crops, n, D), samples (n,), that all processes remember.

        Returns clusters (heads, dataset_size) of the samples, -1 where one isn't in the memory, and unit centroids (k,
        D) for each head. Raises a `SizeError` if all processes together have fewer rows than there are clusters.
        """
        total, most = len(local_memory_index) * distributed.world_size(), max(self.num_prototypes)
        if total < most:
            what = (
                f"method_kwargs.num_prototypes asks for {most} clusters, but there are only {total} rows to start from"
            )
            raise SizeError(f"{what}; take fewer prototypes, or more images")
        places = distributed.gather_no_grad(local_memory_index)
        assignments = places.new_full((len(self.num_prototypes), self.dataset_size), -1)
        all_centroids = []
        for head, k in enumerate(self.num_prototypes):
            rows = local_memory_embeddings[head % self.num_large_crops]
            # The rows of random samples: the same ones, however the rows are spread over processes.
            order = distributed.of_first(torch.randperm(self.dataset_size, device=rows.device))
            turn = order[local_memory_index]
            first = turn.argsort()[:k]
            starts = distributed.gather_no_grad(rows[first])
            turn = distributed.gather_no_grad(turn[first])
            centroids = starts[turn.argsort()[:k]]
            for _ in range(self.kmeans_iters):
                clusters = (rows @ centroids.T).argmax(dim=1)
                sums = distributed.all_reduce_sum(torch.zeros_like(centroids).index_add_(0, clusters, rows))
                counts = distributed.all_reduce_sum(torch.bincount(clusters, minlength=k))
                # The directions of the clusters' sums; one without rows stays where it is.
                centroids = F.normalize(torch.where(counts[:, None] > 0, sums, centroids), dim=1)
            assignments[head, places] = distributed.gather_no_grad((rows @ centroids.T).argmax(dim=1))
            all_centroids.append(centroids)
        return assignments, all_centroids
