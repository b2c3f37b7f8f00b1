"""Operations on one PIL image, the last steps to a tensor, and `Pipeline`, which does them one after the other.

By type they are torchvision's, so that code which looks for a step, changes or replaces one finds it.
Each equals torchvision's (or Pillow's) on the same parameters. The parameters are drawn from Python's `random`, which
costs a tenth of torch's generator and is seeded per sample by the loaders. Grey images (mode "L") stay grey:
brightness and contrast work on them; saturation, hue and greyscale change nothing.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import nn
from torchvision import transforms as tvt
from torchvision.transforms import functional as tvf

from solo.data.catalogue.rows import wrong_statistics
from solo.errors import UserError

ImageOp = Callable[[Image.Image], Image.Image]


class Named:
    """A readable form for `debug_augmentations`: the class and its public settings."""

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name[0] != "_" and name != "training"}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in shown.items())})"


class Op(Named):
    """One operation, `_apply`; parameters are drawn anew for each image."""

    _apply: ImageOp

    def __call__(self, img: Image.Image) -> Image.Image:
        """The changed image, or the same one."""
        return self._apply(img)


class RandomApply(Op, tvt.RandomApply):  # type: ignore[misc]
    """Apply `transforms` with probability `p`."""

    def __init__(self, transforms: Sequence[ImageOp], p: float) -> None:
        nn.Module.__init__(self)
        self.transforms, self.p = list(transforms), p

    def _apply(self, image: Image.Image) -> Image.Image:
        if random.random() < self.p:
            for op in self.transforms:
                image = op(image)
        return image


class RandomResizedCrop(Op, tvt.RandomResizedCrop):  # type: ignore[misc]
    """A crop of random area and aspect ratio, resized to `size` x `size` (Szegedy et al., 2015; as torchvision's).

    `scale` is the range of its share of the area, in (0, 1]; `ratio` that of width / height, uniform in the logarithm.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        resample: Image.Resampling = Image.Resampling.BICUBIC,
    ) -> None:
        tvt.RandomResizedCrop.__init__(self, size, scale, ratio, tvt.InterpolationMode(resample.name.lower()))
        self.resample = resample

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a random crop; the largest allowed central crop after 10 misses."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = width * height * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = random.randint(0, width - w), random.randint(0, height - h)
                return left, top, left + w, top + h
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def _apply(self, image: Image.Image) -> Image.Image:
        # Image.resize(box=...) would be one call, but it lets pixels from outside the box bleed into its rim.
        return image.crop(self.box(*image.size)).resize(self.size[::-1], self.resample)


def to_grey(image: Image.Image) -> Image.Image:
    """Luminance, in the mode the image has."""
    return image if image.mode == "L" else image.convert("L").convert(image.mode)


class ColorJitter(Op, tvt.ColorJitter):  # type: ignore[misc]
    """Brightness, contrast, saturation and hue in random order, as torchvision's.

    Args:
        brightness, contrast, saturation: factor from [max(0, 1 - x), 1 + x]; 0 leaves the operation out.
        hue: shift from [-hue, hue], at most 0.5.
    """

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
    ) -> None:
        if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
            given = f"brightness={brightness} contrast={contrast} saturation={saturation} hue={hue}"
            raise UserError(f"color_jitter {given}: none may be negative and hue is at most 0.5")
        nn.Module.__init__(self)
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        ops = (
            (tvf.adjust_brightness, max(0.0, 1 - brightness), 1 + brightness, brightness),
            (tvf.adjust_contrast, max(0.0, 1 - contrast), 1 + contrast, contrast),
            (tvf.adjust_saturation, max(0.0, 1 - saturation), 1 + saturation, saturation),
            (tvf.adjust_hue, -hue, hue, hue),
        )
        self._ops = [(op, low, high) for op, low, high, strength in ops if strength]

    def _apply(self, image: Image.Image) -> Image.Image:
        for op, low, high in random.sample(self._ops, len(self._ops)):
            image = op(image, random.uniform(low, high))
        return image


