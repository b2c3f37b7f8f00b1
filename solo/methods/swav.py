"""SwAV: predict the cluster of a view from the other views; clusters are balanced soft assignments to prototypes.

Caron et al.: Unsupervised learning of visual features by contrasting cluster assignments,
https://arxiv.org/abs/2006.09882.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from solo import distributed
from solo.losses.pairs import unit
from solo.losses.targets import swav_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import SwAVKwargs
from solo.nn.heads import WeightNormLinear, mlp
from solo.nn.late import LateBuffers
from solo.nn.sinkhorn_knopp import SinkhornKnopp


class SwAV(LateBuffers, BaseMethod):
    """Projector, prototypes, and a queue (2, queue_size / processes, proj_output_dim) of this process's projections."""

    Kwargs = SwAVKwargs
    trainable = ("projector", "prototypes")
    metric = "train_swav_loss"
    late = ("queue",)
    queue: Tensor | None

    def build(self, kw: SwAVKwargs) -> None:
        """Make projector and prototypes; the queue is made when training starts."""
        self.temperature, self.queue_size = kw.temperature, kw.queue_size
        self.epoch_queue_starts, self.freeze_prototypes_epochs = kw.epoch_queue_starts, kw.freeze_prototypes_epochs
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
