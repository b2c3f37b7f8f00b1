"""DINO and DINOv2: a network predicts what its slow copy says of other views, or of patches that are hidden from it."""

from typing import Any, ClassVar

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from solo import distributed
from solo.args.schema import PretrainCfg
from solo.losses.targets import DINOLoss, ibot_loss_func, koleo_later, swav_loss_func, teacher_temperatures
from solo.methods.base import Outputs, TrainStep
from solo.methods.catalogue import DINOKwargs, DINOv2Kwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.clusters import SinkhornKnopp
from solo.nn.heads import WeightNormLinear, mlp
from solo.nn.vit import PatchTokens, rows_of


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
    """DINO: a network predicts, on one view, what its slow copy says of another; the copy is centred and sharpened.

    Caron et al.: Emerging properties in self-supervised vision transformers, https://arxiv.org/abs/2104.14294.
    """

    trainable: ClassVar[tuple[str, ...]] = ("head",)
    averaged: ClassVar[tuple[str, ...]] = ("head",)
    metric = "dino_loss"

    def build(self, kw: DINOKwargs) -> None:
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


class DINOv2(DINO):
    """DINOv2: DINO's loss on the class token, iBOT's on hidden patches, balanced targets, and features that keep apart.

    Oquab et al.: DINOv2, learning robust visual features without supervision, https://arxiv.org/abs/2304.07193. The
    loss is DINO + ibot_weight * iBOT + koleo_weight * KoLeo. Targets are balanced by Sinkhorn and Knopp's algorithm, as
    in SwAV; patches have a head of their own. Registers (https://arxiv.org/abs/2309.16588) are
    `backbone.kwargs.reg_tokens=4`.

    Otherwise than there, every second image of a batch has the same share of its patches hidden, where blurred noise is
    highest; there it is a tenth to half of them, in blocks.
    """

    trainable = ("head", "patch_head", "mask_token")
    averaged = ("head", "patch_head")
    metric = "dinov2_loss"

    def __init__(self, cfg: DictConfig | PretrainCfg) -> None:
        super().__init__(cfg)
        self._slow_tokens = PatchTokens(self.momentum_backbone, self.backbone_name)

    def build(self, kw: DINOv2Kwargs) -> None:  # type: ignore[override]
        """Make the heads, and listen to the backbone's patches."""
        self._tokens = PatchTokens(self.backbone, self.backbone_name)
        self.head, self.patch_head = self.make_head(kw), self.make_head(kw)
        self.mask_token = nn.ParameterList([torch.zeros(1, 1, self.features_dim)])
        epochs = kw.warmup_teacher_temperature_epochs
        ends = kw.warmup_teacher_temperature, kw.teacher_temperature
        self.temperatures = teacher_temperatures(*ends, epochs, self.max_epochs).tolist()

    def forward(self, X: Tensor) -> Outputs:
        """Adds in training `hidden` (b, k), places of hidden patches, and `patch_z`, their scores (b * k, P)."""
        if not self.training:
            return super().forward(X)
        side = X.shape[-1] // self._tokens.patch
        hidden = hidden_patches(len(X), side, self.mask_ratio, X.device)[::2]
        mask = torch.zeros(len(X), side**2, dtype=torch.bool, device=X.device)
        mask[::2].scatter_(1, hidden, True)
        with self._tokens.showing(hidden=(mask, self.mask_token[0])):
            out = super().forward(X)
        patches = rows_of(self._tokens.take()[::2], hidden)
        return {**out, "hidden": hidden, "patch_z": self.patch_head(patches.flatten(0, 1))}

    def momentum_heads(self, feats: Tensor) -> Outputs:
        """Adds `patches` (B, L, D) of the slow backbone, which sees all of them."""
        return {**super().momentum_heads(feats), "patches": self._slow_tokens.take()}

    def view_outputs(self, batch: Any) -> Outputs:
        """Adds `momentum_patch_z`, what the slow head says of the hidden patches."""
        out = super().view_outputs(batch)
        views = zip(out.pop("momentum_patches"), out.pop("hidden"), strict=True)
        with torch.no_grad():
            chosen = [rows_of(patches[::2], hidden).flatten(0, 1) for patches, hidden in views]
            return {**out, "momentum_patch_z": [self.momentum_patch_head(patches) for patches in chosen]}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """DINO's loss over all views, iBOT's and KoLeo's over the large ones."""
        views = self.num_large_crops
        balanced = SinkhornKnopp(epsilon=self.temperatures[min(step.epoch, self.max_epochs - 1)])
        koleo = koleo_later(torch.stack(out["feats"][:views]))
        target, patches = balanced.each(torch.cat(out["momentum_z"]), torch.cat(out["momentum_patch_z"]))
        dino = swav_loss_func(out["z"], target.chunk(views), self.student_temperature)
        ibot = ibot_loss_func(torch.cat(out["patch_z"]), patches, self.student_temperature)
        loss: Tensor = dino + self.ibot_weight * ibot + self.koleo_weight * koleo()
        return loss


def hidden_patches(rows: int, side: int, ratio: float, device: torch.device) -> Tensor:
    """Places (rows, k) of the patches to hide, of grids of `side` x `side`: k of them, one at least, side by side.

    They are where noise, blurred over three patches, is highest; drawn for the rows of all processes, which are seeded
    alike.
    """
    noise = torch.rand(rows * distributed.world_size(), 1, side, side, device=device)
    noise = F.avg_pool2d(noise, 3, stride=1, padding=1, count_include_pad=False) if side > 3 else noise
    count = max(1, int(ratio * side**2))
    return distributed.own_rows(noise).flatten(1).topk(count, dim=1).indices
