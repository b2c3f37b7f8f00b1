"""MoCo v3: InfoNCE between predictions and a slow network's projections of the batch, without a queue.

Chen, Xie, He: An empirical study of training self-supervised vision transformers, https://arxiv.org/abs/2104.02057.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from solo.losses.mocov3 import mocov3_loss_func
from solo.methods.base import Outputs, TrainStep
from solo.methods.kwargs import MoCoV3Kwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.heads import mlp


class MoCoV3(BaseMomentumMethod):
    """Projector with a slow copy, and a predictor; heads without biases, of a depth that depends on the backbone."""

    Kwargs = MoCoV3Kwargs
    trainable = ("projector", "predictor")
    averaged = ("projector",)
    metric = "train_contrastive_loss"
    momentum_projector: nn.Module

    def build(self, kw: MoCoV3Kwargs) -> None:
        """Make projector and predictor."""
        self.temperature = kw.temperature
        resnet = "resnet" in self.backbone_name
        head = partial(mlp, bias=False, last_bias=False)
        width = kw.proj_output_dim
        depth = 2 if resnet else 3
        self.projector = head(self.features_dim, kw.proj_hidden_dim, width, depth=depth, last_norm="plain")
        self.predictor = head(width, kw.pred_hidden_dim, width, last_norm=None if resnet else "plain")

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections, and `q`, the predictions, both (B, proj_output_dim)."""
        z = self.projector(feats)
        return {"z": z, "q": self.predictor(z)}

    def momentum_heads(self, feats: Tensor) -> Outputs:
        """Add `k`, the slow projections (B, proj_output_dim)."""
        return {"k": self.momentum_projector(feats)}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Sum of the two directions."""
        (q1, q2), (k1, k2) = out["q"], out["momentum_k"]
        return mocov3_loss_func(q1, k2, self.temperature) + mocov3_loss_func(q2, k1, self.temperature)
