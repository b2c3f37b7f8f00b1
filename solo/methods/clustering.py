"""Methods that predict the cluster of an image."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from solo import distributed
from solo.errors import UserError
from solo.losses.pairs import unit
from solo.losses.targets import deepclusterv2_loss_func, swav_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.catalogue import DeepClusterV2Kwargs, SwAVKwargs
from solo.nn.clusters import KMeans, SinkhornKnopp
from solo.nn.heads import WeightNormLinear, mlp
from solo.nn.memory import LateBuffers


class SwAV(LateBuffers, BaseMethod):
    """SwAV: predict the cluster of a view from the other views; clusters are balanced soft assignments to prototypes.

    Caron et al.: Unsupervised learning of visual features by contrasting cluster assignments,
    https://arxiv.org/abs/2006.09882. The queue (2, queue_size / processes, proj_output_dim) holds this process's
    projections.
    """

    trainable = ("projector", "prototypes")
    metric = "train_swav_loss"
    late = ("queue",)

    def build(self, kw: SwAVKwargs) -> None:
        """Make projector and prototypes; the queue is made when training starts."""
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim)
        self.prototypes = WeightNormLinear(kw.proj_output_dim, kw.num_prototypes)
        self.sk = SinkhornKnopp(kw.sk_iters, kw.sk_epsilon)
        self.make_late_buffers()

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections (B, proj_output_dim) at length 1, and `p`, the scores (B, num_prototypes)."""
        z = unit(self.projector(feats))
        return {"z": z, "p": self.prototypes(z)}

    def on_train_start(self) -> None:
        """Make an empty queue, unless the checkpoint had one."""
        super().on_train_start()
        if self.queue_size:
            rows, weight = self.queue_size // distributed.world_size(), self.prototypes.weight_v
            self.set_late_buffer("queue", weight.new_zeros(2, rows, weight.shape[1]))

    @torch.no_grad()
    def get_assignments(self, preds: Sequence[Tensor]) -> list[Tensor]:
        """Scores (B, num_prototypes) of each large view -> assignments of the same shape; rows sum to 1.

        From `epoch_queue_starts` on, the rows that the queue holds take part in the balance.
        """
        scores, counts = list(preds), None
        for view, p in enumerate(preds):
            if self.queue is not None and self.current_epoch >= self.epoch_queue_starts:
                bank = self.queue[view]
                filled = bank.any(dim=1)  # zeros: not filled yet
                if bank.is_cpu:
                    bank = bank[filled]
                else:  # how many are filled is not known here
                    counts = torch.cat([filled.new_ones(len(p)), filled])  # alike for all views
                scores[view] = torch.cat([p, self.prototypes(bank)])
        balanced = self.sk(torch.stack(scores), None if counts is None else counts.expand(len(scores), -1))
        return list(balanced[:, : len(preds[0])])

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Cross-entropy over all views under the assignments of the large ones."""
        assignments = self.get_assignments(out["p"][: self.num_large_crops])
        if self.queue is not None:
            z = torch.stack(out["z"][: self.num_large_crops]).detach()
            self.queue.copy_(torch.cat([z, self.queue], dim=1)[:, : self.queue.shape[1]])  # newest first
        return swav_loss_func(out["p"], assignments, self.temperature)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave the prototypes as they are in the first epochs."""
        if self.current_epoch < self.freeze_prototypes_epochs:
            self.prototypes.zero_grad(set_to_none=True)


class DeepClusterV2(LateBuffers, BaseMethod):
    """DeepCluster v2: predict the cluster that k-means gave to the image, on last epoch's projections.

    Caron et al.: Unsupervised learning of visual features by contrasting cluster assignments (appendix),
    https://arxiv.org/abs/2006.09882. Sets of frozen prototypes are the centroids; each process remembers its own
    projections.
    """

    trainable = ("projector",)
    metric = "train_deepcluster_loss"
    late = ("local_memory_index", "local_memory_embeddings")

    def build(self, kw: DeepClusterV2Kwargs) -> None:
        """Make projector and prototypes; the memory is made when training starts."""
        if len(set(kw.num_prototypes)) != 1:
            raise UserError(
                f"method_kwargs.num_prototypes={list(kw.num_prototypes)} must be a list of equal numbers, one a set"
            )
        width = kw.proj_output_dim
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, width)
        self.prototypes = nn.ModuleList(nn.Linear(width, k, bias=False) for k in kw.num_prototypes)
        for prototypes in self.prototypes.parameters():
            prototypes.requires_grad_(False).copy_(F.normalize(prototypes, dim=1))
        self.make_late_buffers()
        self._batch_idx = 0
        self.assignments: Tensor | None = None  # (sets, samples); None: nothing is clustered yet

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections (B, proj_output_dim) at length 1, and `p`, the scores (sets, B, prototypes)."""
        z = unit(self.projector(feats))
        return {"z": z, "p": torch.stack([prototypes(z) for prototypes in self.prototypes])}

    def on_train_start(self) -> None:
        """Make the memory, unless the checkpoint had one, and what clusters it."""
        super().on_train_start()
        rows, like = int(self.trainer.num_training_batches) * self.batch_size, next(self.prototypes.parameters())
        width = like.shape[1]
        start = like.new_zeros(self.num_large_crops, rows, width)  # filled before it is read
        fresh = self.set_late_buffer("local_memory_embeddings", start)
        index = torch.zeros(rows, dtype=torch.long, device=self.device)
        self._memory_filled = not (self.set_late_buffer("local_memory_index", index) or fresh)
        loader: Any = self.trainer.train_dataloader
        own, sizes = (distributed.world_size(), distributed.rank()), (self.num_large_crops, len(loader.dataset), width)
        self.kmeans = KMeans(*own, *sizes, self.num_prototypes, self.kmeans_iters)

    @torch.no_grad()
    def on_train_epoch_start(self) -> None:
        """Cluster what the last epoch has left in the memory; the prototypes become the centroids."""
        if self._memory_filled:
            memory = self.local_memory_index, self.local_memory_embeddings
            self.assignments, centroids = self.kmeans.cluster_memory(*memory)
            for prototypes, rows in zip(self.prototypes.parameters(), centroids, strict=True):
                prototypes.copy_(rows)
        self._memory_filled = True  # by the end of this epoch

    @torch.no_grad()
    def update_memory_banks(self, idxs: Tensor, z: list[Tensor], batch_idx: int) -> None:
        """Remember sample ids (B,) and the projections (B, proj_output_dim) of the large views, batch by batch."""
        if self.local_memory_index is None:
            return
        rows = slice(batch_idx * self.batch_size, batch_idx * self.batch_size + len(idxs))
        self.local_memory_index[rows] = idxs
        self.local_memory_embeddings[:, rows] = torch.stack(z).to(self.local_memory_embeddings.dtype)

    def process_state(self) -> dict[str, Any]:
        return {**super().process_state(), "assignments": self.assignments}

    def load_process_state(self, state: dict[str, Any]) -> None:
        super().load_process_state(state)
        self.assignments = state["assignments"]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Keep the number of the batch: its place in the memory."""
        super().on_train_batch_start(batch, batch_idx)
        self._batch_idx = batch_idx

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Cross-entropy of all views with the clusters; 0 as long as there are none, in the first epoch."""
        views = slice(self.num_large_crops)
        self.update_memory_banks(step.ids, out["z"][views], self._batch_idx)
        unknown = step.ids.new_full((len(self.prototypes), len(step.ids)), -1)
        clusters = unknown if self.assignments is None else self.assignments[:, step.ids]
        return deepclusterv2_loss_func(torch.stack(out["p"], dim=1), clusters, self.temperature)
