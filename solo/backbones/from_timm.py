"""Models that are timm's as they are: any of its names, and solo-learn's names for Swin and ConvNeXt.

Imported when something of timm's is asked for, which takes longer than this package; others have it from here.

Liu et al.: Swin Transformer, https://arxiv.org/abs/2103.14030.
Liu et al.: A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING or {"timm", "wandb"} & set(sys.modules):
    import timm as timm
else:  # it imports W&B to see whether that is there, which takes as long as timm itself
    sys.modules["wandb"] = None
    try:
        import timm as timm
    finally:
        del sys.modules["wandb"]
from timm.layers import build_sincos2d_pos_embed as build_sincos2d_pos_embed  # type: ignore[attr-defined]
from timm.models import checkpoint_seq as checkpoint_seq
from timm.models.vision_transformer import Block as Block
from timm.models.vision_transformer import VisionTransformer as VisionTransformer


def timm_model(name: str, method: str | None, *args: Any, **kwargs: Any) -> nn.Module:
    """A timm model without classifier.

    Args:
        name: timm's name of the model.
        method: not used: every method gets the same model.
        *args: passed to `timm.create_model`, as are the kwargs.
        **kwargs: `in_chans`, `drop_path_rate`, ...; `img_size` for Swin, and `window_size=4` for images of 32 pixels.
    """
    model: nn.Module = timm.create_model(name, *args, **{"num_classes": 0, **kwargs})
    return model


swin_tiny = partial(timm_model, "swin_tiny_patch4_window7_224")
swin_small = partial(timm_model, "swin_small_patch4_window7_224")
swin_base = partial(timm_model, "swin_base_patch4_window7_224")
swin_large = partial(timm_model, "swin_large_patch4_window7_224")

convnext_tiny = partial(timm_model, "convnext_tiny")
convnext_small = partial(timm_model, "convnext_small")
convnext_base = partial(timm_model, "convnext_base")
convnext_large = partial(timm_model, "convnext_large")
