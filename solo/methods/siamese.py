"""Methods that predict one view, or its nearest neighbour, from the other, with no negatives."""

import torch
from torch import Tensor

from solo.eval.metrics import mean_std
from solo.losses.views import byol_loss_func, simsiam_loss_func
from solo.methods.base import BaseMethod, MlpHeads, NeighbourQueue, Outputs, TrainStep
from solo.methods.catalogue import PredictorKwargs
from solo.methods.momentum import BaseMomentumMethod


class BYOL(MlpHeads, BaseMomentumMethod):
    """BYOL: predict what a slow copy of the network says of the other view.

    Grill et al.: Bootstrap your own latent, https://arxiv.org/abs/2006.07733. `type: HEX_*` blends HEX on the online
    projections in: `(1 - alpha) * BYOL + alpha * HEX`.
    """

    trainable = ("projector", "predictor")
    averaged = ("projector",)
    metric = "train_neg_cos_sim"

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Sum over the pairs of a large view and any other view, with HEX's share."""
        self.log_metrics({"train_z_std": mean_std(torch.stack(out["z"][: self.num_large_crops]))})
        pairs = ((p, m) for i, m in enumerate(out["momentum_z"]) for j, p in enumerate(out["p"]) if i != j)
        own = torch.stack([byol_loss_func(p, target) for p, target in pairs]).sum()
        return self.hex.blend(own, out["z"], step)


class NNBYOL(NeighbourQueue, BYOL):
    """NNBYOL: BYOL whose target is the nearest neighbour, in a queue of earlier images, of what the slow network says.

    The neighbours are those of Dwibedi et al.: With a little help from my friends, https://arxiv.org/abs/2104.14548.
    """

    unit_targets = True

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Sum of the two directions."""
        (p1, p2), (m1, m2) = out["p"], out["momentum_z"]
        nn1, nn2 = _neighbours(self, m1, m2, out, step)
        return byol_loss_func(p1, nn2) + byol_loss_func(p2, nn1)


class SimSiam(MlpHeads, BaseMethod):
    """SimSiam: predict the other view; stopping the gradient there is enough to prevent collapse.

    Chen, He: Exploring simple Siamese representation learning, https://arxiv.org/abs/2011.10566. `type: HEX_*` blends
    HEX on the projections in: `(1 - alpha) * SimSiam + alpha * HEX`.
    """

    trainable = ("projector", "predictor")
    group_options = {"predictor": {"static_lr": True}}  # its learning rate stays where it is
    metric = "train_neg_cos_sim"
    projector_form = {"depth": 3, "bias": False, "last_norm": "plain"}
    predictor_form = {"bias": False}

    def build(self, kw: PredictorKwargs) -> None:
        super().build(kw)
        self.projector[-2].bias.requires_grad_(False)  # the norm after it takes it away again

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Mean of the two directions, with HEX's share."""
        (z1, z2), (p1, p2) = out["z"], out["p"]
        self.log_metrics({"train_z_std": mean_std(torch.stack([z1, z2]))})
        own = (simsiam_loss_func(p1, z2) + simsiam_loss_func(p2, z1)) / 2
        return self.hex.blend(own, [z1, z2], step)


class NNSiam(NeighbourQueue, SimSiam):
    """NNSiam: SimSiam whose target is the nearest neighbour, in a queue of earlier images, of the other view.

    The neighbours are those of Dwibedi et al.: With a little help from my friends, https://arxiv.org/abs/2104.14548.
    """

    unit_outputs = True

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Mean of the two directions."""
        (z1, z2), (p1, p2) = out["z"], out["p"]
        nn1, nn2 = _neighbours(self, z1, z2, out, step)
        return (simsiam_loss_func(p1, nn2) + simsiam_loss_func(p2, nn1)) / 2


def _neighbours(
    method: NNBYOL | NNSiam, z1: Tensor, z2: Tensor, out: Outputs, step: TrainStep
) -> tuple[Tensor, Tensor]:
    """Nearest neighbours of two views' projections (B, D), of which the first are put into the queue then."""
    (places, nn1), (_, nn2) = method.find_nn(z1), method.find_nn(z2)
    method.dequeue_and_enqueue(z1, step.targets)
    accuracy = method.neighbour_accuracy(places, step.targets, method.labelled(step.targets))
    method.log_metrics({"train_z_std": mean_std(torch.stack(out["z"])), "train_nn_acc": accuracy})
    return nn1, nn2
