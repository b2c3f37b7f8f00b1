"""MAE and I-JEPA: a network sees some patches of an image, and others are predicted."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from solo import distributed
from solo.backbones.from_timm import Block, MaskedViT, VisionTransformer
from solo.errors import UserError
from solo.losses.targets import ijepa_loss_func, mae_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.catalogue import IJEPAKwargs, MAEKwargs
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.vit import PatchTokens, generate_2d_sincos_pos_embed, rows_of

ASPECTS = (0.75, 0.95, 1.2, 1.5)  # of I-JEPA's four blocks, height to width
_NORM: Any = partial(nn.LayerNorm, eps=1e-6)


class MAEDecoder(nn.Module):
    """A small transformer that sees the kept patches' features, and a token for each removed one."""

    def __init__(
        self,
        in_dim: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        num_patches: int,
        patch_size: int,
        mlp_ratio: float = 4.0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.decoder_embed = nn.Linear(in_dim, embed_dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, embed_dim))
        table = generate_2d_sincos_pos_embed(embed_dim, math.isqrt(num_patches), cls_token=True)
        self.decoder_pos_embed = nn.Parameter(torch.from_numpy(table).float()[None], requires_grad=False)
        blocks = (Block(embed_dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=_NORM) for _ in range(depth))
        self.decoder_blocks = nn.Sequential(*blocks)
        self.decoder_norm = _NORM(embed_dim)
        self.decoder_pred = nn.Linear(embed_dim, in_channels * patch_size**2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, ids_restore: Tensor) -> Tensor:
        """Class token and kept patches (N, 1 + K, in_dim), places (N, L) in `[kept, removed]` -> pixels (N, L, P)."""
        x = self.decoder_embed(x)
        tokens = self.mask_token.to(x.dtype).expand(len(x), ids_restore.shape[1] + 1 - x.shape[1], -1)
        patches = torch.cat([x[:, 1:], tokens], dim=1)  # (N, L, embed_dim): kept, then removed
        x = torch.cat([x[:, :1], rows_of(patches, ids_restore)], dim=1) + self.decoder_pos_embed
        pixels: Tensor = self.decoder_pred(self.decoder_norm(self.decoder_blocks(x)))
        return pixels[:, 1:]


class MAE(BaseMethod):
    """MAE: reconstruct the patches of an image that the encoder didn't see.

    He et al.: Masked autoencoders are scalable vision learners, https://arxiv.org/abs/2111.06377.
    """

    trainable = ("decoder",)
    metric = "train_reconstruction_loss"

    def build(self, kw: MAEKwargs) -> None:
        if not isinstance(self.backbone, MaskedViT):
            what = f"backbone.name={self.backbone_name!r} can't encode a part of an image, which method 'mae' needs"
            raise UserError(f"{what}; choose vit_tiny, vit_small, vit_base or vit_large")
        patches = self.backbone.patch_embed
        self.patch_size: int = patches.patch_size[0]
        sizes = (kw.decoder_embed_dim, kw.decoder_depth, kw.decoder_num_heads, patches.num_patches, self.patch_size)
        self.decoder = MAEDecoder(self.features_dim, *sizes, in_channels=patches.proj.in_channels)

    def forward(self, X: Tensor) -> Outputs:
        """Images -> `logits`, `feats`; in training also `mask` (N, L), 1 for removed, and `pred` of the decoder."""
        if not self.training:
            return super().forward(X)
        feats, patches, mask, ids_restore = self.backbone(self.in_memory_format(X), self.mask_ratio)
        pred = self.decoder(patches, ids_restore)
        return {"logits": self.classifier(feats.detach()), "feats": feats, "mask": mask, "pred": pred}

    def view_outputs(self, batch: Any) -> Outputs:
        """Adds `images`, the large views themselves."""
        out = super().view_outputs(batch)
        views = [batch[1]] if isinstance(batch[1], Tensor) else batch[1]
        return {**out, "images": views[: self.num_large_crops]}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        views = zip(out["images"], out["pred"], out["mask"], strict=True)
        losses = [mae_loss_func(x, pred, mask, self.patch_size, self.norm_pix_loss) for x, pred, mask in views]
        return torch.stack(losses).mean()


