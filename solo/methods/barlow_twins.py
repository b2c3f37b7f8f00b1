"""Barlow Twins: the cross-correlation of two views should be the identity.

Zbontar, Jing, Misra, LeCun, Deny: Barlow Twins: Self-supervised learning via redundancy reduction,
https://arxiv.org/abs/2103.03230. `type: HEX_*` blends HEX in: `(1 - alpha) * Barlow + alpha * HEX`.
"""

from functools import partial

from torch import Tensor

from solo.losses.views import barlow_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import BarlowTwinsKwargs
from solo.nn.heads import ProjectorHeads, mlp


class BarlowTwins(ProjectorHeads, BaseMethod):
    """One projector, one correlation matrix."""

    Kwargs = BarlowTwinsKwargs
    trainable = ("projector",)
    metric = "train_barlow_loss"

    def build(self, kw: BarlowTwinsKwargs) -> None:
        self.lamb, self.scale_loss = kw.lamb, kw.scale_loss
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim, depth=3)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Barlow Twins on the two views, with HEX's share."""
        z1, z2 = out["z"]
        own = partial(barlow_loss_func, z1, z2, lamb=self.lamb, scale_loss=self.scale_loss)
        return self.hex.blend(own, [z1, z2], step)
