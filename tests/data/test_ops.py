"""Each operation against torchvision's or Pillow's, on the same parameters."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as tvt
from torchvision.transforms import functional as tvf

from solo.data.views import pipelines as ops


def picture(mode: str = "RGB", size: tuple[int, int] = (37, 29), seed: int = 0) -> Image.Image:
    """Noise on a gradient, so that neither channels nor positions are alike."""
    w, h = size
    rng = np.random.default_rng(seed)
    pixels = np.linspace(0, 200, w)[None, :, None] + rng.integers(0, 56, (h, w, 3))
    pixels[..., 1] = pixels[..., 1].mean() + 0.5 * pixels[..., 1] - 40
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


def test_grey_images_keep_brightness_and_contrast_only() -> None:
    image = picture("L")
    for op in (ops.RandomGrayscale(1.0), ops.ColorJitter(saturation=0.8), ops.ColorJitter(hue=0.5)):
        assert same(op(image), image)
    for op in (ops.ColorJitter(brightness=0.8), ops.ColorJitter(contrast=0.8)):
        random.seed(1)
        assert op(image).mode == "L"
        assert not same(op(image), image)


def test_greyscale_equals_torchvision() -> None:
    assert same(ops.RandomGrayscale(1.0)(picture()), tvf.rgb_to_grayscale(picture(), 3))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pillow_operations(mode: str) -> None:
    image = picture(mode)
    assert same(ops.Solarization()(image), tvf.solarize(image, 128))
    assert same(ops.Equalization()(image), ImageOps.equalize(image))
    assert same(ops.RandomHorizontalFlip(1.0)(image), tvf.hflip(image))


def test_blur_draws_pillows_radius_from_sigma(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = []
    monkeypatch.setattr(random, "uniform", lambda a, b: ranges.append((a, b)) or 1.3)
    image = picture()
    assert same(ops.GaussianBlur()(image), image.filter(ImageFilter.GaussianBlur(radius=1.3)))
    ops.GaussianBlur(sigma=[0.5, 0.7])(image)
    assert ranges == [(0.1, 2.0), (0.5, 0.7)]


@pytest.mark.parametrize("resample", [tvt.InterpolationMode.BICUBIC, tvt.InterpolationMode.BILINEAR])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_crop_equals_torchvision(monkeypatch: pytest.MonkeyPatch, mode: str, resample: tvt.InterpolationMode) -> None:
    crop = ops.RandomResizedCrop(16, interpolation=resample)
    monkeypatch.setattr(crop, "box", lambda *_: (5, 3, 25, 21))
    theirs = tvf.resized_crop(picture(mode), 3, 5, 18, 20, [16, 16], resample)
    assert same(crop(picture(mode)), theirs)


def test_crop_boxes_have_torchvisions_distribution() -> None:
    random.seed(0)
    torch.manual_seed(0)
    scale, ratio, n = (0.08, 1.0), (3 / 4, 4 / 3), 4000
    crop = ops.RandomResizedCrop(16, scale)
    boxes = np.array([crop.box(40, 30) for _ in range(n)])
    left, top, right, bottom = boxes.T
    assert left.min() == 0 and top.min() == 0 and right.max() == 40 and bottom.max() == 30
    canvas = Image.new("L", (40, 30))
    theirs = np.array([tvt.RandomResizedCrop.get_params(canvas, list(scale), list(ratio)) for _ in range(n)])  # i j h w
    ours = np.stack([top, left, bottom - top, right - left], axis=1)
    # 4 standard errors of the difference of two means
    tolerance = 4 * np.sqrt((ours.var(0) + theirs.var(0)) / n)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < tolerance).all()


@pytest.mark.parametrize(
    ("size", "box"), [((100, 4), (47, 0, 52, 4)), ((4, 100), (0, 47, 4, 52)), ((10, 10), (0, 0, 10, 10))]
)
def test_crop_falls_back_to_the_centre(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    crop = ops.RandomResizedCrop(8, scale=(1.5, 1.6))  # never fits
    assert crop.box(*size) == box
    canvas = Image.new("L", size)
    i, j, h, w = tvt.RandomResizedCrop.get_params(canvas, [1.5, 1.6], [3 / 4, 4 / 3])
    assert box == (j, i, j + w, i + h)


def test_jitter_draws_from_torchvisions_ranges_in_random_order(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, float]] = []
    for name in ("brightness", "contrast", "saturation", "hue"):
        op = lambda image, x, name=name: calls.append((name, x)) or image  # noqa: E731
        monkeypatch.setattr(tvf, f"adjust_{name}", op)
    random.seed(0)
    jitter = ops.ColorJitter(0.4, 1.5, 0.2, 0.1)
    for _ in range(500):
        jitter(picture())
    ranges = {"brightness": (0.6, 1.4), "contrast": (0, 2.5), "saturation": (0.8, 1.2), "hue": (-0.1, 0.1)}
    for name, (low, high) in ranges.items():
        drawn = np.array([x for called, x in calls if called == name])
        assert len(drawn) == 500
        assert low <= drawn.min() < low + 0.02 * (high - low)
        assert high >= drawn.max() > high - 0.02 * (high - low)
    orders = {tuple(name for name, _ in calls[i : i + 4]) for i in range(0, len(calls), 4)}
    assert len(orders) == 24


@pytest.mark.parametrize("settings", [{"hue": 0.6}, {"brightness": -0.1}])
def test_jitter_refuses_impossible_strengths(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="should be between|non negative"):
        ops.ColorJitter(**settings)


def test_maybe_applies_with_its_probability() -> None:
    random.seed(0)
    image, flipped = picture(), ops.RandomHorizontalFlip(1.0)(picture())
    hits = sum(same(ops.RandomApply([ops.RandomHorizontalFlip(1.0)], 0.3)(image), flipped) for _ in range(2000))
    assert abs(hits / 2000 - 0.3) < 0.04
    assert same(ops.RandomApply([ops.RandomHorizontalFlip(1.0)], 1.0)(image), flipped)


@pytest.mark.parametrize(
    ("mode", "mean", "std"),
    [("RGB", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ("L", (0.286,), (0.353,))],
)
def test_tensor_equals_torchvision_to_the_last_bit(mode: str, mean: tuple, std: tuple) -> None:
    image = picture(mode)
    theirs = tvt.Normalize(mean, std)(tvt.ToTensor()(image))
    ours = ops.Normalize(mean, std).of_image(image)
    assert ours.dtype == torch.float32 and ours.is_contiguous()
    assert torch.equal(ours, theirs)