class Predictor(nn.Module):
    """A narrow transformer over kept patches, and a token for each place that is asked for."""

    places: Tensor

    def __init__(self, in_dim: int, embed_dim: int, depth: int, num_heads: int, side: int) -> None:
        super().__init__()
        table = torch.from_numpy(generate_2d_sincos_pos_embed(embed_dim, side)).float()
        self.register_buffer("places", table, persistent=False)
        self.embed, self.out = nn.Linear(in_dim, embed_dim), nn.Linear(embed_dim, in_dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(embed_dim))
        blocks = (Block(embed_dim, num_heads, qkv_bias=True, norm_layer=_NORM) for _ in range(depth))
        self.blocks, self.norm = nn.Sequential(*blocks), _NORM(embed_dim)

    def forward(self, kept: Tensor, where: Tensor, asked: Tensor) -> Tensor:
        """Kept patches (N, K, in_dim), their places (N, K) and places (N, T) -> features there, (N, T, in_dim)."""
        x = self.embed(kept) + self.places[where]
        x = torch.cat([x, (self.mask_token + self.places[asked]).to(x.dtype)], dim=1)
        features: Tensor = self.out(self.norm(self.blocks(x)[:, where.shape[1] :]))
        return features


class IJEPA(BaseMomentumMethod):
    """I-JEPA: from some patches of an image predict what a slow copy makes of blocks that are hidden.

    Assran et al.: Self-supervised learning from images with a joint-embedding predictive architecture,
    https://arxiv.org/abs/2301.08243. The loss is the mean over four blocks of the smooth L1 distance of predicted
    features to the slow network's, standardised; an image's features are the mean of its patches'. Otherwise than there
    the sizes of the blocks stay, and of the patches outside of them as many are kept as there always are.
    """

    trainable = ("predictor",)
    patch_targets = True
    metric = "ijepa_loss"

    def build(self, kw: IJEPAKwargs) -> None:
        if not isinstance(self.backbone, VisionTransformer) or self.backbone.global_pool != "avg":
            what = f"the patches of a ViT are trained, and the features of backbone.name={self.backbone_name!r}"
            cure = "choose vit_small, or timm's with backbone.kwargs={class_token:false,global_pool:avg}"
            raise UserError(f"{what} are no mean of these; {cure}")
        self._tokens = PatchTokens(self.backbone, self.backbone_name)
        side = self._tokens.grid[0] or 1  # 0: the image is smaller than a patch, which `check_sizes` says
        length = kw.target_scale**0.5 * side
        self.blocks = [(max(1, round(length * a**0.5)), max(1, round(length / a**0.5))) for a in ASPECTS]
        if self._tokens.grid[0] and sum(high * wide for high, wide in self.blocks) >= side**2:
            what = f"{len(ASPECTS)} blocks of method_kwargs.target_scale={kw.target_scale} leave nothing of"
            raise UserError(f"{what} {side} x {side} patches; lower it, or take a smaller backbone.kwargs.patch_size")
        sizes = kw.predictor_embed_dim, kw.predictor_depth, kw.predictor_num_heads
        self.predictor = Predictor(self.features_dim, *sizes, side)

    def forward(self, X: Tensor) -> Outputs:
        """Adds in training `pred` (B, T, D), features of hidden patches, and their `places` (B, T)."""
        if not self.training:
            return super().forward(X)
        kept, blocks = self.draw(len(X), X.device)
        with self._tokens.showing(kept=kept):
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
            top = (corner[0] * (side - high + 1)).long()
            left = (corner[1] * (side - wide + 1)).long()
            down = torch.arange(high, device=device)[:, None]
            along = torch.arange(wide, device=device)
            blocks.append(((top + down) * side + left + along).flatten(1))
        noise = torch.rand(total, side**2, device=device).scatter_(1, torch.cat(blocks, dim=1), -1.0)
        kept = noise.topk(side**2 - sum(high * wide for high, wide in self.blocks), dim=1).indices
        return distributed.own_rows(kept), [distributed.own_rows(block) for block in blocks]

    def view_outputs(self, batch: Any) -> Outputs:
        """Adds `momentum_target` (B, T, D), the slow features of the hidden patches."""
        out = super().view_outputs(batch)
        views = zip(out.pop("momentum_patches"), out.pop("places"), strict=True)
        return {**out, "momentum_target": [rows_of(patches, places) for patches, places in views]}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        return torch.stack([*map(ijepa_loss_func, out["pred"], out["momentum_target"])]).mean()
