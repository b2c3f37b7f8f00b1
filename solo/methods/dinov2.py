"""DINOv2: DINO's loss on the class token, iBOT's on hidden patches, balanced targets, and features that keep apart.

Oquab et al.: DINOv2, learning robust visual features without supervision, https://arxiv.org/abs/2304.07193. The loss is
DINO + ibot_weight * iBOT + koleo_weight * KoLeo. Targets are balanced by Sinkhorn and Knopp's algorithm, as in SwAV;
patches have a head of their own. Registers (https://arxiv.org/abs/2309.16588) are `backbone.kwargs.reg_tokens=4`.

Otherwise than there, every second image of a batch has the same share of its patches hidden, where blurred noise is
highest; there it is a tenth to half of them, in blocks.
"""

from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.args.schema import PretrainCfg
from solo.losses.targets import ibot_loss_func, koleo_later, swav_loss_func, teacher_temperatures
from solo.methods.base import Outputs, TrainStep
from solo.methods.dino import DINO
from solo.methods.kwargs import DINOv2Kwargs
from solo.nn.sinkhorn_knopp import SinkhornKnopp
from solo.nn.tokens import PatchTokens, rows_of


class DINOv2(DINO):
    """Two heads with slow copies, and a token that stands for a hidden patch."""

    Kwargs = DINOv2Kwargs
    trainable = ("head", "patch_head", "mask_token")
    averaged = ("head", "patch_head")
    metric = "dinov2_loss"
    momentum_patch_head: nn.Module

    def __init__(self, cfg: DictConfig | PretrainCfg) -> None:
        super().__init__(cfg)
        self._slow_tokens = PatchTokens(self.momentum_backbone, self.backbone_name)

    def build(self, kw: DINOv2Kwargs) -> None:  # type: ignore[override]
        """Make the heads, and listen to the backbone's patches."""
        self.clip_grad, self.freeze_last_layer = kw.clip_grad, kw.freeze_last_layer
        self._tokens = PatchTokens(self.backbone, self.backbone_name)
        self.head, self.patch_head = self.make_head(kw), self.make_head(kw)
        self.mask_token = nn.ParameterList([torch.zeros(1, 1, self.features_dim)])
        self.student_temperature, self.mask_ratio = kw.student_temperature, kw.mask_ratio
        self.ibot_weight, self.koleo_weight = kw.ibot_weight, kw.koleo_weight
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
        with self._tokens.hiding(mask, self.mask_token[0]):
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
        return dino + self.ibot_weight * ibot + self.koleo_weight * koleo()


def hidden_patches(rows: int, side: int, ratio: float, device: torch.device) -> Tensor:
    """Places (rows, k) of the patches to hide, of grids of `side` x `side`: k of them, one at least, side by side.

    They are where noise, blurred over three patches, is highest; drawn for the rows of all processes, which are seeded
    alike.
    """
    noise = torch.rand(rows * distributed.world_size(), 1, side, side, device=device)
    noise = F.avg_pool2d(noise, 3, stride=1, padding=1, count_include_pad=False) if side > 3 else noise
    count = max(1, int(ratio * side**2))
    return distributed.own_rows(noise).flatten(1).topk(count, dim=1).indices
