"""SimSiam: predict the other view; stopping the gradient there is enough to prevent collapse.

Chen, He: Exploring simple Siamese representation learning, https://arxiv.org/abs/2011.10566. `type: HEX_*` blends
HEX on the projections in: `(1 - alpha) * SimSiam + alpha * HEX`.
"""

import torch
from torch import Tensor

from solo.eval.metrics import mean_std
from solo.losses.views import simsiam_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import PredictorKwargs
from solo.nn.heads import PredictorHeads, mlp


class SimSiam(PredictorHeads, BaseMethod):
    """A projector and a predictor; the target's gradient is stopped."""

    Kwargs = PredictorKwargs
    trainable = ("projector", "predictor")
    group_options = {"predictor": {"static_lr": True}}  # its learning rate stays where it is
    metric = "train_neg_cos_sim"

    def build(self, kw: PredictorKwargs) -> None:
        """Make the projector, whose last layer is normalised, and the predictor."""
        hidden, width = kw.proj_hidden_dim, kw.proj_output_dim
        self.projector = mlp(self.features_dim, hidden, width, depth=3, bias=False, last_norm="plain")
        self.projector[-2].bias.requires_grad_(False)  # the norm after it takes it away again
        self.predictor = mlp(width, kw.pred_hidden_dim, width, bias=False)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Mean of the two directions, with HEX's share."""
        (z1, z2), (p1, p2) = out["z"], out["p"]
        self.log_metrics({"train_z_std": mean_std(torch.stack([z1, z2]))})
        own = (simsiam_loss_func(p1, z2) + simsiam_loss_func(p2, z1)) / 2
        return self.hex.blend(own, [z1, z2], step)
