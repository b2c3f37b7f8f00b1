"""Sizes of images: does a network take them?"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from solo.errors import UserError, reason


def side_of_patch(backbone: Any) -> int:
    """Pixels of which an image's side has to be a multiple; 1 for networks that take any."""
    embed: Any = getattr(backbone, "patch_embed", None)
    patches = getattr(embed, "patch_size", None)
    pads = getattr(embed, "dynamic_img_pad", False) or not hasattr(embed, "num_patches")
    return int(patches[0]) if isinstance(patches, tuple) and not pads else 1


@torch.no_grad()
def check_sizes(backbone: nn.Module, name: str, sizes: Mapping[int, str], channels: int) -> None:
    """See whether a backbone takes images of these sizes (pixels -> the setting that says so); nothing in it changes.

    Raises a `UserError`: it doesn't; says why.
    """
    side = side_of_patch(backbone)
    modes = [(module, module.training) for module in backbone.modules()]
    device = next((parameter.device for parameter in backbone.parameters()), torch.device("cpu"))
    try:
        backbone.eval()
        for size, key in sizes.items():
            if size % side:
                near = " or ".join(str(count * side) for count in (size // side, size // side + 1) if count)
                what = f"{key}={size} is no multiple of the {side} pixels of a patch of backbone.name={name!r}"
                raise UserError(f"{what}; choose {near}, or another backbone.kwargs.patch_size")
            try:
                features = backbone(torch.zeros(1, channels, size, size, device=device))
            except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
                what = f"{key}={size} doesn't fit backbone.name={name!r} ({reason(error)[:160]})"
                raise UserError(f"{what}; choose another size, or other backbone.kwargs") from error
            if not isinstance(features, Tensor) or features.ndim != 2:
                shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
                raise UserError(f"backbone.name={name!r} gives {shape} for one image; it must give features (N, width)")
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def check_single(backbone: nn.Module, size: int, channels: int) -> None:
    """See whether a backbone can be trained on one image at a time; nothing in it changes.

    Raises a `UserError`: its BatchNorm would see a single value a channel.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(backbone).train()(torch.zeros(1, channels, size, size))
        except ValueError as error:
            raise UserError(
                "optimizer.batch_size=1 is too small: BatchNorm of this backbone has one value a channel "
                f"in an image of {size} pixels; give at least 2"
            ) from error