class Grayscale(Op, tvt.Grayscale):  # type: ignore[misc]
    """Luminance; three equal channels in RGB images."""

    def __init__(self) -> None:
        tvt.Grayscale.__init__(self, num_output_channels=3)

    def _apply(self, image: Image.Image) -> Image.Image:
        return to_grey(image)


class RandomGrayscale(Op, tvt.RandomGrayscale):  # type: ignore[misc]
    """With probability `p`, all channels are the image's luminance."""

    def __init__(self, p: float) -> None:
        tvt.RandomGrayscale.__init__(self, p)

    def _apply(self, image: Image.Image) -> Image.Image:
        return to_grey(image) if random.random() < self.p else image


class GaussianBlur(Op):
    """Pillow's blur with a radius (its standard deviation, in pixels) drawn uniformly from `sigma`."""

    def __init__(self, sigma: Sequence[float] | None = None) -> None:
        self.sigma = tuple(sigma) if sigma else (0.1, 2.0)

    def _apply(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(*self.sigma)))


class Solarization(Op):
    """Invert all values from 128 on."""

    def _apply(self, image: Image.Image) -> Image.Image:
        return ImageOps.solarize(image)


class Equalization(Op):
    """Equalise the histogram of each channel."""

    def _apply(self, image: Image.Image) -> Image.Image:
        return ImageOps.equalize(image)


class RandomHorizontalFlip(Op, tvt.RandomHorizontalFlip):  # type: ignore[misc]
    """Mirror left and right with probability `p`."""

    def __init__(self, p: float) -> None:
        tvt.RandomHorizontalFlip.__init__(self, p)

    def _apply(self, image: Image.Image) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < self.p else image


class Normalize(Named, tvt.Normalize):  # type: ignore[misc]
    """`(x - mean) / std` of a float tensor `(C, H, W)`, as torchvision's."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        tvt.Normalize.__init__(self, tuple(mean), tuple(std))
        levels = torch.arange(256, dtype=torch.float32) / 255
        m, s = (torch.tensor(v, dtype=torch.float32)[:, None] for v in (self.mean, self.std))
        self._table = ((levels - m) / s).numpy()  # (C, 256)

    def of_image(self, image: Image.Image) -> torch.Tensor:
        """`(x / 255 - mean) / std` of a grey or RGB image, float32 `(C, H, W)`: what ToTensor and this give, faster."""
        pixels = np.asarray(image)
        if pixels.ndim == 2:
            return torch.from_numpy(self._table[0].take(pixels))[None]
        planes = [table.take(pixels[:, :, c]) for c, table in enumerate(self._table)]
        return torch.from_numpy(np.stack(planes))


class Pipeline(tvt.Compose):  # type: ignore[misc]
    """The image in `mode` ("L" or "RGB"; None: as it is), then the transforms, one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], mode: str | None = None) -> None:
        super().__init__(list(transforms))
        self.mode = mode

    def __call__(self, img: Any) -> Any:
        """What the last transform gives."""
        if self.mode and isinstance(img, Image.Image) and img.mode != self.mode:
            img = img.convert(self.mode)
        steps = self.transforms
        at_once = len(steps) > 1 and type(steps[-2]) is tvt.ToTensor and type(steps[-1]) is Normalize
        for step in steps[:-2] if at_once else steps:
            img = step(img)
        return steps[-1].of_image(img) if at_once else img


def normalisation(mean: Sequence[float], std: Sequence[float], channels: int | None) -> Normalize:
    """The last transform of every pipeline, of `channels` channels; one value of mean or std is for all of them."""
    for name, text in wrong_statistics(mean, std).items():
        raise UserError(f"{name}{text}")
    count = channels or len(mean)
    mean, std = (list(v) * count if len(v) == 1 else list(v) for v in (mean, std))
    if not len(mean) == len(std) == count:
        have = f"mean has {len(mean)} values and std {len(std)} for {count} channels"
        raise UserError(f"{have}; give as many as there are channels")
    return Normalize(mean, std)
