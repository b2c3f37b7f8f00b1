"""Views of whole batches: the entries of `augmentations`, applied to uint8 tensors with parameters for each sample.

Every random number is a function of a sample's seed and of the view, see `uniforms`, so that the views of an image do
not depend on who makes them, in which batch, or on what device. The operations are in `solo.data.views.tensor_ops`.
"""

from __future__ import annotations

import copy
import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from solo.data.catalogue.rows import wrong_statistics
from solo.data.views import masked
from solo.data.views import tensor_ops as ops
from solo.errors import UserError

JITTER = ("brightness", "contrast", "saturation", "hue")
ADJUST = (ops.adjust_brightness, ops.adjust_contrast, ops.adjust_saturation, ops.adjust_hue)
# Columns of a view's random numbers: crop, strengths of the jitter, its order, blur, and who gets what.
_CROP, _STRENGTH, _ORDER, _BLUR, _CHOICE = slice(22), slice(22, 26), slice(26, 30), 30, slice(31, 37)
_COLUMNS = 37
# Values of the images that are changed at once; more of them leave the processor's cache.
CHUNK = 2**18
VIEW = 1  # which view of an image may be that of a relative, 0-based
Statistics = tuple[list[float], list[float]]  # mean and std of each channel, of images in [0, 1]
_SHOWN = 2**20  # stream of random numbers, beyond those of the views


