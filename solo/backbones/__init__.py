"""Backbones by name: solo-learn's constructors `name(method, *args, **kwargs)`, and any timm model."""

from solo.backbones.registry import BACKBONES, Constructor, build_backbone, features_dim, find_backbone
from solo.backbones.resnet import adapt_stem

__all__ = ["BACKBONES", "adapt_stem", "build_backbone", "features_dim", "find_backbone"]
__all__ += [*BACKBONES]  # resnet18, vit_small, ...


def __getattr__(name: str) -> Constructor:
    """A constructor of `BACKBONES`."""
    if name in BACKBONES:
        return BACKBONES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
