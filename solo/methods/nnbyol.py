"""NNBYOL: BYOL whose target is the nearest neighbour, in a queue of earlier images, of what the slow network says.

Grill et al.: Bootstrap your own latent, https://arxiv.org/abs/2006.07733, with the neighbours of Dwibedi et al.:
With a little help from my friends, https://arxiv.org/abs/2104.14548.
"""

import torch
from torch import Tensor

from solo.eval.metrics import mean_std
from solo.losses.views import byol_loss_func
from solo.methods.base import Outputs, TrainStep
from solo.methods.byol import BYOL
from solo.methods.kwargs import NNPredictorKwargs
from solo.nn.queue import NeighbourQueue


class NNBYOL(NeighbourQueue, BYOL):
    """BYOL's network and a queue of slow projections."""

    Kwargs = NNPredictorKwargs
    unit_targets = True

    def build(self, kw: NNPredictorKwargs) -> None:  # type: ignore[override]
        super().build(kw)
        self.make_queue(kw.queue_size, kw.proj_output_dim)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Sum of the two directions."""
        (p1, p2), (m1, m2) = out["p"], out["momentum_z"]
        (places, nn1), (_, nn2) = self.find_nn(m1), self.find_nn(m2)
        self.dequeue_and_enqueue(m1, step.targets)
        accuracy = self.neighbour_accuracy(places, step.targets, self.labelled(step.targets))
        self.log_metrics({"train_z_std": mean_std(torch.stack(out["z"])), "train_nn_acc": accuracy})
        return byol_loss_func(p1, nn2) + byol_loss_func(p2, nn1)
