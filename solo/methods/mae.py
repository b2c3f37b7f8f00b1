"""MAE: reconstruct the patches of an image that the encoder didn't see.

He et al.: Masked autoencoders are scalable vision learners, https://arxiv.org/abs/2111.06377.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from solo.backbones.from_timm import Block
from solo.backbones.vit import MaskedViT
from solo.errors import UserError
from solo.losses.targets import mae_loss_func
from solo.methods.base import BaseMethod, Outputs, TrainStep
from solo.methods.kwargs import MAEKwargs
from solo.nn.positional_encodings import generate_2d_sincos_pos_embed


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
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.decoder_embed = nn.Linear(in_dim, embed_dim)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, embed_dim))
        table = generate_2d_sincos_pos_embed(embed_dim, math.isqrt(num_patches), cls_token=True)
        self.decoder_pos_embed = nn.Parameter(torch.from_numpy(table).float()[None], requires_grad=False)
        blocks = (Block(embed_dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        self.decoder_blocks = nn.Sequential(*blocks)
        self.decoder_norm = norm(embed_dim)
        self.decoder_pred = nn.Linear(embed_dim, in_channels * patch_size**2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, ids_restore: Tensor) -> Tensor:
        """Class token and kept patches (N, 1 + kept, in_dim) -> pixels (N, L, patch_size^2 * in_channels).

        `ids_restore` (N, L) is the place of each patch in `[kept, removed]`.
        """
        x = self.decoder_embed(x)
        tokens = self.mask_token.to(x.dtype).expand(len(x), ids_restore.shape[1] + 1 - x.shape[1], -1)
        patches = torch.cat([x[:, 1:], tokens], dim=1)  # (N, L, embed_dim): kept, then removed
        patches = patches.gather(1, ids_restore[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_pos_embed
        pixels: Tensor = self.decoder_pred(self.decoder_norm(self.decoder_blocks(x)))
        return pixels[:, 1:]


class MAE(BaseMethod):
    """A ViT that encodes some patches, and a decoder; any number of large views."""

    Kwargs = MAEKwargs
    trainable = ("decoder",)
    metric = "train_reconstruction_loss"

    def build(self, kw: MAEKwargs) -> None:
        """Make the decoder, for a backbone that can encode a part of an image."""
        if not isinstance(self.backbone, MaskedViT):
            raise UserError(
                f"backbone.name={self.backbone_name!r} can't encode a part of an image, which method 'mae' needs; "
                "choose vit_tiny, vit_small, vit_base or vit_large"
            )
        patches = self.backbone.patch_embed
        self.mask_ratio, self.norm_pix_loss = kw.mask_ratio, kw.norm_pix_loss
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
        """Mean over the large views of the squared error on the removed patches."""
        views = zip(out["images"], out["pred"], out["mask"], strict=True)
        losses = [mae_loss_func(x, pred, mask, self.patch_size, self.norm_pix_loss) for x, pred, mask in views]
        return torch.stack(losses).mean()
