"""BYOL: predict what a slow copy of the network says of the other view.

Grill et al.: Bootstrap your own latent, https://arxiv.org/abs/2006.07733. `type: HEX_*` blends HEX on the online
projections in: `(1 - alpha) * BYOL + alpha * HEX`.
"""

import torch
from torch import Tensor

from solo.eval.metrics import mean_std
from solo.losses.views import byol_loss_func
from solo.methods.base import Outputs, TrainStep
from solo.methods.kwargs import PredictorKwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.heads import PredictorHeads, mlp


class BYOL(PredictorHeads, BaseMomentumMethod):
    """Projector with a slow copy, and a predictor."""

    Kwargs = PredictorKwargs
    trainable = ("projector", "predictor")
    averaged = ("projector",)
    metric = "train_neg_cos_sim"

    def build(self, kw: PredictorKwargs) -> None:
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim)
        self.predictor = mlp(kw.proj_output_dim, kw.pred_hidden_dim, kw.proj_output_dim)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Sum over the pairs of a large view and any other view, with HEX's share."""
        self.log_metrics({"train_z_std": mean_std(torch.stack(out["z"][: self.num_large_crops]))})
        own = torch.stack(
            [
                byol_loss_func(p, target)
                for i, target in enumerate(out["momentum_z"])
                for j, p in enumerate(out["p"])
                if i != j
            ]
        ).sum()
        return self.hex.blend(own, out["z"], step)
