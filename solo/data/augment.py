"""Views of whole batches: the entries of `augmentations`, applied to uint8 tensors with parameters for each sample.

Every random number is a function of a sample's seed and of the view, see `uniforms`, so that the views of an image do
not depend on who makes them, in which batch, or on what device. The operations are in `solo.data.tensor_ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from solo.data import tensor_ops as ops
from solo.data.transforms import normalisation

TensorOp = Callable[[Tensor], Tensor]

_RATIO = (3 / 4, 4 / 3)
_SIGMA = (0.1, 2.0)
_JITTER = ("brightness", "contrast", "saturation", "hue")
# Columns of a view's random numbers: crop, strengths of the jitter, its order, blur, and who gets what.
_CROP, _STRENGTH, _ORDER, _BLUR, _CHOICE = slice(22), slice(22, 26), slice(26, 30), 30, slice(31, 37)
_COLUMNS = 37
# Values of the images that are changed at once; more of them leave the processor's cache.
_CHUNK = 2**18


def uniforms(seeds: Tensor, stream: int, count: int) -> Tensor:
    """`(B, count)` float64 in [0, 1): a hash of seed, stream and column (SplitMix64, Steele et al., 2014).

    Args:
        seeds: int64 `(B,)`.
        stream: of numbers; here the number of the view.
        count: of columns.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    steps = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(stream * count)
    z = _mix(seeds.numpy().astype(np.uint64)[:, None]) + steps * golden
    return torch.from_numpy((_mix(z) >> np.uint64(11)) * 2.0**-53)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class ViewMaker:
    """The views of one entry of `augmentations`, of each image of a batch.

    Args:
        cfg: keys of the entry; an operation whose `prob` is 0 or absent is left out.
        mean, std: per channel, of images in [0, 1].
        streams: numbers of its views among all views of a sample.
    """

    def __init__(self, cfg: DictConfig, mean: Sequence[float], std: Sequence[float], streams: Sequence[int]) -> None:
        self.size = int(cfg.crop_size)
        self.streams = list(streams)
        self.scale: tuple[float, float] | None = None
        if _get(cfg, "rrc.enabled"):
            self.scale = (float(cfg.rrc.crop_min_scale), float(cfg.rrc.crop_max_scale))
        self.strengths = [float(_get(cfg, f"color_jitter.{name}")) for name in _JITTER]
        names = ("color_jitter", "grayscale", "gaussian_blur", "solarization", "equalization", "horizontal_flip")
        self.probs = torch.tensor([float(_get(cfg, f"{name}.prob")) for name in names], dtype=torch.float64)
        self.mean = torch.tensor(list(mean))[:, None, None] * ops.WHITE
        self.std = torch.tensor(list(std))[:, None, None] * ops.WHITE

    def draw(self, seeds: Tensor) -> Tensor:
        """All random numbers, `(views x B, columns)`: the first view of all samples, then the next."""
        return torch.cat([uniforms(seeds, stream, _COLUMNS) for stream in self.streams])

    def crop(self, images: Tensor | list[Tensor], numbers: Tensor) -> Tensor:
        """Crop, resize and mirror.

        Args:
            images: uint8 `(B, C, H, W)`, or `(C, H, W)` each.
            numbers: as `draw` gives them, `(B, columns)`.

        Returns:
            float32 `(B, C, size, size)` in [0, 255].
        """
        flip = self._chosen(numbers)[:, 5]
        if isinstance(images, list):
            height, width = torch.tensor([image.shape[1:] for image in images]).T
            return ops.resized_crops(images, self._boxes(numbers, height, width), self.size, flip)
        height, width = (torch.full((len(images),), side) for side in images.shape[2:])
        box = self._boxes(numbers, height, width).to(images.device)
        return ops.resized_crop(images, box, self.size, flip.to(images.device))

    def colour(self, x: Tensor, numbers: Tensor) -> Tensor:
        """Jitter, greyscale, blur, solarise, equalise, in this order, and normalise; `x` is changed."""
        chosen = self._chosen(numbers)
        self._jitter(x, numbers, chosen[:, 0])
        sigma = (_SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * numbers[:, _BLUR]).float()
        _change(x, chosen[:, 1], ops.to_grey)
        _change(x, chosen[:, 2], ops.gaussian_blur, sigma)
        _change(x, chosen[:, 3], ops.solarize)
        _change(x, chosen[:, 4], ops.equalize)
        return x.sub_(self.mean.to(x.device)).div_(self.std.to(x.device))

    def __call__(self, images: Tensor | list[Tensor], seeds: Tensor) -> list[Tensor]:
        """The views: normalised float32 `(B, C, size, size)` each."""
        numbers = self.draw(seeds)
        channels, device = images[0].shape[0], images[0].device
        out = torch.empty(len(numbers), channels, self.size, self.size, device=device)
        rows = max(1, _CHUNK // (channels * self.size**2)) if device.type == "cpu" else len(seeds)
        for view in range(len(self.streams)):
            for start in range(0, len(seeds), rows):
                stop = min(start + rows, len(seeds))
                part = slice(view * len(seeds) + start, view * len(seeds) + stop)
                out[part] = self.colour(self.crop(images[start:stop], numbers[part]), numbers[part])
        return list(out.chunk(len(self.streams)))

    def _boxes(self, numbers: Tensor, height: Tensor, width: Tensor) -> Tensor:
        """What is cut out, `(B, 4)`: left, top, width, height; everything without a random crop."""
        if self.scale is None:
            zero = torch.zeros_like(width)
            return torch.stack((zero, zero, width, height), dim=1)
        return ops.crop_boxes(numbers[:, _CROP], height, width, self.scale, _RATIO)

    def _chosen(self, numbers: Tensor) -> Tensor:
        """Which of jitter, greyscale, blur, solarise, equalise and mirror each sample gets: bool `(B, 6)`."""
        return numbers[:, _CHOICE] < self.probs

    def _jitter(self, x: Tensor, numbers: Tensor, chosen: Tensor) -> None:
        useful = 2 if x.shape[1] == 1 else 4  # saturation and hue change nothing in grey images
        active = [i for i, strength in enumerate(self.strengths[:useful]) if strength]
        order = numbers[:, _ORDER][:, active].argsort(dim=1)
        functions = (ops.adjust_brightness, ops.adjust_contrast, ops.adjust_saturation, ops.adjust_hue)
        for turn in range(len(active)):
            for place, i in enumerate(active):
                strength, u = self.strengths[i], numbers[:, _STRENGTH][:, i]
                low, high = (-strength, strength) if i == 3 else (max(0.0, 1 - strength), 1 + strength)
                rows = chosen & (order[:, turn] == place)
                _change(x, rows, functions[i], (low + (high - low) * u).float())


class BatchAugment:
    """All views of a batch, in the order of the entries: what `FullTransformPipeline` is for one image.

    Args:
        entries: of `augmentations`.
        mean, std: per channel, of images in [0, 1].
        channels: 1 or 3; default: as many as `mean` has values.

    Attributes:
        entries: one after the other.
        as_grey: whether colours are taken away first; then channels are 3.
        channels: of the views, and of the images that they are made of.
        size: pixels of the largest view.
    """

    def __init__(
        self, entries: Sequence[Any], mean: Sequence[float], std: Sequence[float], channels: int | None = None
    ) -> None:
        cfgs = [entry if OmegaConf.is_config(entry) else OmegaConf.create(dict(entry)) for entry in entries]
        self.as_grey = any(bool(_get(cfg, "grayscale.channels")) for cfg in cfgs)
        last = normalisation(mean, std, 3 if self.as_grey else channels)
        self.channels = len(last.mean)
        ends = list(accumulate(int(cfg.num_crops) for cfg in cfgs))
        streams = [range(end - int(cfg.num_crops), end) for cfg, end in zip(cfgs, ends, strict=True)]
        self.entries = [ViewMaker(cfg, last.mean, last.std, own) for cfg, own in zip(cfgs, streams, strict=True)]
        self.size = max(entry.size for entry in self.entries)

    def __call__(self, images: Tensor | list[Tensor], seeds: Tensor) -> list[Tensor]:
        """`(B, C, size, size)` of each view.

        Args:
            images: uint8 `(B, C, H, W)` on any device, or `(C, H, W)` each.
            seeds: int64 `(B,)`, on the CPU.
        """
        return [view for entry in self.entries for view in entry(images, seeds)]


def _change(x: Tensor, chosen: Tensor, op: Callable[..., Tensor], parameter: Tensor | None = None) -> None:
    """Apply `op` to the chosen rows of `x`, in place."""
    rows = chosen.nonzero()[:, 0]
    if not len(rows):
        return
    parameters = [] if parameter is None else [parameter[rows].to(x.device)]
    rows = rows.to(x.device)
    x.index_copy_(0, rows, op(x.index_select(0, rows), *parameters).contiguous())


def _get(cfg: Any, key: str) -> Any:
    """A value of the entry; 0 for what is absent."""
    value = OmegaConf.select(cfg, key)
    return 0 if value is None else value
