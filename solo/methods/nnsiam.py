"""NNSiam: SimSiam whose target is the nearest neighbour, in a queue of earlier images, of the other view.

Chen, He: Exploring simple Siamese representation learning, https://arxiv.org/abs/2011.10566, with the neighbours of
Dwibedi et al.: With a little help from my friends, https://arxiv.org/abs/2104.14548.
"""

import torch
from torch import Tensor

from solo.eval.metrics import mean_std
from solo.losses.pairs import unit
from solo.losses.views import simsiam_loss_func
from solo.methods.base import Outputs, TrainStep
from solo.methods.kwargs import NNPredictorKwargs
from solo.methods.simsiam import SimSiam
from solo.nn.queue import NeighbourQueue


class NNSiam(NeighbourQueue, SimSiam):
    """SimSiam's network and a queue of projections."""

    Kwargs = NNPredictorKwargs

    def build(self, kw: NNPredictorKwargs) -> None:  # type: ignore[override]
        super().build(kw)
        self.make_queue(kw.queue_size, kw.proj_output_dim)

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections at length 1, and `p`, the predictions, both (B, proj_output_dim)."""
        out = super().heads(feats)
        return {**out, "z": unit(out["z"])}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Mean of the two directions."""
        (z1, z2), (p1, p2) = out["z"], out["p"]
        (places, nn1), (_, nn2) = self.find_nn(z1), self.find_nn(z2)
        self.dequeue_and_enqueue(z1, step.targets)
        accuracy = self.neighbour_accuracy(places, step.targets, self.labelled(step.targets))
        self.log_metrics({"train_z_std": mean_std(torch.stack([z1, z2])), "train_nn_acc": accuracy})
        return (simsiam_loss_func(p1, nn2) + simsiam_loss_func(p2, nn1)) / 2
