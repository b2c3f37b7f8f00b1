"""Views of whole batches on devices, where launching an operation costs more than its arithmetic.

Each operation runs over all views, with neutral parameters for those that it isn't meant for, so that nothing depends
on who gets what: one graph, no answers asked for. Who gets what is worked out on the CPU and crosses in one copy. The
pixels are those of `EntryViews.colour`, within rounding. Images are `(n, pixels, C)`, channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import isqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from solo.data.views import tensor_ops as ops
from solo.precision import exact_products

if TYPE_CHECKING:
    from solo.data.views.batched import EntryViews, Plan

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
_FAR = 1e4  # from everything
Steps = list[tuple[Callable[[Tensor, Tensor], Tensor], Tensor]]  # operations, and a row of parameters for each view


def views(entry: EntryViews, images: Tensor, plan: Plan, cropped: bool = False) -> Tensor:
    """The views of a plan, float32 `(n, C, size, size)` in channels_last, asking a device for nothing.

    Images are uint8 `(B, C, H, W)`; or what was `cropped` already, one for each view.
    """
    steps = _steps(entry, images, plan, cropped)
    columns = [column.float().view(len(plan.rows), -1) for _, column in steps]
    found = torch.cat(columns, dim=1)
    found = found.pin_memory() if images.is_cuda and torch.cuda.is_available() else found
    parts = torch.split(found.to(images.device, non_blocking=True), [column.shape[1] for column in columns], dim=1)
    shift, scale = entry.normalising(images.device)
    with exact_products():
        x = images.to(torch.float32, memory_format=torch.channels_last).flatten(2).mT if cropped else images
        for (step, _), parameters in zip(steps, parts, strict=True):
            x = step(x, parameters)
    return torch.addcmul(shift, x, scale, out=x.new_empty(x.shape)).mT.view(len(x), -1, entry.size, entry.size)


def _steps(entry: EntryViews, images: Tensor, plan: Plan, cropped: bool) -> Steps:
    """What a device does for a plan."""
    grey, blur, solarise, equalise = plan.chosen[:, 1:5].unbind(dim=1)
    greys, blurs, solarises, equalises = entry.used  # whether there are such views
    steps = Steps()
    if not cropped:
        steps.append((partial(_crop, entry=entry), _places(plan, entry.size, *images.shape[2:])))
    colours, scale = _jitter(plan, entry.active)
    steps += colours
    if images.shape[1] == 3 and (greys or _BRIGHTNESS in entry.active):
        steps.append((_mixed, _mixing(1 - grey.float(), scale)))
    elif _BRIGHTNESS in entry.active:
        steps.append((lambda x, factor: x.mul_(factor[:, None]), scale))
    if blurs:
        steps.append((_blurred, ops.blur_taps(plan.sigma.where(blur, 1e-3), entry.size)))
    if solarises:
        top = torch.where(solarise, ops.WHITE, 2 * ops.WHITE)
        steps.append((lambda x, top: torch.minimum(x, top[:, None] - x), top))
    if equalises:
        steps.append((_equalised, equalise))
    return steps


def _jitter(plan: Plan, active: Sequence[int]) -> tuple[Steps, Tensor]:
    """The jitter's steps, which fit every order, and by what the colours are to be multiplied after them.

    Before the hue is turned, and again after it, come saturation, contrast, and saturation once more, each kept in
    range. A view's brightness is a lower top of the range after what comes before it, and a factor of what comes next.
    """
    turns, alike = len(active), plan.turns < 0
    order = plan.turns.clamp(min=0)[:, None] >> 2 * torch.arange(turns - 1, -1, -1) & 3
    absent = torch.tensor([0, -1, 0, 9]).repeat(len(order), 1)
    b, c, s, h = absent.scatter_(1, order, torch.arange(turns).expand_as(order)).unbind(dim=1)  # whose turn is which
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
    strengths = torch.where(alike[:, None], neutral, plan.strengths)
    brightness, contrast, saturation, shift = strengths.unbind(dim=1)
    # Four stations before the hue, numbered from 0 on, and four after it: nothing, saturation, contrast, saturation.
    at_s = (4 * (s > h) + torch.where(s < c, 1, 3)) * (_SATURATION in active)
    at_c = (4 * (c > h) + 2) * (_CONTRAST in active)
    at_b = torch.maximum(4 * (b > h), torch.maximum(at_s * (s < b), at_c * (c < b)))
    scale, one, steps = torch.ones_like(shift), torch.ones_like(shift), Steps()
    for station in range(8 if _HUE in active else 4):
        kind = station % 4
        if station == 4:
            steps.append((_turned, torch.remainder(6 * shift[:, None] - torch.tensor([0.0, 2.0, 4.0]) + 5, 6) - 5))
        if (kind % 2 and _SATURATION not in active) or (kind in (1, 2) and _CONTRAST not in active):
            continue
        if kind % 2:
            steps.append((_mixed, _mixing(saturation.where(at_s == station, 1), scale)))
            scale = one
        elif kind == 2:
            steps.append((_contrast, contrast.where(at_c == station, 1)))
        elif station and _BRIGHTNESS not in active:
            continue
        here = at_b == station
        top = torch.where(here, ops.WHITE / brightness.clamp(min=1), ops.WHITE / scale)
        scale = brightness.where(here, scale)
        ends = torch.stack((torch.zeros_like(top), top), dim=1)
        steps.append((lambda x, ends: x.clamp_(ends[:, :1, None], ends[:, 1:, None]), ends))
    return steps, scale


def _mixing(factor: Tensor, scale: Tensor) -> Tensor:
    """By what rows of colours are multiplied, `(n, 9)`: blended with their grey, of which is left 1 - `factor` (n,)."""
    factor = factor[:, None, None]
    return ((factor * torch.eye(3) + (1 - factor) * torch.tensor(ops.LUMA)[:, None]) * scale[:, None, None]).flatten(1)


def _places(plan: Plan, size: int, height: int, width: int) -> Tensor:
    """Where the crops are: `(n, 2)` places of weights in `ops.all_matrices`; of larger images `(n, 6)`, see below."""
    if max(height, width) <= ops.DENSE_SIDE:
        return torch.stack(ops.which_matrices(plan.box, plan.chosen[:, 5], height, width), dim=1)
    start, length = plan.box[:, :2], plan.box[:, 2:]
    slope = 2.0 / length * (1 - torch.tensor([2, 0]) * plan.chosen[:, 5:].long())
    return torch.cat((start + (length - 1) / 2, slope, length.clamp(max=size) / 2), dim=1)


def _crop(images: Tensor, places: Tensor, entry: EntryViews) -> Tensor:
    """`ops.resized_crop`, all first views before all second ones."""
    number, (channels, height, width), size = len(places), images.shape[1:], entry.size
    several = images.expand(number // len(images), *images.shape)
    x = several.to(torch.float32, memory_format=torch.contiguous_format).view(number, channels * height, width)
    if max(height, width) <= ops.DENSE_SIDE:
        which = places.mT.to(torch.long, memory_format=torch.contiguous_format)
        down, across = (
            ops.all_matrices(side, size, images.device, entry.resample).index_select(0, place)
            for side, place in zip((height, width), which, strict=True)
        )
    else:
        both = _weights(places, max(height, width), size, entry.resample)
        across, down = both[:, 0, :, :width], both[:, 1, :, :height]
    # Clamped in between, too, as it is where the result of each pass is a uint8. Products turn the axes: no copies.
    x = torch.bmm(across, x.mT).clamp_(0, ops.WHITE).view(number, size * channels, height)
    return torch.bmm(down, x.mT).round_().view(number, size * size, channels)


def _weights(places: Tensor, side: int, size: int, resample: ops.Resample) -> Tensor:
    """The numbers of `ops.all_matrices` for crops out of up to `side` pixels, `(n, 2, size, side)`: across, down.

    Places are the crops' middles, one over half their lengths (negative: mirrored), half their lengths in taps; twice.
    """
    middle, slope, reach = places.view(-1, 3, 2, 1, 1).unbind(dim=1)
    pixel, target, two = _grid(side, size, places.device)
    source = (pixel - middle).mul_(slope)  # within the crop from -1 to 1
    source.add_(F.hardshrink(source, 1.0), alpha=_FAR)
    beyond = torch.addcmul(two, reach, (source - target).abs_(), value=-1).clamp_(min=0)  # 2 - distance
    rest = beyond - 1
    near = rest.clamp(min=0)
    if resample == "bicubic":  # Keys' two cubics as sums of powers that end at 2 and at 1
        square = near * near
        near = torch.addcmul(square, square, near, value=-2).addcmul_(beyond.mul_(beyond), rest, value=0.5)
    return near.div_(near.sum(dim=3, keepdim=True))


@lru_cache(maxsize=16)
def _grid(side: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    target = (2 * torch.arange(size)[:, None] + 1 - size) / size  # middles of the pixels of a view, from -1 to 1
    return torch.arange(float(side)).to(device), target.to(device), torch.tensor(2.0).to(device)


@lru_cache(maxsize=16)
def _constants(pixels: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of an image's mean grey; sixths of a turn of red, green, blue; the next channel less the one after it."""
    grey = (torch.tensor(ops.LUMA) / pixels).repeat(pixels)
    cyclic = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return grey.to(device), torch.tensor([0.0, 2.0, 4.0]).to(device), cyclic.to(device)


