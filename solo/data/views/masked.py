"""What changes colours in whole batches, for devices on which launching an operation costs more than its arithmetic.

Each operation runs over all views, with neutral parameters for those that it isn't meant for, so that nothing depends
on who gets what: one graph, no answers asked for. The parameters come from the CPU in one copy. The pixels are those of
`EntryViews.colour`, within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solo.data.views import tensor_ops as ops

if TYPE_CHECKING:
    from solo.data.views.plan import Plan

_CONTRAST, _SATURATION, _HUE = 1, 2, 3
# Columns of a row of parameters: rows of the batch, box, mirrored, who gets what, blur, hue, then three a blend.
_SOURCE, _BOX, _FLIP, _GREY, _BLUR, _SOLARISE, _EQUALISE, _SIGMA, _SHIFT = 0, slice(1, 5), 5, 6, 7, 8, 9, 10, 11
_BLENDS = 12


def packed(plan: Plan, images: int, active: Sequence[int], device: torch.device) -> Tensor:
    """Everything that a device has to know of a plan, float32 `(n, columns)`, on its way there.

    Brightness, contrast and saturation are one operation, a blend with black, the mean grey or the grey of a pixel: as
    many before the hue is turned, and after it, as there are. Their order is the view's own. The batch has so many
    `images`; the jitter's `active` operations are as in `Plan.turns`.
    """
    turns = len(active)
    blends = len([operation for operation in active if operation != _HUE])
    sides = 2 if _HUE in active else 1
    rows, number = torch.arange(len(plan.rows)), torch.zeros(len(plan.rows), dtype=torch.long)
    table = torch.tensor([1.0, 0.0, 0.0]).repeat(len(rows), sides * blends + 1, 1)  # what changes nothing
    shift, last = torch.zeros(len(rows)), torch.full_like(number, sides * blends)  # a place that is thrown away
    for turn in range(turns):
        operation = plan.turns >> 2 * (turns - 1 - turn) & 3
        is_hue, nothing = operation == _HUE, plan.turns < 0
        strength = plan.strengths[rows, operation]
        place = torch.where(nothing | is_hue, last, number)
        chosen = torch.stack([strength, operation == _SATURATION, operation == _CONTRAST], dim=1)
        table[rows, place] = chosen.to(table.dtype)
        number = torch.where(is_hue, blends, number + 1)
        shift = torch.where(is_hue & ~nothing, strength, shift)
    columns = [plan.rows % images, plan.box, plan.chosen[:, [5, 1, 2, 3, 4]], plan.sigma, shift]
    flat = [column.float().view(len(rows), -1) for column in [*columns, table[:, :-1].flatten(1)]]
    found = torch.cat(flat, dim=1)
    return (found.pin_memory() if device.type == "cuda" and torch.cuda.is_available() else found).to(
        device, non_blocking=True
    )


def crop(images: Tensor, parameters: Tensor, size: int, resample: ops.Resample) -> Tensor:
    """Crop, resize and mirror: uint8 `(B, C, H, W)` -> float32 `(n, C, size, size)` in [0, 255]."""
    box, flip = parameters[:, _BOX].long(), parameters[:, _FLIP] > 0
    return ops.resized_crop(images.index_select(0, parameters[:, _SOURCE].long()), box, size, flip, resample)


def colour(x: Tensor, parameters: Tensor, used: Sequence[bool], mean: Tensor, std: Tensor) -> Tensor:
    """Jitter, greyscale, blur, solarise, equalise, in this order, and normalise float32 `(n, C, H, W)` in [0, 255].

    `used` says whether there are views with another hue, in grey, blurred, solarised, equalised; mean and std `(C, 1,
    1)` are of images in [0, 255].
    """
    hue, grey, blur, solarise, equalise = used
    blends = parameters[:, _BLENDS:].reshape(len(x), -1, 3)
    number = blends.shape[1]
    for place in range(number + 1):
        if hue and place == number // 2:
            x = turned(x, parameters[:, _SHIFT])
        if place < number:
            x = _blend(x, blends[:, place])
    if grey and x.shape[1] == 3:
        x = torch.lerp(x, ops.luminance(x), _column(parameters, _GREY))
    if blur:
        x = torch.lerp(x, ops.gaussian_blur(x.clone(), parameters[:, _SIGMA]), _column(parameters, _BLUR))
    if solarise:
        x = torch.lerp(x, torch.minimum(x, ops.WHITE - x), _column(parameters, _SOLARISE))
    if equalise:
        x = torch.lerp(x, ops.equalize(x), _column(parameters, _EQUALISE))
    return (x - mean) / std


def turned(x: Tensor, shift: Tensor) -> Tensor:
    """`tensor_ops.adjust_hue` in half as many operations."""
    high, first = x.max(dim=1, keepdim=True)
    low = x.amin(dim=1, keepdim=True)
    span = high - low
    sixths = torch.arange(3, device=x.device, dtype=x.dtype) * 2  # red, green, blue, in sixths of a turn
    hue = torch.addcmul(x.roll(-1, 1) - x.roll(-2, 1), span, sixths[:, None, None]).gather(1, first)
    turn = torch.remainder(6 * shift[:, None] - sixths + 5, 6) - 5
    distance = torch.addcmul(hue, span, turn[:, :, None, None]).abs_().sub_(span, alpha=3).abs_()
    return distance.add_(torch.sub(high, span, alpha=2)).clamp_(low, high)


def _blend(x: Tensor, parameters: Tensor) -> Tensor:
    factor, by_pixel, by_mean = (_column(parameters, place) for place in range(3))
    if x.shape[1] == 3:
        grey = ops.luminance(x)
        grey = torch.addcmul(grey.mean(dim=(2, 3), keepdim=True) * by_mean, grey, by_pixel)
    else:
        grey = x.mean(dim=(2, 3), keepdim=True) * by_mean
    return torch.lerp(grey, x, factor).clamp_(0, ops.WHITE)


def _column(parameters: Tensor, place: int) -> Tensor:
    return parameters[:, place, None, None, None]
