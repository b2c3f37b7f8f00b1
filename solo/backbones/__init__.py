"""Backbones by name: solo-learn's constructors `name(method, *args, **kwargs)`, and any timm model."""

from solo.backbones.from_timm import (
    convnext_base,
    convnext_large,
    convnext_small,
    convnext_tiny,
    swin_base,
    swin_large,
    swin_small,
    swin_tiny,
)
from solo.backbones.poolformer import poolformer_m36, poolformer_m48, poolformer_s12, poolformer_s24, poolformer_s36
from solo.backbones.registry import BACKBONES, build_backbone, features_dim, find_backbone
from solo.backbones.resnet import adapt_stem, resnet10, resnet18, resnet50
from solo.backbones.small import conv3
from solo.backbones.vit import vit_base, vit_large, vit_small, vit_tiny
from solo.backbones.wide_resnet import wide_resnet28w2, wide_resnet28w8

__all__ = [
    "BACKBONES",
    "adapt_stem",
    "build_backbone",
    "conv3",
    "convnext_base",
    "convnext_large",
    "convnext_small",
    "convnext_tiny",
    "features_dim",
    "find_backbone",
    "poolformer_m36",
    "poolformer_m48",
    "poolformer_s12",
    "poolformer_s24",
    "poolformer_s36",
    "resnet10",
    "resnet18",
    "resnet50",
    "swin_base",
    "swin_large",
    "swin_small",
    "swin_tiny",
    "vit_base",
    "vit_large",
    "vit_small",
    "vit_tiny",
    "wide_resnet28w2",
    "wide_resnet28w8",
]
