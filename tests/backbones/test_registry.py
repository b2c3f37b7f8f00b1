from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import solo.backbones
from solo.backbones import (
    BACKBONES,
    adapt_stem,
    build_backbone,
    features_dim,
    find_backbone,
    resnet10,
    resnet18,
    resnet50,
)
from solo.errors import UserError
from solo.methods.base import BaseMethod


def test_the_contracts_constructors() -> None:
    assert sum(p.numel() for p in resnet18(None).parameters()) == 11_689_512
    assert sum(p.numel() for p in resnet50("simclr", zero_init_residual=True).parameters()) == 25_557_032
    assert BaseMethod._BACKBONES is BACKBONES and find_backbone("resnet18") is resnet18
    assert resnet18(None).inplanes == 512


COUNTS = {  # parameters without classifier, features
    "vit_tiny": (5_524_416, 192),
    "vit_small": (21_665_664, 384),
    "vit_base": (85_798_656, 768),
    "vit_large": (303_301_632, 1024),
    "swin_tiny": (27_519_354, 768),
    "swin_small": (48_837_258, 768),
    "swin_base": (86_743_224, 1024),
    "swin_large": (194_995_476, 1536),
    "convnext_tiny": (27_820_128, 768),
    "convnext_small": (49_454_688, 768),
    "convnext_base": (87_566_464, 1024),
    "convnext_large": (196_230_336, 1536),
    "poolformer_s12": (11_402_176, 512),
    "poolformer_s24": (20_875_968, 512),
    "poolformer_s36": (30_349_760, 512),
    "poolformer_m36": (55_403_520, 768),
    "poolformer_m48": (72_704_448, 768),
    "wide_resnet28w2": (1_468_352, 128),
    "wide_resnet28w8": (23_357_792, 512),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_and_widths(name: str) -> None:
    with torch.device("meta"):
        backbone: Any = getattr(solo.backbones, name)("simclr")
    assert (sum(p.numel() for p in backbone.parameters()), backbone.num_features) == COUNTS[name]
    assert features_dim(backbone) == backbone.num_features and find_backbone(name) is getattr(solo.backbones, name)


def test_the_registry_is_what_is_exported() -> None:
    assert set(BACKBONES) == {"conv3", "resnet10", "resnet18", "resnet50", *COUNTS}
    assert set(BACKBONES) < set(solo.backbones.__all__)


@pytest.mark.parametrize(
    ("name", "options", "shape", "width"),
    [
        ("resnet10", {"channels": 1, "small": True, "kwargs": {"width": 16}}, (1, 12, 12), 128),
        ("resnet10", {}, (3, 64, 64), 512),
        ("conv3", {"channels": 1, "kwargs": {"width": 8}}, (1, 20, 20), 128),
        ("resnet18", {"small": True, "channels": 2}, (2, 8, 8), 512),
        ("resnet18", {"channels": 4}, (4, 32, 32), 512),
        ("resnet26", {"small": True, "channels": 1}, (1, 8, 8), 2048),
        ("mobilenetv3_small_050", {"channels": 5}, (5, 32, 32), 1024),
        ("vit_tiny_patch16_224", {"channels": 1, "image_size": 32, "kwargs": {"depth": 1}}, (1, 32, 32), 192),
        (
            "vit_tiny_patch16_224",
            {"image_size": 28, "kwargs": {"img_size": 32, "depth": 1, "patch_size": 4}},
            (3, 32, 32),
            192,
        ),
    ],
)
def test_features_have_the_width_that_is_said(name: str, options: dict[str, Any], shape: Any, width: int) -> None:
    backbone = build_backbone(name, **options).eval()
    assert features_dim(backbone) == width
    assert backbone(torch.randn(2, *shape)).shape == (2, width)


def test_resnet10_has_torchvisions_names_and_a_free_width() -> None:
    names = set(resnet10(None, width=8).state_dict())
    assert names < set(resnet18(None).state_dict())
    assert resnet10(None, width=8).inplanes == 64
    # the same initialisation for every width: a convolution's std is sqrt(2 / fan_out)
    for width in (32, 64):
        weight = resnet10(None, width=width).layer2[0].conv1.weight
        assert weight.std().item() == pytest.approx((2 / (2 * width * 9)) ** 0.5, rel=0.05)


def test_the_stem_for_small_images_pads_by_two() -> None:
    backbone = adapt_stem(resnet18(None), "resnet18", 3, small=True)
    assert isinstance(backbone.maxpool, nn.Identity)
    assert backbone.conv1(torch.randn(1, 3, 32, 32)).shape == (1, 64, 34, 34)
    assert list(backbone.state_dict()) == list(resnet18(None).state_dict())


def test_other_channels_keep_the_large_stem() -> None:
    conv = adapt_stem(resnet18(None), "resnet18", 5).conv1
    assert conv.weight.shape == (64, 5, 7, 7) and conv.stride == (2, 2) and conv.bias is None


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet19", {}, ["resnet19", "'resnet18'", "timm"]),
        ("vit_tinny", {}, ["'vit_tiny'"]),
        ("vit_huge", {}, ["vit_huge_patch14_224"]),
        ("resnet10", {"kwargs": {"widht": 3}}, ["widht", "resnet10"]),
        ("convnext_atto", {"kwargs": {"colour": 3}}, ["colour", "convnext_atto"]),
    ],
)
def test_what_does_not_exist_is_refused(name: str, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        build_backbone(name, **options)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_backbone_without_a_width_is_refused() -> None:
    with pytest.raises(UserError, match="num_features"):
        features_dim(nn.Identity())
