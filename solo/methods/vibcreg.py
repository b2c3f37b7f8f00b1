"""VIbCReg: VICReg with a normalised covariance term, and whitened projections if wanted.

Lee, Aune: VIbCReg: Variance-invariance-better-covariance regularization, https://arxiv.org/abs/2109.00783.
"""

from torch import Tensor, nn

from solo.losses.views import correlation_loss, weigh
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import VIbCRegKwargs
from solo.nn.heads import ProjectorHeads, mlp
from solo.nn.whitening import LateIterNorm


class VIbCReg(ProjectorHeads, BaseMethod):
    """One projector; its loss keeps invariance, variance and covariance of two views."""

    Kwargs = VIbCRegKwargs
    trainable = ("projector",)
    metric = "train_vibcreg_loss"

    def build(self, kw: VIbCRegKwargs) -> None:
        width = kw.proj_output_dim
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, width, depth=3, activation=nn.GELU)
        self.projector.append(LateIterNorm(width, num_groups=64, T=5, dim=2) if kw.iternorm else nn.Identity())
        self._weights = kw.loss_weights()
        vars(self).update(self._weights)  # numbers that a program may change while it trains

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """VIbCReg on the two views."""
        (z1, z2), (*_, norm) = out["z"], self.projector.children()
        weights = [getattr(self, name) for name in self._weights]
        return weigh(z1, z2, weights, correlation_loss, getattr(norm, "whiten", None))
