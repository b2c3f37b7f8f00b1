from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from solo.backbones import build_backbone, vit_base, vit_large, vit_small, vit_tiny
from solo.backbones.from_timm import random_masking
from solo.errors import UserError
from solo.nn.vit import generate_2d_sincos_pos_embed

SMALL = {"patch_size": 4, "img_size": 32, "depth": 2}


def images(n: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", [None, "simclr", "mocov3", "mae"])
def test_state_dict_names_are_timms(method: str | None) -> None:
    timms = VisionTransformer(num_classes=0, embed_dim=192, num_heads=3, **SMALL)
    backbone: Any = vit_tiny(method, **SMALL)
    backbone.load_state_dict(timms.state_dict(), strict=True)
    assert backbone.no_weight_decay() >= {"pos_embed", "cls_token"} and "blocks" in backbone.group_matcher()
    assert backbone.norm.eps == 1e-6
    if method is None:  # the same network, too
        assert torch.equal(backbone.eval()(images()), timms.eval()(images()))


@pytest.mark.parametrize(
    ("constructor", "heads", "depth"),
    [(vit_tiny, (3, 12), 12), (vit_small, (6, 12), 12), (vit_base, (12, 12), 12), (vit_large, (16, 16), 24)],
)
def test_heads_and_depth(constructor: Any, heads: tuple[int, int], depth: int) -> None:
    with torch.device("meta"):
        plain, mae = constructor("byol"), constructor("mae")
    assert (plain.blocks[0].attn.num_heads, mae.blocks[0].attn.num_heads) == heads
    assert len(plain.blocks) == len(mae.blocks) == depth
    assert plain.patch_embed.patch_size == (16, 16) and plain.patch_embed.img_size == (224, 224)


@pytest.mark.parametrize("method", ["mocov3", "mae"])
def test_positions_are_fixed_sin_cos(method: str) -> None:
    backbone: Any = vit_tiny(method, **SMALL)
    expected = generate_2d_sincos_pos_embed(192, 8, cls_token=True)
    assert not backbone.pos_embed.requires_grad
    torch.testing.assert_close(backbone.pos_embed[0], torch.from_numpy(expected).float())
    backbone(images()).sum().backward()
    assert backbone.pos_embed.grad is None and backbone.cls_token.grad is not None
    assert vit_tiny(None, **SMALL).pos_embed.requires_grad


def bound(weight: torch.Tensor) -> float:
    """The b of a uniform distribution on [-b, b], from its standard deviation; the range is checked, too."""
    b = weight.std().item() * 3**0.5
    assert weight.abs().max().item() == pytest.approx(b, rel=0.05)
    return b


def test_initialisation_of_mocov3() -> None:
    torch.manual_seed(0)
    backbone: Any = vit_small("mocov3", **SMALL)
    block, dim = backbone.blocks[0], 384
    assert bound(block.attn.qkv.weight) == pytest.approx((6 / (dim + dim)) ** 0.5, rel=0.02)  # three matrices
    assert bound(block.attn.proj.weight) == pytest.approx((6 / (dim + dim)) ** 0.5, rel=0.02)
    assert bound(block.mlp.fc1.weight) == pytest.approx((6 / (dim + 4 * dim)) ** 0.5, rel=0.02)
    assert bound(backbone.patch_embed.proj.weight) == pytest.approx((6 / (3 * 4**2 + dim)) ** 0.5, rel=0.02)
    assert backbone.cls_token.std().item() == pytest.approx(1e-6, rel=0.2)
    assert all((m.bias == 0).all() for m in backbone.modules() if isinstance(m, nn.Linear | nn.Conv2d))


def test_initialisation_of_mae() -> None:
    torch.manual_seed(0)
    backbone: Any = vit_small("mae", **SMALL)
    assert bound(backbone.blocks[1].attn.qkv.weight) == pytest.approx((6 / (4 * 384)) ** 0.5, rel=0.02)  # one matrix
    assert backbone.cls_token.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("ratio", [0.75, 0.5, 0.9])
def test_masking_keeps_its_share_and_can_be_undone(ratio: float) -> None:
    x = torch.randn(3, 64, 5)
    kept, mask, ids_restore = random_masking(x, ratio)
    assert kept.shape == (3, int(64 * (1 - ratio)), 5)
    assert (mask.sum(1) == 64 - kept.shape[1]).all() and set(mask.unique().tolist()) == {0.0, 1.0}
    filled = torch.cat([kept, torch.full((3, 64 - kept.shape[1], 5), torch.nan)], dim=1)
    restored = filled.gather(1, ids_restore[..., None].expand(-1, -1, 5))
    assert torch.equal(restored.isnan().any(-1), mask.bool())
    assert torch.equal(restored.nan_to_num(0), x * (1 - mask[..., None]))
    assert not torch.equal(mask[0], mask[1])  # each image has its own


def test_mae_encodes_only_what_is_visible() -> None:
    backbone: Any = vit_tiny("mae", **SMALL).eval()
    x = images()
    torch.manual_seed(1)
    feats, patch_feats, mask, ids_restore = backbone(x, 0.75)
    assert feats.shape == (2, 192) and patch_feats.shape == (2, 1 + 16, 192)
    assert mask.shape == ids_restore.shape == (2, 64)
    assert torch.equal(feats, patch_feats[:, 0])
    hidden = mask.reshape(2, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.manual_seed(1)
    assert torch.equal(backbone(x + 9 * hidden, 0.75)[0], feats)
    torch.manual_seed(1)
    assert not torch.equal(backbone(x + (1 - hidden), 0.75)[0], feats)


def test_mae_without_a_mask_gives_plain_features() -> None:
    backbone: Any = vit_tiny("mae", **SMALL).eval()
    feats = backbone(images())
    assert torch.equal(feats, backbone(images(), mask_ratio=0)) and feats.shape == (2, 192)
    plain = VisionTransformer(num_classes=0, embed_dim=192, num_heads=12, **SMALL).eval()
    plain.load_state_dict(backbone.state_dict(), strict=True)
    torch.testing.assert_close(plain(images()), feats)


def test_mae_reads_the_positions_of_the_patches() -> None:
    backbone: Any = vit_tiny("mae", **SMALL).eval()
    seen = []
    backbone.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    _, _, mask, ids_restore = backbone(images(), mask_ratio=0.5)
    backbone(images())
    masked, full = seen
    assert torch.equal(masked[:, 0], full[:, 0])
    order = ids_restore.argsort(1)[:, :32, None].expand(-1, -1, 192)
    assert torch.equal(masked[:, 1:], full[:, 1:].gather(1, order)) and (mask.gather(1, order[..., 0]) == 0).all()


@pytest.mark.parametrize("ratio", [1.0, -0.1, 1.5])
def test_an_impossible_mask_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(UserError, match="mask_ratio"):
        vit_tiny("mae", **SMALL)(images(), ratio)


@pytest.mark.parametrize("method", [None, "mocov3", "mae"])
def test_drop_path_reaches_the_blocks(method: str | None) -> None:
    backbone: Any = vit_tiny(method, **{**SMALL, "depth": 3}, drop_path_rate=0.2)
    probabilities = [getattr(block.drop_path1, "drop_prob", 0.0) for block in backbone.blocks]
    assert probabilities == pytest.approx([0.0, 0.1, 0.2])


def test_every_parameter_learns_from_masked_images() -> None:
    backbone: Any = vit_tiny("mae", **SMALL)
    backbone.set_grad_checkpointing(True)
    backbone(images(), 0.75)[1].square().sum().backward()
    assert not [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("method", [None, "mocov3", "mae"])
def test_images_of_another_shape(method: str | None) -> None:
    backbone = build_backbone("vit_tiny", method, channels=1, image_size=64, kwargs={"depth": 1})
    assert backbone.eval()(torch.randn(2, 1, 64, 64)).shape == (2, 192)
