"""timm's models, the vision transformers of MoCo v3 and of the masked autoencoder (MAE).

Imported when something of timm's is asked for, which takes longer than this package; others have it from here.
Letters: N images, L patches, D width.

Dosovitskiy et al.: An image is worth 16x16 words, https://arxiv.org/abs/2010.11929.
Chen, Xie, He: An empirical study of training self-supervised vision transformers, https://arxiv.org/abs/2104.02057.
He et al.: Masked autoencoders are scalable vision learners, https://arxiv.org/abs/2111.06377.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo import distributed
from solo.errors import UserError

if TYPE_CHECKING or {"timm", "wandb"} & set(sys.modules):
    import timm as timm
else:  # it imports W&B to see whether that is there, which takes as long as timm itself
    sys.modules["wandb"] = None
    try:
        import timm as timm
    finally:
        del sys.modules["wandb"]
from timm.layers import build_sincos2d_pos_embed  # type: ignore[attr-defined]
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block as Block
from timm.models.vision_transformer import VisionTransformer as VisionTransformer


def timm_model(name: str, method: str | None = None, *args: Any, **kwargs: Any) -> nn.Module:
    """A model of timm's without classifier, the same for every `method`; the rest goes to `timm.create_model`."""
    model: nn.Module = timm.create_model(name, *args, **{"num_classes": 0, **kwargs})
    return model


class SinCosViT(VisionTransformer):
    """The ViT of MoCo v3: fixed 2-D sin-cos positions and Xavier-uniform weights.

    Query, key and value count as three matrices in the initialisation, the patch projection as one linear layer. The
    arguments are timm's (`img_size`, `patch_size`, `drop_path_rate`, ...).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"weight_init": "moco", **kwargs})
        grid = list(self.patch_embed.grid_size)
        table = build_sincos2d_pos_embed(grid, self.embed_dim, interleave_sin_cos=True)  # (L, D): [row, column]
        table = table.roll(self.embed_dim // 2, dims=1)  # [column, row], as in MAE
        prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        self.pos_embed = nn.Parameter(F.pad(table, (0, 0, prefix, 0))[None], requires_grad=False)
        proj: Any = self.patch_embed.proj
        nn.init.xavier_uniform_(proj.weight.data.flatten(1))  # a view
        nn.init.zeros_(proj.bias)


class MaskedViT(SinCosViT):
    """The encoder of MAE: only the patches that are not masked go through the blocks; arguments as `SinCosViT`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)
        for name, weight in self.named_parameters():
            if name.endswith("qkv.weight"):  # one matrix in MAE
                nn.init.xavier_uniform_(weight)

    def forward(  # type: ignore[override]
        self, imgs: Tensor, mask_ratio: float = 0.0
    ) -> Tensor | tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode images (N, C, H, W): features (N, D).

        With a share of the patches to remove, `mask_ratio` in [0, 1), above 0 also those of the class token and of the
        kept patches (N, 1 + kept, D), and `mask`, `ids_restore` and errors of `random_masking`.
        """
        if mask_ratio == 0:
            feats: Tensor = super().forward(imgs)
            return feats
        x = self._pos_embed(self.patch_embed(imgs))  # (N, 1 + L, D)
        patches, mask, ids_restore = random_masking(x[:, self.num_prefix_tokens :], mask_ratio)
        x = self.norm_pre(torch.cat([x[:, : self.num_prefix_tokens], patches], dim=1))  # (N, 1 + kept, D)
        x = checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)
        x = self.norm(x)
        return self.forward_head(x), x, mask, ids_restore


def random_masking(x: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Keep int(L * (1 - mask_ratio)) random patches of each image (N, L, D); a `UserError` for a ratio not in [0, 1).

    Returns the kept patches (N, kept, D) in random order; mask (N, L), 1 where a patch was removed; ids_restore (N, L)
    long: position of each patch in `[kept, removed]`, so that gathering by it restores the order.
    """
    if not 0 <= mask_ratio < 1:
        raise UserError(f"mask_ratio={mask_ratio} is out of range; choose a share of the patches in [0, 1)")
    kept = int(x.shape[1] * (1 - mask_ratio))
    # Drawn for the rows of all processes: seeded alike, they would else remove the same patches.
    rows = len(x) * distributed.world_size()
    noise = distributed.own_rows(torch.rand(rows, x.shape[1], device=x.device))
    ids_shuffle = noise.argsort(dim=1)
    ids_restore = ids_shuffle.argsort(dim=1)
    ids_keep = ids_shuffle[:, :kept, None].expand(-1, -1, x.shape[2])
    return x.gather(1, ids_keep), (ids_restore >= kept).float(), ids_restore


# Width, blocks, heads, and heads of the variants.
_SIZES = {"tiny": (192, 12, 3, 12), "small": (384, 12, 6, 12), "base": (768, 12, 12, 12), "large": (1024, 24, 16, 16)}
_VARIANTS: dict[str | None, type[SinCosViT]] = {"mocov3": SinCosViT, "mae": MaskedViT, "ijepa": SinCosViT}


def vit(size: str, method: str | None = None, *args: Any, **kwargs: Any) -> nn.Module:
    """A ViT without classifier, tiny, small, base or large; its features are the class token's.

    "mocov3" and "mae" have their own variants; features of "ijepa" are the mean of the patches'; the rest is timm's.
    """
    width, depth, heads, own_heads = _SIZES[size]
    heads = own_heads if method in _VARIANTS else heads
    settings: dict[str, Any] = {"embed_dim": width, "depth": depth, "num_heads": heads, "num_classes": 0}
    if method == "ijepa":
        settings |= {"class_token": False, "global_pool": "avg", "fc_norm": False}
    return _VARIANTS.get(method, VisionTransformer)(*args, **{**settings, **kwargs})