def _mixed(x: Tensor, colours: Tensor) -> Tensor:
    return torch.bmm(x, colours.view(-1, 3, 3))


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    if x.shape[2] == 3:
        grey = (x.flatten(1) @ _constants(x.shape[1], x.device)[0])[:, None, None]
    else:
        grey = x.mean(dim=1, keepdim=True)
    return torch.lerp(grey, x, factor[:, None])


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """`ops.adjust_hue` in half as many operations, by `turn` `(n, 3)` as it is there."""
    _, sixths, cyclic = _constants(x.shape[1], x.device)
    high, first = x.max(dim=2, keepdim=True)
    low = x.amin(dim=2, keepdim=True)
    span = high - low
    hue = torch.addcmul(x @ cyclic, span, sixths).gather(2, first)
    distance = torch.addcmul(hue, span, turn[:, None]).abs_().sub_(span, alpha=3).abs_()
    return distance.add_(low - span).clamp_(low, high)


def _blurred(x: Tensor, taps: Tensor) -> Tensor:
    number, side, channels = len(x), isqrt(x.shape[1]), x.shape[2]
    rows = ops.blur_matrix(taps, side).mT
    x = torch.bmm(x.reshape(number, side, side * channels).mT, rows)  # (n, W x C, H)
    return torch.bmm(x.view(number, side, channels * side).mT, rows).view(number, channels, -1).mT


def _equalised(x: Tensor, chosen: Tensor) -> Tensor:
    number, pixels, channels = x.shape
    flat = ops.equalize(x.mT.reshape(number, channels, isqrt(pixels), -1)).flatten(2).mT
    return torch.lerp(x, flat, chosen[:, None])
