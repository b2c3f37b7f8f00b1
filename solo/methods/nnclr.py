"""NNCLR: the positive is the nearest neighbour, in a queue of earlier images, of the other view.

Dwibedi, Aytar, Tompson, Sermanet, Zisserman: With a little help from my friends,
https://arxiv.org/abs/2104.14548. `type: HEX_*` replaces its loss by HEX, in both directions.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from solo.losses.info_nce import info_nce
from solo.losses.pairs import Pairs, unit
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import NNCLRKwargs
from solo.nn.heads import mlp
from solo.nn.queue import NeighbourQueue


class NNCLR(NeighbourQueue, BaseMethod):
    """Projector, predictor and a queue of projections."""

    Kwargs = NNCLRKwargs
    trainable = ("projector", "predictor")
    metric = "train_nnclr_loss"

    def build(self, kw: NNCLRKwargs) -> None:
        """Make projector, predictor and queue."""
        self.info_nce = partial(info_nce, temperature=kw.temperature)
        width = kw.proj_output_dim
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, width, depth=3, last_norm="affine")
        self.predictor = mlp(width, kw.pred_hidden_dim, width)
        self.make_queue(kw.queue_size, width)

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections at length 1, and `p`, the predictions, both (B, proj_output_dim)."""
        z = self.projector(feats)
        return {"z": unit(z), "p": self.predictor(z)}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """InfoNCE, or HEX, of one view's neighbours and the other's predictions: mean of the two directions."""
        (z1, z2), (p1, p2) = out["z"], out["p"]
        (places, nn1), (_, nn2) = self.find_nn(z1), self.find_nn(z2)
        self.log_metrics({"train_nn_acc": self.neighbour_accuracy(places, step.targets)})
        self.dequeue_and_enqueue(z1.detach(), step.targets)
        directions = (Pairs.between(nn, p, step.ids, step.groups) for nn, p in ((nn1, p2), (nn2, p1)))
        return torch.stack([self.hex.replace(self.info_nce, pairs, step) for pairs in directions]).mean()