def uniforms(seeds: Tensor, stream: int, count: int) -> Tensor:
    """`(B, count)` float64 in [0, 1): a hash of seed (B,), stream (a view's number) and column (SplitMix64, 2014)."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    steps = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(stream * count)
    z = _mix(seeds.numpy().astype(np.uint64)[:, None]) + steps * golden
    return torch.from_numpy((_mix(z) >> np.uint64(11)) * 2.0**-53)


def _mix(z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray[Any, Any] = z ^ (z >> np.uint64(31))
    return mixed


class Plan(NamedTuple):
    """What happens to some views: one row each, in the order in which they are made."""

    rows: Tensor  # number of the view among those of a batch: all first views, then all second ones,
    box: Tensor  # what is cut out, int64 `(n, 4)`: left, top, width, height
    chosen: Tensor  # who gets jitter, greyscale, blur, solarise, equalise and mirror: bool `(n, 6)`
    turns: Tensor  # the jitter's operations, one digit to the base of 4 each, the first one in front; -1 for none
    strengths: Tensor  # of these operations, float32 `(n, 4)`
    sigma: Tensor  # of the blur, float32 `(n,)`

    def split(self, size: int) -> Iterator[Plan]:
        """Plans of `size` rows each, the last one of what is left."""
        return (Plan(*parts) for parts in zip(*(torch.split(column, size) for column in self), strict=True))

    def by_turns(self) -> Plan:
        """Sorted, so that views whose jitter begins with the same operations are neighbours and need no copies."""
        order = self.turns.argsort(stable=True)
        return Plan(*(column[order] for column in self))


class EntryViews:
    """The views of one entry of `augmentations`, of each image; `streams` are their numbers among all of a sample."""

    def __init__(self, cfg: DictConfig, statistics: Statistics, streams: Sequence[int], resample: ops.Resample) -> None:
        self.cfg, self.statistics, self.resample = cfg, statistics, resample
        self.size, self.streams = int(cfg.crop_size), list(streams)
        self.scale: tuple[float, float] | None = None
        if setting(cfg, "rrc.enabled"):
            self.scale = (float(cfg.rrc.crop_min_scale), float(cfg.rrc.crop_max_scale))
        names = ("color_jitter", "grayscale", "gaussian_blur", "solarization", "equalization", "horizontal_flip")
        self.probs = torch.tensor([float(setting(cfg, f"{name}.prob")) for name in names], dtype=torch.float64)
        strengths = torch.tensor([float(setting(cfg, f"color_jitter.{name}")) for name in JITTER], dtype=torch.float64)
        neutral = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)  # three factors and a shift
        self.low = torch.maximum(neutral - strengths, neutral - 1)
        self.high = neutral + strengths
        # Saturation and hue change nothing in grey images.
        self.active = [i for i in range(4 if len(statistics[0]) == 3 else 2) if strengths[i]]
        self.mean, self.std = (torch.tensor(values)[:, None, None] * ops.WHITE for values in statistics)
        self.used = (self.probs[1:5] > 0).tolist()
        self._last = (-self.mean / self.std).flatten(), 1 / self.std.flatten()
        self._buffers = Buffers()

    def plan(self, seeds: Tensor, sizes: Tensor) -> Plan:
        """What happens to all views of samples of these seeds (B,), int64 on the CPU, heights and widths (B, 2)."""
        numbers = torch.cat([uniforms(seeds, stream, _COLUMNS) for stream in self.streams])
        chosen = numbers[:, _CHOICE] < self.probs
        order = torch.tensor(self.active, dtype=torch.int64)[numbers[:, _ORDER][:, self.active].argsort(dim=1)]
        digits = len(JITTER) ** torch.arange(len(self.active) - 1, -1, -1)
        turns = (order * digits).sum(dim=1).masked_fill(~chosen[:, 0], -1)
        strengths = (self.low + (self.high - self.low) * numbers[:, _STRENGTH]).float()
        sigma = (0.1 + (2.0 - 0.1) * numbers[:, _BLUR]).float()
        height, width = sizes.repeat(len(self.streams), 1).unbind(dim=1)
        if self.scale is None:
            zero = torch.zeros_like(width)
            box = torch.stack((zero, zero, width, height), dim=1)
        else:
            box = ops.crop_boxes(numbers[:, _CROP], height, width, self.scale, (3 / 4, 4 / 3))
        return Plan(torch.arange(len(turns)), box, chosen, turns, strengths, sigma)

    def crop(self, images: Tensor | list[Tensor], plan: Plan, out: Tensor | None = None) -> Tensor:
        """Crop, resize and mirror: float32 `(n, C, size, size)` in [0, 255], of a list of images in `out`."""
        source = plan.rows % len(images)
        chosen = images[source] if isinstance(images, Tensor) else [images[i] for i in source.tolist()]
        return ops.resized_crop(chosen, plan.box, self.size, plan.chosen[:, 5], self.resample, out)

    def colour(self, x: Tensor, plan: Plan) -> Tensor:
        """Jitter, greyscale, blur, solarise, equalise, in this order, and normalise; `x` is changed."""
        codes = plan.turns.tolist()
        for turn in range(len(self.active)):
            shift, start = 2 * (len(self.active) - 1 - turn), 0
            for code, same in itertools.groupby(code >> shift for code in codes):
                stop = start + len(list(same))
                if code >= 0:
                    ADJUST[code & 3](x[start:stop], plan.strengths[start:stop, code & 3])
                start = stop
        _change(x, plan.chosen[:, 1], ops.to_grey)
        _change(x, plan.chosen[:, 2], ops.gaussian_blur, plan.sigma)
        _change(x, plan.chosen[:, 3], ops.solarize)
        _change(x, plan.chosen[:, 4], ops.equalize)
        return x.sub_(self.mean).div_(self.std)

    def __call__(self, images: Tensor | list[Tensor], seeds: Tensor) -> list[Tensor]:
        """The views: normalised float32 `(B, C, size, size)` each."""
        plan = self.plan(seeds, torch.tensor([image.shape[1:] for image in images]))
        if isinstance(images, Tensor) and images.device.type != "cpu":
            return list(masked.views(self, images, plan).chunk(len(self.streams)))
        out = self._buffers((len(plan.rows), images[0].shape[0], self.size, self.size))
        limit = max(1, CHUNK // out[0].numel())
        if limit == 1:
            singly = list(images)
            for view, part in zip(out[:, None], plan.split(1), strict=True):
                self.colour(self.crop(singly, part, view), part)
        else:
            for part in plan.by_turns().split(limit):
                out.index_copy_(0, part.rows, self.colour(self.crop(images, part), part))
        return list(out.chunk(len(self.streams)))

    def normalising(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """By what images in [0, 255] are normalised as `shift + x * scale`, per channel, on a device."""
        if self._last[0].device != device:  # once
            self._last = self._last[0].to(device), self._last[1].to(device)
        return self._last


class BatchAugment:
    """All views of a batch, in the order of the entries: what `FullTransformPipeline` is for one image.

    An operation whose `prob` is 0 or absent is left out. Mean and std are per channel, of images in [0, 1]; there are
    as many `channels` of images and views as `mean` has values unless they are given, and 3 with `as_grey`, where
    colours are taken away first. `size` are the pixels of the largest view's side.
    """

    def __init__(
        self,
        entries: Sequence[Any],
        mean: Sequence[float],
        std: Sequence[float],
        channels: int | None = None,
        resample: ops.Resample = "bicubic",
    ) -> None:
        cfgs = [entry if OmegaConf.is_config(entry) else OmegaConf.create(dict(entry)) for entry in entries]
        self.as_grey = any(bool(setting(cfg, "grayscale.channels")) for cfg in cfgs)
        statistics = channel_statistics(mean, std, 3 if self.as_grey else channels)
        self.channels = len(statistics[0])
        ends = itertools.accumulate(int(cfg.num_crops) for cfg in cfgs)
        streams = [range(end - int(cfg.num_crops), end) for cfg, end in zip(cfgs, ends, strict=True)]
        self.entries = [EntryViews(cfg, statistics, own, resample) for cfg, own in zip(cfgs, streams, strict=True)]
        self.size = max(entry.size for entry in self.entries)

    def only(self, which: Callable[[int], bool]) -> BatchAugment:
        """What makes some of the views, the same as all together, by their numbers."""
        part = copy.copy(self)
        entries = [(entry, [stream for stream in entry.streams if which(stream)]) for entry in self.entries]
        part.entries = [EntryViews(e.cfg, e.statistics, own, e.resample) for e, own in entries if own]
        return part

    def __repr__(self) -> str:
        return "\n".join(f"{len(entry.streams)} views: {entry.cfg}" for entry in self.entries)

    def __call__(self, images: Tensor | list[Tensor], seeds: Tensor) -> list[Tensor]:
        """`(B, C, size, size)` of each view, normalised float32.

        Images are uint8 `(B, C, H, W)` on any device, or `(C, H, W)` each on the CPU; seeds int64 `(B,)`, there.
        """
        return [view for entry in self.entries for view in entry(images, seeds)]

    def in_channels(self, images: Tensor) -> Tensor:
        """Images uint8 `(B, C, H, W)` with the channels that views are made of."""
        if images.shape[1] == 3 and (self.as_grey or self.channels == 1):
            images = ops.luminance(images.float()).round_().to(torch.uint8)
        return images.expand(-1, self.channels, -1, -1)

    def prepare(self, images: Tensor | list[Tensor], seeds: Tensor) -> Tensor | list[Tensor]:
        """The images, or of differing sizes the crops, uint8."""
        if isinstance(images, Tensor):
            return images
        sizes = torch.tensor([image.shape[1:] for image in images])
        return [entry.crop(images, entry.plan(seeds, sizes)).to(torch.uint8) for entry in self.entries]

    def finish(self, prepared: Tensor | list[Tensor], seeds: Tensor, device: torch.device) -> list[Tensor]:
        """The views of what `prepare` has made, on `device`."""
        if isinstance(prepared, Tensor):
            return self(prepared.to(device, non_blocking=True), seeds)
        views: list[Tensor] = []
        for entry, crops in zip(self.entries, prepared, strict=True):
            plan = entry.plan(seeds, torch.full((len(seeds), 2), entry.size))  # cropped already
            made = masked.views(entry, crops.to(device, non_blocking=True), plan, cropped=True)
            views += made.chunk(len(entry.streams))
        return views


def _change(x: Tensor, chosen: Tensor, op: Callable[..., Tensor], parameter: Tensor | None = None) -> None:
    """Apply `op` to the chosen rows of `x`, in place."""
    rows = chosen.nonzero().flatten()
    parameters = [] if parameter is None else [parameter[rows]]
    if len(rows) == len(x):
        x.copy_(op(x, *parameters))
    elif len(rows):
        x.index_copy_(0, rows, op(x.index_select(0, rows), *parameters))


def setting(cfg: Any, key: str) -> Any:
    """A value of an entry of `augmentations`; 0 for what is absent."""
    return OmegaConf.select(cfg, key) or 0


def channel_statistics(mean: Sequence[float], std: Sequence[float], channels: int | None) -> Statistics:
    """Mean and std of `channels` channels, of images in [0, 1]; one value is for all. A `UserError` for wrong ones."""
    for name, text in wrong_statistics(mean, std).items():
        raise UserError(f"{name}{text}")
    count = channels or len(mean)
    mean, std = (list(v) * count if len(v) == 1 else list(v) for v in (mean, std))
    if not len(mean) == len(std) == count:
        have = f"mean has {len(mean)} values and std {len(std)} for {count} channels"
        raise UserError(f"{have}; give as many as there are channels")
    return mean, std


class Buffers:
    """Gives out float32 tensors on the CPU, whose memory is used again once nothing holds it.

    Fresh memory costs as much as the views that are put there: the system clears each page.
    """

    def __init__(self) -> None:
        # Each with what was given out of it last, which lives as long as somebody holds it.
        self._arrays: list[tuple[np.ndarray[Any, Any], weakref.ref[Any]]] = []

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """A tensor of that shape."""
        size = math.prod(shape)
        for array, given in self._arrays:
            if given() is None and array.size >= size:
                break
        else:  # what lies idle is too small
            self._arrays = [(array, given) for array, given in self._arrays if given() is not None]
            array = np.empty(size, dtype=np.float32)
        part = array[:size]
        others = [(other, given) for other, given in self._arrays if other is not array]
        self._arrays = [*others, (array, weakref.ref(part))]
        return torch.from_numpy(part).view(shape)

    def __len__(self) -> int:
        return len(self._arrays)

    def __getstate__(self) -> dict[str, list[Any]]:
        return {"_arrays": []}  # a copy in another process begins with none


@dataclass(frozen=True)
class Shown:
    """Whose view is the second one of each image: one of another image, that is its relative."""

    table: Tensor  # int (n, K) numbers of each image's relatives, -1 for none
    share: float  # chance that one of them is shown, in [0, 1]; an image without relatives is shown itself

    def __call__(self, rows: Tensor, seeds: Tensor) -> Tensor:
        """Numbers of the images shown (B,), a function of the images' own (B,) and of their samples' seeds (B,)."""
        found = self.table[rows].long()
        chance, which = uniforms(seeds, _SHOWN, 2).unbind(dim=1)
        number = (found >= 0).sum(dim=1)
        place = (which * number).long()
        known_first = (found < 0).to(torch.uint8).argsort(dim=1, stable=True)
        drawn = found.gather(1, known_first.gather(1, place[:, None]))[:, 0]
        return torch.where((chance < self.share) & (number > 0), drawn, rows)
