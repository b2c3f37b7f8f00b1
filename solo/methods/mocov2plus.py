"""MoCo v2+: negatives from a queue of a slow network's keys; symmetric in the two views.

Chen, Fan, Girshick, He: Improved baselines with momentum contrastive learning, https://arxiv.org/abs/2003.04297.
`type: HEX_*` replaces its loss by HEX, whose hierarchy negatives then come from the queue.
"""

import torch
from torch import Tensor

from solo.losses.info_nce import info_nce
from solo.losses.pairs import Pairs, unit
from solo.methods.base import Outputs, TrainStep
from solo.methods.kwargs import MoCoV2PlusKwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.heads import mlp
from solo.nn.queue import QueueMixin


class MoCoV2Plus(QueueMixin, BaseMomentumMethod):
    """Projector with a slow copy, and one queue a view; `queue_y` holds labels at the level of `hex.level`."""

    Kwargs = MoCoV2PlusKwargs
    trainable = ("projector",)
    averaged = ("projector",)
    unit_targets = True
    metric = "train_nce_loss"

    def build(self, kw: MoCoV2PlusKwargs) -> None:
        self.temperature = kw.temperature
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim, norm=False)
        self.make_queue(kw.queue_size, kw.proj_output_dim, views=2)

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the queries (B, proj_output_dim) at length 1."""
        return {"z": unit(self.projector(feats))}

    def _dequeue_and_enqueue(self, keys: Tensor, y: Tensor | None = None) -> None:
        """Put keys (2, B, proj_output_dim) of the two views and labels (B,) into the queue."""
        unknown = torch.full(keys.shape[1:2], -1, device=keys.device)
        self.enqueue(keys, queue_y=unknown if y is None else y)

    def info_nce(self, pairs: Pairs) -> Tensor:
        """The method's own contrast of pairs."""
        return info_nce(pairs, self.temperature)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """InfoNCE, or HEX, of one view's queries, the other's keys and its queue: mean of the two directions."""
        (q1, q2), (k1, k2) = out["z"], out["momentum_z"]
        bank1, bank2 = self.banks
        directions = (
            Pairs.with_queue(query, key, bank, step.groups, self.queue_y)
            for query, key, bank in ((q1, k2, bank2), (q2, k1, bank1))
        )
        loss = torch.stack([self.hex.replace(self.info_nce, pairs, step, k1 + k2) for pairs in directions]).mean()
        self._dequeue_and_enqueue(torch.stack([k1, k2]), step.groups)
        return loss
