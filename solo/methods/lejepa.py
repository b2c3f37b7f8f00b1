"""LeJEPA: embeddings of views agree, and are kept from collapsing by being an isotropic Gaussian; nothing else.

Balestriero, LeCun: LeJEPA: Provable and scalable self-supervised learning without the heuristics,
https://arxiv.org/abs/2511.08544. No slow copy, no stopped gradient, no queue: random slices of the embeddings are
compared with a Gaussian (SIGReg). `type: HEX_*` blends HEX in: `(1 - alpha) * LeJEPA + alpha * HEX`.
"""

from functools import partial

import torch
from torch import Tensor

from solo import distributed
from solo.losses.views import lejepa_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import LeJEPAKwargs
from solo.nn.heads import ProjectorHeads, mlp


class LeJEPA(ProjectorHeads, BaseMethod):
    """One projector; any number of large and small views."""

    Kwargs = LeJEPAKwargs
    trainable = ("projector",)
    metric = "train_lejepa_loss"

    def build(self, kw: LeJEPAKwargs) -> None:
        self.lamb, self.num_slices = kw.lamb, kw.num_slices
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim, depth=3)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """LeJEPA on all views, with HEX's share; slices are drawn in each step, the same on all processes."""
        z = out["z"]
        directions = distributed.of_first(torch.randn(z[0].shape[1], self.num_slices, device=z[0].device))
        own = partial(lejepa_loss_func, z, directions.to(z[0].dtype), self.lamb, self.num_large_crops)
        return self.hex.blend(own, z, step)
