"""ReSSL: a strongly augmented view relates to a queue of images as a weakly augmented one does.

Zheng et al.: ReSSL: Relational self-supervised learning with weak augmentation, https://arxiv.org/abs/2107.09282.
The first view is the strong one, for the trained network, the second the weak one, for its slow copy.
"""

import torch
from torch import Tensor

from solo.losses.pairs import unit
from solo.losses.targets import ressl_loss_func
from solo.methods.base import Outputs, TrainStep
from solo.methods.kwargs import ReSSLKwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.heads import mlp
from solo.nn.queue import QueueMixin


class ReSSL(QueueMixin, BaseMomentumMethod):
    """Projector with a slow copy, and a queue of slow projections."""

    Kwargs = ReSSLKwargs
    trainable = ("projector",)
    averaged = ("projector",)
    unit_targets = True
    metric = "train_ressl_loss"

    def build(self, kw: ReSSLKwargs) -> None:
        self.temperature_q, self.temperature_k = kw.temperature_q, kw.temperature_k
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim, norm=False)
        self.make_queue(kw.queue_size, kw.proj_output_dim, labels=())

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections (B, proj_output_dim) at length 1."""
        return {"z": unit(self.projector(feats))}

    def dequeue_and_enqueue(self, z: Tensor) -> None:
        """Put projections (B, proj_output_dim) into the queue."""
        self.enqueue(z)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Cross-entropy of the strong view's relations, and those of small ones, under those of the weak one."""
        students, k = [out["z"][0], *out["z"][2:]], out["momentum_z"][1]
        queue = self.queue.clone()
        losses = [ressl_loss_func(q, k, queue, self.temperature_q, self.temperature_k) for q in students]
        self.dequeue_and_enqueue(k)
        return torch.stack(losses).mean()
