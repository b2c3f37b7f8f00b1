"""NNCLR: the positive is the nearest neighbour, in a queue of earlier images, of the other view.

Dwibedi, Aytar, Tompson, Sermanet, Zisserman: With a little help from my friends,
https://arxiv.org/abs/2104.14548. `type: HEX_*` replaces its loss by HEX, in both directions.
"""

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
        self.temperature = kw.temperature
        width = kw.proj_output_dim
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, width, depth=3, last_norm="affine")
        self.predictor = mlp(width, kw.pred_hidden_dim, width)
        self.make_queue(kw.queue_size, width)

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections at length 1, and `p`, the predictions, both (B, proj_output_dim)."""
        z = self.projector(feats)
        return {"z": unit(z), "p": self.predictor(z)}

    def info_nce(self, pairs: Pairs) -> Tensor:
        """The method's own contrast of pairs."""
        return info_nce(pairs, self.temperature)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """InfoNCE, or HEX, of a large view's neighbours and another view's predictions: mean over the directions."""
        large = out["z"][: self.num_large_crops]
        places, neighbours = zip(*map(self.find_nn, large), strict=True)
        accuracy = self.neighbour_accuracy(places[0], step.targets, self.labelled(step.targets))
        self.log_metrics({"train_nn_acc": accuracy})
        order = [(nn, p) for i, nn in enumerate(neighbours) for j, p in enumerate(out["p"]) if i != j]
        found = Pairs.between_later([nn for nn, _ in order], [p for _, p in order], step.ids, step.groups)
        self.dequeue_and_enqueue(large[0].detach(), step.targets)
        return torch.stack(
            [self.hex.replace(self.info_nce, pairs, step, large[0], fixed=True) for pairs in found()]
        ).mean()
