from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from timm.layers import GroupNorm1
from timm.models.metaformer import MetaFormer, checkpoint_filter_fn

from solo.backbones import build_backbone, features_dim, poolformer_s12, poolformer_s36
from solo.backbones.poolformer import PoolFormer


def test_names_of_the_state_dict() -> None:
    with torch.device("meta"):
        names = set(poolformer_s12(None).state_dict())
    block = [f"{part}.{what}" for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2") for what in ("weight", "bias")]
    block += ["layer_scale_1", "layer_scale_2"]
    expected = {f"{part}.{what}" for part in ("patch_embed.proj", "norm") for what in ("weight", "bias")}
    expected |= {f"network.{i}.proj.{what}" for i in (1, 3, 5) for what in ("weight", "bias")}
    for i, depth in zip((0, 2, 4, 6), (2, 2, 6, 2), strict=True):
        expected |= {f"network.{i}.{j}.{name}" for j in range(depth) for name in block}
    assert names == expected


def test_the_map_is_that_of_timms_poolformer() -> None:
    dims = (8, 16, 24, 32)
    ours = PoolFormer((1, 2, 1, 1), dims, layer_scale_init_value=0.5).eval()
    theirs = MetaFormer(
        num_classes=0,
        depths=(1, 2, 1, 1),
        dims=dims,
        downsample_norm=None,
        mlp_act=torch.nn.GELU,
        mlp_bias=True,
        norm_layers=GroupNorm1,
        layer_scale_init_values=1.0,
        res_scale_init_values=None,
        use_mlp_head=False,
    ).eval()
    theirs.load_state_dict(checkpoint_filter_fn(ours.state_dict(), theirs), strict=True)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.network(ours.patch_embed(x)), theirs.forward_features(x))


@pytest.mark.parametrize("size", [32, 64, 224])
def test_features(size: int) -> None:
    backbone = build_backbone("poolformer_s12", channels=1, image_size=size).eval()
    assert features_dim(backbone) == 512
    assert backbone(torch.randn(1, 1, size, size)).shape == (1, 512)


def test_settings() -> None:
    with torch.device("meta"):
        deep, other = poolformer_s36(None), PoolFormer((1, 2), (8, 16), drop_path_rate=0.2, drop_rate=0.3)
    probabilities = [m.drop_prob for m in other.modules() if type(m).__name__ == "DropPath"]
    assert probabilities == pytest.approx([0.0, 0.1, 0.2])
    assert {m.p for m in other.modules() if type(m) is torch.nn.Dropout} == {0.3}
    assert len([name for name in deep.state_dict() if re.fullmatch(r"network\.4\.\d+\.layer_scale_1", name)]) == 18


@pytest.mark.parametrize(("constructor", "scale"), [(poolformer_s12, 1e-5), (poolformer_s36, 1e-6)])
def test_layer_scale_starts_small(constructor: Any, scale: float) -> None:
    state = constructor(None).state_dict()
    scales = torch.cat([value for name, value in state.items() if "layer_scale" in name])
    torch.testing.assert_close(scales, torch.full_like(scales, scale))


def test_every_parameter_learns() -> None:
    backbone = PoolFormer((1, 1), (8, 16))
    backbone(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None]
