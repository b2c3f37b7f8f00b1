"""Eyes: descriptors of images that no network has learnt, to see who is alike otherwise than the one that is trained.

Each takes images (B, C, H, W), normalised or not, to (B, d) numbers. They are compared by cosine.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

VERSION = 2  # of the descriptors below: neighbours that are kept on disk are those of one version
_SIDE = 64  # larger images lose what is finer


def _small(images: Tensor, side: int) -> Tensor:
    height, width = (min(side, length) for length in images.shape[2:])
    return images if images.shape[2:] == (height, width) else F.adaptive_avg_pool2d(images, (height, width))


def hog(images: Tensor) -> Tensor:
    """Histograms of oriented gradients (Dalal and Triggs, CVPR 2005): 8 unsigned orientations, overlapping cells.

    A cell is a quarter of the image's side; they are an eighth apart. The gradient of a pixel is that of its strongest
    channel, and counts for the two orientations that it lies between. Square roots are taken, so that the cosine of two
    descriptors compares them as distributions (Arandjelovic and Zisserman, CVPR 2012).
    """
    x = _small(images, _SIDE)
    dx = F.pad(x, (1, 1))[..., 2:] - F.pad(x, (1, 1))[..., :-2]
    dy = F.pad(x, (0, 0, 1, 1))[..., 2:, :] - F.pad(x, (0, 0, 1, 1))[..., :-2, :]
    strength, channel = (dx.square() + dy.square()).max(dim=1, keepdim=True)
    dx, dy = dx.gather(1, channel), dy.gather(1, channel)
    angle, strength = torch.atan2(dy, dx) % math.pi / math.pi * 8, strength.sqrt()
    low, part = angle.long(), angle.frac()
    planes = x.new_zeros(len(x), 8, *x.shape[2:])
    planes.scatter_add_(1, low % 8, strength * (1 - part)).scatter_add_(1, (low + 1) % 8, strength * part)
    cell = [max(1, length // 4) for length in x.shape[2:]]
    return F.avg_pool2d(planes, cell, [max(1, length // 2) for length in cell]).flatten(1).sqrt()


def pixels(images: Tensor) -> Tensor:
    """The image itself, at most 32 pixels a side, without its mean."""
    x = _small(images, 32).flatten(1)
    return x - x.mean(dim=1, keepdim=True)


def colour(images: Tensor) -> Tensor:
    """How dark and bright each channel is: 16 quantiles of its pixels, wherever they are."""
    x = _small(images, _SIDE).flatten(2)
    return torch.quantile(x, torch.linspace(0, 1, 16, device=x.device), dim=2).movedim(0, 2).flatten(1)


EYES: dict[str, Callable[[Tensor], Tensor]] = {"hog": hog, "pixels": pixels, "colour": colour}
