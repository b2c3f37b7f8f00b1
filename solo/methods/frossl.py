"""FroSSL: views agree, and the Frobenius norm of their covariance is small, which makes its eigenvalues equal.

Skean, Dhakal, Jacobs, Sanchez Giraldo: FroSSL: Frobenius norm minimization for efficient multiview self-supervised
learning, https://arxiv.org/abs/2310.02903. `type: HEX_*` blends HEX in: `(1 - alpha) * FroSSL + alpha * HEX`.
"""

from functools import partial

from torch import Tensor

from solo.losses.views import frossl_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import FroSSLKwargs
from solo.nn.heads import ProjectorHeads, mlp
from solo.precision import at_least_float32


class FroSSL(ProjectorHeads, BaseMethod):
    """One projector; any number of large views."""

    Kwargs = FroSSLKwargs
    trainable = ("projector",)
    metric = "train_frossl_loss"

    def build(self, kw: FroSSLKwargs) -> None:
        self.invariance_weight = kw.invariance_weight
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, kw.proj_output_dim, depth=3)

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """FroSSL on all views, with HEX's share."""
        z = [at_least_float32(view) for view in out["z"]]  # once, for both losses: their gradients add up
        return self.hex.blend(partial(frossl_loss_func, z, self.invariance_weight), z, step)
