"""Operations on a batch of images, each with its own parameters.

Images are float32 `(B, C, H, W)` in the units of uint8, [0, 255], without rounding between the operations. Each equals
torchvision's functional on the same parameters within one unit. Only three channels are colours: with any other number
saturation, hue and greyscale change nothing, and contrast is each channel's own. Operations may change what they get.
"""

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Resample = Literal["bicubic", "bilinear"]

WHITE = 255.0
LUMA = (0.299, 0.587, 0.114)
# Up to this many pixels a side, products with weight matrices, of which all are kept (33 MB at most for a pair of
# sizes), are faster on a CPU than one call of the resizing per image.
DENSE_SIDE = 45
_BLUR_REACH = 6  # pixels: three standard deviations of the strongest blur


def luminance(x: Tensor) -> Tensor:
    """`(B, 3, H, W)` -> `(B, 1, H, W)`."""
    grey = x[:, :1] * LUMA[0]
    return grey.add_(x[:, 1:2], alpha=LUMA[1]).add_(x[:, 2:], alpha=LUMA[2])


def to_grey(x: Tensor) -> Tensor:
    """Luminance, in as many channels as there were."""
    return luminance(x).expand_as(x) if x.shape[1] == 3 else x


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """`factor` (B,): 0 is black, 1 changes nothing."""
    return x.mul_(factor[:, None, None, None]).clamp_(0, WHITE)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """`factor` (B,): 0 is the mean grey of the image, 1 changes nothing."""
    means = x.mean(dim=(2, 3), keepdim=True)
    return _blend(luminance(means) if x.shape[1] == 3 else means, x, factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """`factor` (B,): 0 is grey, 1 changes nothing."""
    return _blend(luminance(x), x, factor) if x.shape[1] == 3 else x


def _blend(grey: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """`grey` + `factor` x (`x` - `grey`); both are changed."""
    if len(x) == 1 and x.device.type == "cpu":  # one pass, but for a number only
        return torch.lerp(grey, x, factor.item(), out=x).clamp_(0, WHITE)
    f = factor[:, None, None, None]
    return x.mul_(f).add_(grey.mul_(1 - f)).clamp_(0, WHITE)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` (B,) in [-0.5, 0.5] of the circle; value and saturation stay."""
    if x.shape[1] != 3:
        return x
    red, green, blue = x.unbind(dim=1)
    high = torch.maximum(red, green)
    low = torch.minimum(red, green)
    torch.maximum(high, blue, out=high)
    torch.minimum(low, blue, out=low)
    span = high - low
    # The hue times `span`, in sixths of a turn: red is 0, green 2, blue 4. Masks as numbers: `where` is slow.
    at_red = green - blue
    at_green = torch.sub(blue, red).add_(span, alpha=2)
    hue = (red - green).add_(span, alpha=4)
    hue.lerp_(at_green, green.eq_(high)).lerp_(at_red, red.eq_(high))
    # Each channel is `high` within a sixth of its own hue, `low` within a sixth of the opposite one, and on a straight
    # line in between. `turn` keeps the distances below six sixths: what exceeds three is the way round the other side.
    own = torch.tensor([0.0, 2.0, 4.0], device=x.device)
    turn = torch.remainder(6 * shift[:, None] - own + 5, 6) - 5  # (B, 3) in [-5, 1)
    torch.mul(span[:, None], turn[:, :, None, None], out=x)
    x.add_(hue[:, None]).abs_().sub_(span[:, None], alpha=3).abs_()
    x.add_(torch.sub(high, span, alpha=2)[:, None])
    return torch.clamp(x, low[:, None], high[:, None], out=x)


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur with standard deviation `sigma` (B,) in pixels, up to 2; 13 taps, edges mirrored, as torchvision's."""
    if x.device.type == "cpu" and max(x.shape[2:]) > DENSE_SIDE:
        for image, strength in zip(x, sigma.tolist(), strict=True):
            _blur_one(image, strength)
        return x
    height, width = x.shape[2:]
    rows = blur_matrix(blur_taps(sigma, height), height)
    columns = rows if width == height else blur_matrix(blur_taps(sigma, width), width)
    return torch.matmul(rows[:, None], _across(x, columns))


def _blur_one(image: Tensor, sigma: float) -> None:
    """The same for one image `(C, H, W)`, in place, without the taps that hardly weigh anything."""
    height, width = image.shape[1:]
    reach = min(_BLUR_REACH, math.ceil(3 * sigma), height - 1, width - 1)
    weights = [math.exp(-0.5 * (tap / sigma) ** 2) for tap in range(reach + 1)]
    total = 2 * sum(weights) - weights[0]
    padded = F.pad(image, 4 * [reach], mode="reflect")
    across = torch.empty_like(padded[..., :width])
    for source, out, dim, side in ((padded, across, 2, width), (across, image, 1, height)):
        torch.mul(source.narrow(dim, reach, side), weights[0] / total, out=out)
        for tap in range(1, reach + 1):
            for start in (reach - tap, reach + tap):
                out.add_(source.narrow(dim, start, side), alpha=weights[tap] / total)


def blur_taps(sigma: Tensor, side: int) -> Tensor:
    """Weights of a blur's taps, `(B, up to 13)`."""
    reach = min(_BLUR_REACH, side - 1)
    taps = torch.arange(-reach, reach + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    weights *= weights > 1e-6  # numbers close to the smallest ones would make the products ten times slower
    return weights / weights.sum(dim=1, keepdim=True)


def blur_matrix(taps: Tensor, side: int) -> Tensor:
    """`(B, side, side)`: output pixel x input pixel."""
    return (taps @ _shifts(side, taps.shape[1] // 2, taps.device).flatten(1)).view(-1, side, side)


@lru_cache(maxsize=16)
def _shifts(side: int, reach: int, device: torch.device) -> Tensor:
    """`(2 reach + 1, side, side)`: where each tap of each output pixel reads, mirrored at the edges."""
    source = (torch.arange(side, device=device) + torch.arange(-reach, reach + 1, device=device)[:, None]).abs()
    return F.one_hot(torch.where(source >= side, 2 * (side - 1) - source, source), side).float()


def solarize(x: Tensor) -> Tensor:
    """Invert the upper half of the values."""
    return torch.minimum(x, WHITE - x, out=x)


def equalize(x: Tensor) -> Tensor:
    """Equalise the histogram of each channel, of values rounded to whole units."""
    from torchvision.transforms.v2 import functional as tvf  # takes most of a second to import

    flat: Tensor = tvf.equalize(x.round().to(torch.uint8).flatten(0, 1)[:, None])
    return flat.view(x.shape).to(x.dtype)


def resized_crop(
    images: Tensor | list[Tensor],
    box: Tensor,
    size: int,
    flip: Tensor,
    resample: Resample = "bicubic",
    out: Tensor | None = None,
) -> Tensor:
    """Cut a box (left, top, width, height) out of each image and resize it to `size` x `size`, with antialiasing.

    Images are uint8 `(B, C, H, W)`, or on the CPU `(C, H, W)` of any sizes, boxes int64 `(B, 4)`; where `flip` (B,) is
    true the view is mirrored. Returns float32 `(B, C, size, size)` of whole numbers in [0, 255]; of a list in `out`.
    """
    if isinstance(images, Tensor) and max(size, *images.shape[2:]) <= DENSE_SIDE:
        rows, columns = (
            all_matrices(side, size, images.device, resample).index_select(0, place)
            for side, place in zip(images.shape[2:], which_matrices(box, flip, *images.shape[2:]), strict=True)
        )
        # Clamped in between, too, as it is where the result of each pass is a uint8.
        across = _across(images.contiguous().float(), columns).clamp_(0, WHITE)
        return torch.matmul(rows[:, None], across).clamp_(0, WHITE).round_()
    out = torch.empty(len(images), images[0].shape[0], size, size) if out is None else out
    for view, image, (left, top, width, height), mirror in zip(out, images, box.tolist(), flip.tolist(), strict=True):
        crop = image[None, :, top : top + height, left : left + width]
        resized = F.interpolate(crop, (size, size), mode=resample, antialias=True)[0]
        view.copy_(resized.flip(-1) if mirror else resized)
    return out


def which_matrices(box: Tensor, flip: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where among `all_matrices` those are that cut boxes `(B, 4)` out of such images: of the rows, of the columns."""
    left, top, wide, high = box.unbind(dim=1)
    return top * height + high - 1, (flip * width + left) * width + wide - 1


@lru_cache(maxsize=16)
def all_matrices(side: int, size: int, device: torch.device, resample: Resample) -> Tensor:
    """Weights `(2 x side x side, size, side)` that resize a part, by its start and length - 1; half of them mirror."""
    start, length = (grid.flatten() for grid in torch.meshgrid(*2 * [torch.arange(side, device=device)], indexing="ij"))
    weights = _weights(start, length + 1, side, size, resample)
    return torch.cat((weights, weights.flip(1)))


def _weights(start: Tensor, length: Tensor, side: int, size: int, resample: Resample) -> Tensor:
    """Keys' cubic or a triangle, widened when it shrinks (Pillow's antialiasing), `(B, size, side)`; rows sum to 1."""
    scale = (length / size)[:, None, None]
    pixel = torch.arange(side, device=start.device) - start[:, None, None]  # (B, 1, side), 0 is the crop's first
    centre = (torch.arange(size, device=start.device)[:, None] + 0.5) * scale  # (B, size, 1)
    distance = (pixel + 0.5 - centre).div_(scale.clamp(min=1)).abs_()
    if resample == "bilinear":
        weights = (1 - distance).clamp_(min=0)
    else:
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
        weights = torch.where(distance < 1, near, far) * (distance < 2)
    weights *= (pixel >= 0) & (pixel < length[:, None, None])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _across(x: Tensor, columns: Tensor) -> Tensor:
    """`x @ columns.T` for each channel: (B, C, H, W), (B, W', W) -> (B, C, H, W')."""
    return torch.bmm(x.flatten(1, 2), columns.mT).view(*x.shape[:3], -1)


def crop_boxes(
    uniforms: Tensor, height: Tensor, width: Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Boxes of random area and aspect ratio, int64 `(B, 4)`: left, top, width, height, as torchvision draws them.

    Of `uniforms` (B, 22) in [0, 1), twenty are ten tries for area and ratio, two the place; `height` and `width` (B,)
    are the images'. After ten misses it is the largest allowed central box.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    tall, wide = height[:, None].double(), width[:, None].double()
    area = tall * wide * (scale[0] + (scale[1] - scale[0]) * uniforms[:, :10])
    aspect = torch.exp(low + (high - low) * uniforms[:, 10:20])
    w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (w > 0) & (w <= wide) & (h > 0) & (h <= tall)
    first = fits.int().argmax(dim=1, keepdim=True)
    w, h = w.gather(1, first), h.gather(1, first)
    left = (uniforms[:, 20:21] * (wide - w + 1)).floor()
    top = (uniforms[:, 21:22] * (tall - h + 1)).floor()
    best = (wide / tall).clamp(*ratio)
    central_w = torch.minimum(wide, (tall * best).round())
    central_h = torch.minimum(tall, (wide / best).round())
    central = ((wide - central_w).div(2).floor(), (tall - central_h).div(2).floor(), central_w, central_h)
    hit = fits.any(dim=1, keepdim=True)
    drawn = torch.cat((left, top, w, h), dim=1)
    return torch.where(hit, drawn, torch.cat(central, dim=1)).long()
