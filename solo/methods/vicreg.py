"""VICReg: views agree, features vary and do not repeat each other.

Bardes, Ponce, LeCun: VICReg: Variance-invariance-covariance regularization for self-supervised learning,
https://arxiv.org/abs/2105.04906. `type: HEX_*` blends HEX in: `(1 - alpha) * VICReg + alpha * 5 * HEX`.
"""

from functools import partial

from torch import Tensor

from solo.losses.views import vicreg_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import VICRegKwargs
from solo.nn.heads import ProjectorHeads, mlp


class VICReg(ProjectorHeads, BaseMethod):
    """One projector; its loss keeps invariance, variance and covariance of two views."""

    Kwargs = VICRegKwargs
    trainable = ("projector",)
    metric = "train_vicreg_loss"
    hex_scale = 5.0  # the release's, hidden in its code; VICReg's loss is large

    def build(self, kw: VICRegKwargs) -> None:
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim, depth=3)
        self._weights = kw.loss_weights()
        vars(self).update(self._weights)  # numbers that a program may change while it trains

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """VICReg on the two views, with HEX's share."""
        z1, z2 = out["z"]
        own = partial(vicreg_loss_func, z1, z2, **{name: getattr(self, name) for name in self._weights})
        return self.hex.blend(own, [z1, z2], step)
