"""I-JEPA: from some patches of an image predict what a slow copy makes of blocks that are hidden.

Assran et al.: Self-supervised learning from images with a joint-embedding predictive architecture,
https://arxiv.org/abs/2301.08243. The loss is the mean over four blocks of the smooth L1 distance of predicted features
to the slow network's, standardised; an image's features are the mean of its patches'. Otherwise than there the sizes of
the blocks stay, and of the patches outside of them as many are kept as there always are.
"""

from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from solo import distributed
from solo.args.schema import PretrainCfg
from solo.backbones.from_timm import Block, VisionTransformer
from solo.errors import UserError
from solo.losses.targets import ijepa_loss_func
from solo.methods.base import Outputs, TrainStep
from solo.methods.kwargs import IJEPAKwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.positional_encodings import generate_2d_sincos_pos_embed
from solo.nn.tokens import PatchTokens, rows_of

ASPECTS = (0.75, 0.95, 1.2, 1.5)  # of the four blocks, height to width


class Predictor(nn.Module):
    """A narrow transformer over kept patches, and a token for each place that is asked for."""

    places: Tensor

    def __init__(self, in_dim: int, embed_dim: int, depth: int, num_heads: int, side: int) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        table = torch.from_numpy(generate_2d_sincos_pos_embed(embed_dim, side)).float()
        self.register_buffer("places", table, persistent=False)
        self.embed, self.out = nn.Linear(in_dim, embed_dim), nn.Linear(embed_dim, in_dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(embed_dim))
        blocks = (Block(embed_dim, num_heads, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        self.blocks, self.norm = nn.Sequential(*blocks), norm(embed_dim)

    def forward(self, kept: Tensor, where: Tensor, asked: Tensor) -> Tensor:
        """Kept patches (N, K, in_dim), their places (N, K) and places (N, T) -> features there, (N, T, in_dim)."""
        x = self.embed(kept) + self.places[where]
        x = torch.cat([x, (self.mask_token + self.places[asked]).to(x.dtype)], dim=1)
        features: Tensor = self.out(self.norm(self.blocks(x)[:, where.shape[1] :]))
        return features


class IJEPA(BaseMomentumMethod):
    """A ViT that encodes some patches, a predictor, and a slow copy that encodes all; any number of large views."""

    Kwargs = IJEPAKwargs
    trainable = ("predictor",)
    metric = "ijepa_loss"

    def __init__(self, cfg: DictConfig | PretrainCfg) -> None:
        super().__init__(cfg)
        self._slow_tokens = PatchTokens(self.momentum_backbone, self.backbone_name)

    def build(self, kw: IJEPAKwargs) -> None:
        """Make the predictor, for a ViT whose features are the mean of its patches."""
        if not isinstance(self.backbone, VisionTransformer) or self.backbone.global_pool != "avg":
            raise UserError(
                f"the patches of a ViT are trained, and the features of backbone.name={self.backbone_name!r} are no "
                "mean of these; choose vit_small, or timm's with backbone.kwargs={class_token:false,global_pool:avg}"
            )
        self._tokens = PatchTokens(self.backbone, self.backbone_name)
        side = self._tokens.grid[0] or 1  # 0: the image is smaller than a patch, which `check_sizes` says
        length = kw.target_scale**0.5 * side
        self.blocks = [(max(1, round(length * a**0.5)), max(1, round(length / a**0.5))) for a in ASPECTS]
        if self._tokens.grid[0] and sum(high * wide for high, wide in self.blocks) >= side**2:
            raise UserError(
                f"{len(ASPECTS)} blocks of method_kwargs.target_scale={kw.target_scale} leave nothing of {side} x "
                f"{side} patches; lower it, or take a smaller backbone.kwargs.patch_size"
            )
        sizes = kw.predictor_embed_dim, kw.predictor_depth, kw.predictor_num_heads
        self.predictor = Predictor(self.features_dim, *sizes, side)

    def forward(self, X: Tensor) -> Outputs:
        """Adds in training `pred` (B, T, D), features of hidden patches, and their `places` (B, T)."""
        if not self.training:
            return super().forward(X)
        kept, blocks = self.draw(len(X), X.device)
        with self._tokens.keeping(kept):
            out = super().forward(X)
        context = self._tokens.take()
        pred = torch.cat([self.predictor(context, kept, block) for block in blocks], dim=1)
        return {**out, "pred": pred, "places": torch.cat(blocks, dim=1)}

    def draw(self, rows: int, device: torch.device) -> tuple[Tensor, list[Tensor]]:
        """Places of the kept patches (rows, K), and of those of each block (rows, height * width)."""
        side, total = self._tokens.grid[0], rows * distributed.world_size()  # seeded alike, all draw for all
        blocks = []
        for high, wide in self.blocks:
            corner = torch.rand(2, total, 1, 1, device=device)
            top, left = (corner[0] * (side - high + 1)).long(), (corner[1] * (side - wide + 1)).long()
            down, along = torch.arange(high, device=device)[:, None], torch.arange(wide, device=device)
            blocks.append(((top + down) * side + left + along).flatten(1))
        noise = torch.rand(total, side**2, device=device).scatter_(1, torch.cat(blocks, dim=1), -1.0)
        kept = noise.topk(side**2 - sum(high * wide for high, wide in self.blocks), dim=1).indices
        return distributed.own_rows(kept), [distributed.own_rows(block) for block in blocks]

    def momentum_heads(self, feats: Tensor) -> Outputs:
        """Adds `patches` (B, L, D) of the slow backbone, which sees all of them."""
        return {"patches": self._slow_tokens.take()}

    def view_outputs(self, batch: Any) -> Outputs:
        """Adds `momentum_target` (B, T, D), the slow features of the hidden patches."""
        out = super().view_outputs(batch)
        views = zip(out.pop("momentum_patches"), out.pop("places"), strict=True)
        return {**out, "momentum_target": [rows_of(patches, places) for patches, places in views]}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """Mean over the large views of the distance of what is predicted to what the slow network sees."""
        return torch.stack([*map(ijepa_loss_func, out["pred"], out["momentum_target"])]).mean()
