"""MoCo v3: InfoNCE between predictions and a slow network's projections of the batch, without a queue.

Chen, Xie, He: An empirical study of training self-supervised vision transformers, https://arxiv.org/abs/2104.02057.
"""

from typing import Literal

from torch import Tensor, nn

from solo.losses.info_nce import mocov3_loss_func
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
        self.temperature = kw.temperature
        resnet, width = "resnet" in self.backbone_name, kw.proj_output_dim
        self.projector = self._build_mlp(2 if resnet else 3, self.features_dim, kw.proj_hidden_dim, width)
        self.predictor = self._build_mlp(2, width, kw.pred_hidden_dim, width, last_bn=not resnet)

    def _build_mlp(
        self, num_layers: int, input_dim: int, mlp_dim: int, output_dim: int, last_bn: bool = True
    ) -> nn.Module:
        last_norm: Literal["plain"] | None = "plain" if last_bn else None
        return mlp(input_dim, mlp_dim, output_dim, depth=num_layers, bias=False, last_bias=False, last_norm=last_norm)

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
