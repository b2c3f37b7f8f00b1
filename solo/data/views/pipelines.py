"""Pipelines of views: PIL image in, normalised float tensors `(C, H, W)` out; and their operations on one image.

By type these are torchvision's, so that code which looks for a step, changes or replaces one finds it. Each equals
torchvision's (or Pillow's) on the same parameters. The parameters are drawn from Python's `random`, which costs a tenth
of torch's generator and is seeded per sample by the loaders. Grey images (mode "L") stay grey: brightness and contrast
work on them; saturation, hue and greyscale change nothing.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms as tvt
from torchvision.transforms import functional as tvf

from solo import plugin
from solo.data.catalogue.registry import DATASETS
from solo.data.storage.reading import Array
from solo.data.views.batched import JITTER, BatchAugment, channel_statistics, setting
from solo.data.views.tensor_ops import Resample
from solo.errors import UserError, explained

_MODES = {1: "L", 3: "RGB"}  # of Pillow, by the number of channels


class Named:
    """A readable form for `debug_augmentations`: the class and its public settings."""

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name[0] != "_" and name != "training"}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in shown.items())})"


class RandomApply(Named, tvt.RandomApply):  # type: ignore[misc]
    """Apply `transforms` with probability `p`."""

    def __call__(self, img: Image.Image) -> Image.Image:
        if random.random() < self.p:
            for op in self.transforms:
                img = op(img)
        return img


class RandomResizedCrop(Named, tvt.RandomResizedCrop):  # type: ignore[misc]
    """A crop of random area and aspect ratio, resized to `size` x `size` (Szegedy et al., 2015; as torchvision's)."""

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

    def __call__(self, img: Image.Image) -> Image.Image:
        # Image.resize(box=...) would be one call, but it lets pixels from outside the box bleed into its rim.
        return img.crop(self.box(*img.size)).resize(self.size[::-1], Image.Resampling[self.interpolation.name])


class ColorJitter(Named, tvt.ColorJitter):  # type: ignore[misc]
    """Brightness, contrast, saturation and hue in random order, as torchvision's."""

    def __call__(self, img: Image.Image) -> Image.Image:
        spans = {name: span for name in JITTER if (span := getattr(self, name))}
        for name in random.sample(list(spans), len(spans)):
            img = getattr(tvf, f"adjust_{name}")(img, random.uniform(*spans[name]))
        return img


class RandomGrayscale(Named, tvt.RandomGrayscale):  # type: ignore[misc]
    """With probability `p`, all channels are the image's luminance."""

    def __call__(self, img: Image.Image) -> Image.Image:
        grey = random.random() < self.p and img.mode != "L"
        return img.convert("L").convert(img.mode) if grey else img


class GaussianBlur(Named):
    """Pillow's blur with a radius (its standard deviation, in pixels) drawn uniformly from `sigma`."""

    def __init__(self, sigma: Sequence[float] | None = None) -> None:
        self.sigma = tuple(sigma) if sigma else (0.1, 2.0)

    def __call__(self, img: Image.Image) -> Image.Image:
        return img.filter(ImageFilter.GaussianBlur(radius=random.uniform(*self.sigma)))


class Solarization(Named):
    """Invert all values from 128 on."""

    def __call__(self, img: Image.Image) -> Image.Image:
        return ImageOps.solarize(img)


class Equalization(Named):
    """Equalise the histogram of each channel."""

    def __call__(self, img: Image.Image) -> Image.Image:
        return ImageOps.equalize(img)


class RandomHorizontalFlip(Named, tvt.RandomHorizontalFlip):  # type: ignore[misc]
    """Mirror left and right with probability `p`."""

    def __call__(self, img: Image.Image) -> Image.Image:
        return img.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < self.p else img


class Normalize(Named, tvt.Normalize):  # type: ignore[misc]
    """`(x - mean) / std` of a float tensor `(C, H, W)`, as torchvision's; arguments as of `channel_statistics`."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels: int | None = None) -> None:
        tvt.Normalize.__init__(self, *map(tuple, channel_statistics(mean, std, channels)))
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
        if self.mode and isinstance(img, Image.Image) and img.mode != self.mode:
            img = img.convert(self.mode)
        steps = self.transforms
        at_once = [type(step) for step in steps[-2:]] == [tvt.ToTensor, Normalize]
        for step in steps[:-2] if at_once else steps:
            img = step(img)
        return steps[-1].of_image(img) if at_once else img


class NCropAugmentation(Named):
    """`num_crops` views of one pipeline, as a list."""

    def __init__(self, transform: Callable[[Any], Any], num_crops: int) -> None:
        self.transform = transform
        self.num_crops = num_crops

    def __call__(self, image: Any) -> list[Any]:
        return [self.transform(image) for _ in range(self.num_crops)]


class FullTransformPipeline(Named):
    """The views of several pipelines, in one list, in their order."""

    def __init__(self, transforms: Iterable[Callable[[Any], list[Any]]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> list[Any]:
        return [view for transform in self.transforms for view in transform(image)]


def prepare_n_crop_transform(
    transforms: Sequence[Callable[[Any], Any]], num_crops_per_aug: Sequence[int]
) -> FullTransformPipeline:
    """`num_crops_per_aug[i]` views of `transforms[i]`, for all i; the two have the same length."""
    assert len(transforms) == len(num_crops_per_aug)
    pairs = zip(transforms, num_crops_per_aug, strict=True)
    return FullTransformPipeline([NCropAugmentation(transform, num_crops) for transform, num_crops in pairs])


def build_transform_pipeline(
    dataset: str,
    cfg: Any,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int | None = None,
) -> tvt.Compose:
    """One pipeline from one entry of `augmentations`, of which an operation whose `prob` is 0 or absent is left out.

    Order: crop or resize (bicubic), `transforms` of the user's own, colour jitter, greyscale, blur, solarise, equalise,
    flip, tensor, normalise. Mean and std, per channel, of images in [0, 1], are the given ones, else the data set's;
    unknown names and custom data have `cfg.mean` and `cfg.std`, or ImageNet's. Other than 1 or 3 `channels` (default:
    as many as `mean` has values) are of images as arrays `(H, W, C)`.
    """
    entry = cfg if OmegaConf.is_config(cfg) else OmegaConf.create(dict(cfg))
    spec = DATASETS.get(dataset, DATASETS["custom"])
    own = entry if spec.name == "custom" else {}
    mean = mean or own.get("mean") or spec.mean
    std = std or own.get("std") or spec.std
    return _pipeline(entry, Normalize(mean, std, 3 if setting(entry, "grayscale.channels") else channels))


def _pipeline(entry: DictConfig, last: Normalize, resample: Resample = "bicubic") -> tvt.Compose:
    code = [plugin.load(path, "augmentations.transforms") for path in setting(entry, "transforms") or ()]
    if len(last.mean) not in _MODES:
        if code:
            raise UserError(f"augmentations.transforms are for PIL images, which don't have {len(last.mean)} channels")
        return tvt.Compose([_OfArrays(entry, last, resample)])
    size, interpolation = int(entry.crop_size), tvt.InterpolationMode(resample)
    crop = tvt.Resize(size, interpolation)
    if setting(entry, "rrc.enabled"):
        scale = float(entry.rrc.crop_min_scale), float(entry.rrc.crop_max_scale)
        crop = RandomResizedCrop(size, scale, interpolation=interpolation)
    strengths = {name: float(setting(entry, f"color_jitter.{name}")) for name in JITTER}
    with explained(f"color_jitter={strengths} can't be used", "none may be negative, and hue is at most 0.5"):
        jitter = ColorJitter(**strengths)
    made: dict[str, Callable[[float], Callable[[Any], Any]]] = {
        "color_jitter": lambda share: RandomApply([jitter], share),
        "grayscale": RandomGrayscale,
        "gaussian_blur": lambda share: RandomApply([GaussianBlur()], share),
        "solarization": lambda share: RandomApply([Solarization()], share),
        "equalization": lambda share: RandomApply([Equalization()], share),
        "horizontal_flip": RandomHorizontalFlip,
    }
    colours = [make(share) for name, make in made.items() if (share := setting(entry, f"{name}.prob"))]
    grey = [tvt.Grayscale(3)] if setting(entry, "grayscale.channels") else []
    return Pipeline([*grey, crop, *code, *colours, tvt.ToTensor(), last], _MODES[len(last.mean)])


class _OfArrays(Named):
    """A view of an image of other than 1 and 3 channels, which Pillow can't hold: by the operations on tensors."""

    def __init__(self, entry: Any, last: Normalize, resample: Resample) -> None:
        self.maker = BatchAugment([{**entry, "num_crops": 1}], last.mean, last.std, len(last.mean), resample)

    def __call__(self, image: Array) -> Tensor:
        """uint8 `(H, W, C)` -> normalised float32 `(C, size, size)`; the seed is drawn as other transforms draw."""
        seed = torch.tensor([random.getrandbits(62)])
        return self.maker([_planes(image)], seed)[0][0].clone()


