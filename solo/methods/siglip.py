"""SigLIP for two views: a sigmoid for each pair of images, with a temperature and a bias that are learned.

Zhai, Mustafa, Kolesnikov, Beyer: Sigmoid loss for language image pre-training, https://arxiv.org/abs/2303.15343; here
the second view is what there is the text. `type: HEX_*` blends HEX in: `(1 - alpha) * SigLIP + alpha * HEX`.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn

from solo.losses.info_nce import siglip_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import SigLIPKwargs
from solo.nn.heads import ProjectorHeads, mlp
from solo.precision import at_least_float32


class SigLIP(ProjectorHeads, BaseMethod):
    """One projector, and two numbers that are trained with it."""

    Kwargs = SigLIPKwargs
    trainable = ("projector", "scale")
    group_options = {"scale": {"weight_decay": 0}}
    metric = "train_siglip_loss"

    def build(self, kw: SigLIPKwargs) -> None:
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim, norm=False)
        first = {"log_scale": -math.log(kw.temperature), "bias": kw.bias}
        self.scale = nn.ParameterDict({name: nn.Parameter(torch.tensor([value])) for name, value in first.items()})

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """The sigmoid loss of the two views, with HEX's share."""
        (z1, z2), scale = map(at_least_float32, out["z"]), self.scale  # once, for both losses: their gradients add up
        self.log_metrics({"train_temperature": (-scale["log_scale"]).exp(), "train_bias": scale["bias"]})
        return self.hex.blend(partial(siglip_loss_func, z1, z2, scale["log_scale"], scale["bias"]), [z1, z2], step)
