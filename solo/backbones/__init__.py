"""Backbones by name: solo-learn's constructors `name(method, *args, **kwargs)`, and any timm model."""

from solo.backbones.registry import BACKBONES, build_backbone, features_dim, find_backbone
from solo.backbones.resnet import adapt_stem

globals().update(BACKBONES)  # resnet18, vit_small, ...
__all__ = ["BACKBONES", "adapt_stem", "build_backbone", "features_dim", "find_backbone"]
__all__ += [*BACKBONES]