def build_eval_pipeline(
    size: int, mean: Sequence[float], std: Sequence[float], channels: int | None = None, resize: int | None = None
) -> tvt.Compose:
    """Deterministic: shorter side to `resize`, centre crop of `size` (without `resize`: exactly `size` x `size`)."""
    last = Normalize(mean, std, channels)
    if len(last.mean) not in _MODES:
        from torchvision.transforms import v2 as tv2  # takes most of a second to import

        whole = [tv2.Resize([resize]), tv2.CenterCrop(size)] if resize else [tv2.Resize([size, size])]
        return tvt.Compose([_planes, *whole, tvt.ConvertImageDtype(torch.float32), last])
    shape = [tvt.Resize(resize), tvt.CenterCrop(size)] if resize else [tvt.Resize((size, size))]
    return Pipeline([*shape, tvt.ToTensor(), last], _MODES[len(last.mean)])


def train_entry(size: int, min_scale: float, flip: bool) -> DictConfig:
    """How a classifier's training images are cropped and mirrored, as an entry of `augmentations`."""
    crop = {"enabled": True, "crop_min_scale": min_scale, "crop_max_scale": 1.0}
    entry = {"crop_size": size, "num_crops": 1, "rrc": crop, "horizontal_flip": {"prob": 0.5 * flip}}
    return OmegaConf.create(entry)


def build_train_pipeline(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    channels: int | None = None,
    min_scale: float = 0.08,
    flip: bool = True,
) -> tvt.Compose:
    """A classifier's: random resized crop (bilinear) and mirroring."""
    return _pipeline(train_entry(size, min_scale, flip), Normalize(mean, std, channels), "bilinear")


def _planes(image: Array) -> Tensor:
    """`(H, W, C)` -> `(C, H, W)`."""
    return torch.from_numpy(image).movedim(2, 0)
