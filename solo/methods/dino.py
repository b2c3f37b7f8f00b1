"""DINO: a network predicts, on one view, what its slow copy says of another; the copy is centred and sharpened.

Caron et al.: Emerging properties in self-supervised vision transformers, https://arxiv.org/abs/2104.14294.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from solo.losses.targets import DINOLoss
from solo.methods.base import Outputs, TrainStep
from solo.methods.kwargs import DINOKwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.heads import WeightNormLinear, mlp


class DINOHead(nn.Module):
    """MLP of `num_layers` linear layers, rows to length 1, and prototypes, of length 1 with `norm_last_layer`."""

    def __init__(
        self,
        in_dim: int,
        num_prototypes: int,
        use_bn: bool = True,
        norm_last_layer: bool = True,
        num_layers: int = 3,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
    ) -> None:
        super().__init__()
        self.mlp = mlp(in_dim, hidden_dim, bottleneck_dim, depth=num_layers, norm=use_bn, activation=nn.GELU)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = WeightNormLinear(bottleneck_dim, num_prototypes, learn_length=not norm_last_layer)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_dim) -> (N, num_prototypes)."""
        scores: Tensor = self.last_layer(F.normalize(self.mlp(x), dim=-1))
        return scores


class DINO(BaseMomentumMethod):
    """A head with a slow copy."""

    Kwargs = DINOKwargs
    trainable: ClassVar[tuple[str, ...]] = ("head",)
    averaged: ClassVar[tuple[str, ...]] = ("head",)
    metric = "dino_loss"

    def build(self, kw: DINOKwargs) -> None:
        self.clip_grad, self.freeze_last_layer = kw.clip_grad, kw.freeze_last_layer
        self.head = self.make_head(kw)
        ends, epochs = (kw.warmup_teacher_temperature, kw.teacher_temperature), kw.warmup_teacher_temperature_epochs
        views, of_student = self.num_large_crops, kw.student_temperature
        self.dino_loss_func = DINOLoss(kw.num_prototypes, *ends, epochs, self.max_epochs, of_student, views)

    def make_head(self, kw: DINOKwargs) -> DINOHead:
        """A head on the backbone's features."""
        widths = {"hidden_dim": kw.proj_hidden_dim, "bottleneck_dim": kw.proj_output_dim}
        return DINOHead(self.features_dim, kw.num_prototypes, kw.use_bn_in_head, kw.norm_last_layer, **widths)

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the scores (B, num_prototypes)."""
        return {"z": self.head(feats)}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Cross-entropy of each view's scores, small ones too, under the slow ones of other large views."""
        self.dino_loss_func.epoch = step.epoch
        loss: Tensor = self.dino_loss_func(torch.cat(out["z"]), torch.cat(out["momentum_z"]))
        return loss

    def dino_clip_gradients(self, clip: float) -> None:
        """Shorten each gradient of the backbone, parameter by parameter, to `clip`."""
        grads = [p.grad for p in self.backbone.parameters() if p.grad is not None]
        if not grads:
            return
        shares = (clip / (torch.stack(torch._foreach_norm(grads)) + 1e-6)).clamp(max=1)
        torch._foreach_mul_(grads, list(shares.unbind()))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the backbone's gradients; leave the heads' last layers as they are in the first epochs."""
        if self.clip_grad:
            self.dino_clip_gradients(self.clip_grad)
        for name in self.averaged if self.current_epoch < self.freeze_last_layer else ():
            getattr(self, name).last_layer.zero_grad(set_to_none=True)
