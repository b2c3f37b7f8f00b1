"""Backbones by name: solo-learn's constructors `name(method, *args, **kwargs)`, and any timm model."""

from solo.backbones.registry import (
    BACKBONES,
    adapt_stem,
    build_backbone,
    features_dim,
    find_backbone,
)
from solo.backbones.resnet import resnet10, resnet18, resnet50

__all__ = [
    "BACKBONES",
    "adapt_stem",
    "build_backbone",
    "features_dim",
    "find_backbone",
    "resnet10",
    "resnet18",
    "resnet50",
]
