"""Pipelines of views: PIL image in, normalised float tensors `(C, H, W)` out. The operations are in `image_ops`."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torchvision import transforms as tvt

from solo import plugin
from solo.data.catalogue.registry import DATASETS
from solo.data.storage.reading import Array
from solo.data.views import image_ops as ops
from solo.data.views.batched import JITTER, BatchAugment, setting
from solo.data.views.tensor_ops import Resample
from solo.errors import UserError

_MODES = {1: "L", 3: "RGB"}  # of Pillow, by the number of channels


class NCropAugmentation(ops.Named):
    """`num_crops` views of one pipeline, as a list."""

    def __init__(self, transform: Callable[[Any], Any], num_crops: int) -> None:
        self.transform = transform
        self.num_crops = num_crops

    def __call__(self, image: Any) -> list[Any]:
        """As many views of the image as `num_crops` says."""
        return [self.transform(image) for _ in range(self.num_crops)]


class FullTransformPipeline(ops.Named):
    """The views of several pipelines, in one list."""

    def __init__(self, transforms: Iterable[Callable[[Any], list[Any]]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> list[Any]:
        """The views, in the order of the pipelines."""
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
    as_grey = bool(setting(entry, "grayscale.channels"))
    last = ops.normalisation(mean, std, 3 if as_grey else channels)
    code = [plugin.load(path, "augmentations.transforms") for path in setting(entry, "transforms") or ()]
    if len(last.mean) not in (1, 3):
        if code:
            raise UserError(f"augmentations.transforms are for PIL images, which don't have {len(last.mean)} channels")
        return tvt.Compose([_OfArrays(entry, last)])
    size, crop = int(entry.crop_size), tvt.Resize(int(entry.crop_size), tvt.InterpolationMode.BICUBIC)
    if setting(entry, "rrc.enabled"):
        scale = float(entry.rrc.crop_min_scale), float(entry.rrc.crop_max_scale)
        crop = ops.RandomResizedCrop(size, scale)
    jitter = ops.ColorJitter(**{name: float(setting(entry, f"color_jitter.{name}")) for name in JITTER})
    made: dict[str, Callable[[float], Callable[[Any], Any]]] = {
        "color_jitter": lambda share: ops.RandomApply([jitter], share),
        "grayscale": ops.RandomGrayscale,
        "gaussian_blur": lambda share: ops.RandomApply([ops.GaussianBlur()], share),
        "solarization": lambda share: ops.RandomApply([ops.Solarization()], share),
        "equalization": lambda share: ops.RandomApply([ops.Equalization()], share),
        "horizontal_flip": ops.RandomHorizontalFlip,
    }
    colours = [make(share) for name, make in made.items() if (share := setting(entry, f"{name}.prob"))]
    steps = [*([ops.Grayscale()] if as_grey else []), crop, *code, *colours, tvt.ToTensor(), last]
    return ops.Pipeline(steps, _MODES[len(last.mean)])


class _OfArrays:
    """A view of an image of other than 1 and 3 channels, which Pillow can't hold: by the operations on tensors."""

    def __init__(self, entry: Any, last: ops.Normalize, resample: Resample = "bicubic") -> None:
        self.maker = BatchAugment([{**entry, "num_crops": 1}], last.mean, last.std, len(last.mean), resample)

    def __repr__(self) -> str:
        return repr(self.maker)

    def __call__(self, image: Array) -> Tensor:
        """uint8 `(H, W, C)` -> normalised float32 `(C, size, size)`; the seed is drawn as other transforms draw."""
        seed = torch.tensor([random.getrandbits(62)])
        return self.maker([_planes(image)], seed)[0][0].clone()


def build_eval_pipeline(
    size: int, mean: Sequence[float], std: Sequence[float], channels: int | None = None, resize: int | None = None
) -> tvt.Compose:
    """Deterministic: shorter side to `resize`, centre crop of `size` (without `resize`: exactly `size` x `size`)."""
    last = ops.normalisation(mean, std, channels)
    if len(last.mean) not in (1, 3):
        from torchvision.transforms import v2 as tv2  # takes most of a second to import

        whole = [tv2.Resize([resize]), tv2.CenterCrop(size)] if resize else [tv2.Resize([size, size])]
        return tvt.Compose([_planes, *whole, tvt.ConvertImageDtype(torch.float32), last])
    shape = [tvt.Resize(resize), tvt.CenterCrop(size)] if resize else [tvt.Resize((size, size))]
    return ops.Pipeline([*shape, tvt.ToTensor(), last], _MODES[len(last.mean)])


def train_entry(size: int, min_scale: float, flip: bool) -> dict[str, Any]:
    """How a classifier's training images are cropped and mirrored, as an entry of `augmentations`."""
    crop = {"enabled": True, "crop_min_scale": min_scale, "crop_max_scale": 1.0}
    return {"crop_size": size, "num_crops": 1, "rrc": crop, "horizontal_flip": {"prob": 0.5 * flip}}


def build_train_pipeline(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    channels: int | None = None,
    min_scale: float = 0.08,
    flip: bool = True,
) -> tvt.Compose:
    """A classifier's: random resized crop (bilinear) and mirroring."""
    last = ops.normalisation(mean, std, channels)
    if len(last.mean) not in (1, 3):
        return tvt.Compose([_OfArrays(train_entry(size, min_scale, flip), last, "bilinear")])
    crop_op = ops.RandomResizedCrop(size, (min_scale, 1.0), resample=Image.Resampling.BILINEAR)
    mirror = [ops.RandomHorizontalFlip(0.5)] if flip else []
    return ops.Pipeline([crop_op, *mirror, tvt.ToTensor(), last], _MODES[len(last.mean)])


def _planes(image: Array) -> Tensor:
    """`(H, W, C)` -> `(C, H, W)`."""
    return torch.from_numpy(image).movedim(2, 0)
