from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional as tvf

from solo.data.views import batched as augment
from solo.data.views import masked, tensor_ops
from solo.data.views.batched import BatchAugment, uniforms

N = 24
SIDE = {"small": 20, "large": 60}  # below and above the side up to which weight matrices are used


def entry(**changes: Any) -> dict[str, Any]:
    """A pipeline that does nothing but resize."""
    return {"crop_size": 16, "num_crops": 1, "rrc": {"enabled": False}, **changes}


def pictures(side: int, channels: int = 3, count: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(256, (count, channels, side, side), generator=generator).to(torch.uint8)


def seeds(count: int = N) -> Tensor:
    return torch.randint(2**62, (count,), generator=torch.Generator().manual_seed(1))


def between(low: float, high: float, count: int = N) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=torch.Generator().manual_seed(2))


OPS = {
    "brightness": (tensor_ops.adjust_brightness, tvf.adjust_brightness, (0.0, 1.8)),
    "contrast": (tensor_ops.adjust_contrast, tvf.adjust_contrast, (0.0, 1.8)),
    "saturation": (tensor_ops.adjust_saturation, tvf.adjust_saturation, (0.0, 1.8)),
    "hue": (tensor_ops.adjust_hue, tvf.adjust_hue, (-0.5, 0.5)),
    "blur": (tensor_ops.gaussian_blur, lambda x, sigma: tvf.gaussian_blur(x, 13, sigma), (0.1, 2.0)),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIDE)
@pytest.mark.parametrize("name", OPS)
def test_each_operation_is_torchvisions_on_the_same_parameters(name: str, size: str, channels: int) -> None:
    ours, theirs, span = OPS[name]
    images, parameters = pictures(SIDE[size], channels), between(*span)
    changed = ours(images.float(), parameters)
    for image, parameter, found in zip(images, parameters.tolist(), changed, strict=True):
        torch.testing.assert_close(found, theirs(image / 255, parameter) * 255, atol=1.0, rtol=0)


def test_operations_without_parameters_are_torchvisions() -> None:
    images = pictures(20)
    for ours, theirs in (
        (tensor_ops.to_grey, lambda x: tvf.rgb_to_grayscale(x.float(), 3)),
        (tensor_ops.solarize, lambda x: tvf.solarize(x, 128)),
        (tensor_ops.equalize, tvf.equalize),
    ):
        torch.testing.assert_close(ours(images.float()), theirs(images).float(), atol=1.0, rtol=0)


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("size", "out"), [("small", 20), ("small", 13), ("small", 31), ("large", 60), ("large", 25)])
def test_crops_are_torchvisions(size: str, out: int, resample: tensor_ops.Resample) -> None:
    side = SIDE[size]
    images = pictures(side)
    numbers = torch.rand(N, 22, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    box = tensor_ops.crop_boxes(numbers, *torch.full((2, N), side), (0.08, 1.0), (3 / 4, 4 / 3))
    flip = torch.arange(N) % 2 == 1
    found = tensor_ops.resized_crop(images, box, out, flip, resample)
    for i, (left, top, width, height) in enumerate(box.tolist()):
        mode = tvf.InterpolationMode(resample)
        want = tvf.resized_crop(images[i], top, left, height, width, [out, out], mode, antialias=True)
        want = tvf.horizontal_flip(want) if flip[i] else want
        torch.testing.assert_close(found[i], want.float(), atol=1.0, rtol=0)


def test_boxes_follow_scale_and_ratio_and_stay_inside() -> None:
    numbers = torch.rand(4000, 22, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    height, width = torch.full((4000,), 90), torch.full((4000,), 120)
    box = tensor_ops.crop_boxes(numbers, height, width, (0.2, 0.5), (3 / 4, 4 / 3)).double()
    left, top, w, h = box.unbind(dim=1)
    assert left.min() == 0 and top.min() == 0 and (left + w).max() == 120 and (top + h).max() == 90
    area, ratio = w * h / (90 * 120), (w / h).log()
    assert 0.19 < area.min() < 0.22 and 0.48 < area.max() < 0.52
    assert abs(float(area.mean()) - 0.35) < 0.01
    assert abs(float(ratio.mean())) < 0.02 and float(ratio.abs().max()) < 0.31


def test_a_box_that_never_fits_is_the_largest_central_one() -> None:
    box = tensor_ops.crop_boxes(
        torch.full((1, 22), 0.999, dtype=torch.float64),
        torch.tensor([20]),
        torch.tensor([100]),
        (1.0, 1.0),
        (0.75, 4 / 3),
    )
    assert box.tolist() == [[36, 0, 27, 20]]


def test_uniforms_are_uniform_and_independent() -> None:
    numbers = torch.cat([uniforms(seeds(4000), stream, 8) for stream in range(2)], dim=1)
    assert numbers.shape == (4000, 16) and numbers.min() >= 0 and numbers.max() < 1
    assert (numbers.mean(dim=0) - 0.5).abs().max() < 0.02
    assert (numbers.var(dim=0) - 1 / 12).abs().max() < 0.005
    assert (torch.corrcoef(numbers.T) - torch.eye(16)).abs().max() < 0.06
    assert uniforms(torch.arange(1000), 0, 1).unique().numel() == 1000  # also neighbouring seeds


def test_nothing_but_normalisation() -> None:
    images = pictures(16)
    (view,) = BatchAugment([entry()], (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))(images, seeds())
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.5, 0.4, 0.3), (0.25, 0.2, 0.1)))
    torch.testing.assert_close(view, (images / 255 - mean) / std, atol=1e-4, rtol=0)


SOMETIMES = {
    "grayscale": tensor_ops.to_grey,
    "solarization": tensor_ops.solarize,
    "equalization": tensor_ops.equalize,
    "horizontal_flip": lambda x: x.flip(-1),
}


@pytest.mark.parametrize("name", SOMETIMES)
def test_operations_happen_as_often_as_asked(name: str) -> None:
    images = pictures(16, count=1000)
    make = BatchAugment([entry(**{name: {"prob": 0.3}})], (0.0,) * 3, (1 / 255,) * 3)
    (view,) = make(images, seeds(1000))
    changed = SOMETIMES[name](images.float())
    kept = (view - images).abs().amax(dim=(1, 2, 3)) < 1e-2
    assert torch.allclose(view[~kept], changed[~kept], atol=1e-2)
    assert 0.25 < float((~kept).float().mean()) < 0.35


def test_jitter_draws_strengths_and_orders_for_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, Tensor]] = []

    def recorder(i: int) -> Any:
        return lambda x, strength: calls.append((i, torch.stack((x[:, 0, 0, 0], strength), dim=1)))

    monkeypatch.setattr(augment, "ADJUST", tuple(recorder(i) for i in range(4)))
    jitter = {"prob": 0.8, "brightness": 0.4, "contrast": 1.6, "saturation": 0.2, "hue": 0.1}
    make = BatchAugment([entry(color_jitter=jitter)], (0.0,) * 3, (1 / 255,) * 3)
    images = torch.arange(2000)[:, None, None, None].expand(-1, 3, 16, 16) % 256
    make(images.to(torch.uint8), seeds(2000))
    ranges = {0: (0.6, 1.4), 1: (0.0, 2.6), 2: (0.8, 1.2), 3: (-0.1, 0.1)}
    for i, (low, high) in ranges.items():
        drawn = torch.cat([rows for which, rows in calls if which == i])[:, 1]
        assert 0.76 < len(drawn) / 2000 < 0.84
        assert low <= drawn.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < drawn.max() <= high
    plan = make.entries[0].plan(seeds(2000), torch.full((2000, 2), 16))
    orders, counts = plan.turns[plan.turns >= 0].unique(return_counts=True)
    assert len(orders) == 24 and counts.min() > 30
    assert plan.by_turns().turns.tolist() == sorted(plan.turns.tolist())


def test_jitter_applies_its_operations_in_the_drawn_order() -> None:
    jitter = {"prob": 1.0, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    make = BatchAugment([entry(color_jitter=jitter)], (0.0,) * 3, (1 / 255,) * 3)
    images = pictures(16)
    (view,) = make(images, seeds())
    functions = (tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue)
    plan = make.entries[0].plan(seeds(), torch.full((N, 2), 16))
    for row, turns, strengths in zip(plan.rows.tolist(), plan.turns.tolist(), plan.strengths.tolist(), strict=True):
        want = images[row] / 255
        for i in (turns >> 6, turns >> 4 & 3, turns >> 2 & 3, turns & 3):
            want = functions[i](want, strengths[i])
        torch.testing.assert_close(view[row], want * 255, atol=1.0, rtol=0)


SYMMETRIC = entry(
    num_crops=2,
    rrc={"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0},
    color_jitter={"prob": 0.8, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
    grayscale={"prob": 0.2},
    gaussian_blur={"prob": 0.5},
    solarization={"prob": 0.2},
    equalization={"prob": 0.2},
    horizontal_flip={"prob": 0.5},
)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_depends_on_its_image_and_seed_alone(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make = BatchAugment([SYMMETRIC], (0.5,), (0.25,), channels)
    images = pictures(20, channels)
    views = make(images, seeds())
    assert [tuple(view.shape) for view in views] == [(N, channels, 16, 16)] * 2
    assert not torch.allclose(views[0], views[1])
    alone = make(images[3:5], seeds()[3:5])
    torch.testing.assert_close(alone, [view[3:5] for view in views], atol=1e-3, rtol=0)
    monkeypatch.setattr(augment, "CHUNK", 16 * 16 * channels * 5)
    torch.testing.assert_close(make(images, seeds()), views, atol=1e-3, rtol=0)
    monkeypatch.setattr(augment, "CHUNK", 1)  # one view at a time
    singly = make(list(images), seeds())
    assert max(float((a - b).abs().mean()) for a, b in zip(singly, views, strict=True)) < 0.02


def test_multicrop_gives_views_in_the_order_of_the_entries() -> None:
    small = {**SYMMETRIC, "crop_size": 8, "num_crops": 3}
    views = BatchAugment([SYMMETRIC, small], (0.5,) * 3, (0.25,) * 3)(pictures(20), seeds())
    assert [view.shape[-1] for view in views] == [16, 16, 8, 8, 8]
    assert "3 views: {'crop_size': 8" in str(BatchAugment([SYMMETRIC, small], (0.5,) * 3, (0.25,) * 3))
    assert not torch.allclose(views[2], views[3])


def test_images_of_different_sizes() -> None:
    images = [pictures(side, count=1)[0] for side in (17, 30, 64)]
    make = BatchAugment([SYMMETRIC], (0.5,) * 3, (0.25,) * 3)
    views = make(images, seeds(3))
    assert views[0].shape == (3, 3, 16, 16)
    alone = make(images[2][None], seeds(3)[2:])
    torch.testing.assert_close(views[1][2:], alone[1], atol=1e-3, rtol=0)


def test_extreme_sizes_and_flat_images() -> None:
    flat = torch.zeros(4, 3, 3, 3, dtype=torch.uint8)
    flat[1:] = 255
    for view in BatchAugment([{**SYMMETRIC, "crop_size": 3}], (0.5,) * 3, (0.25,) * 3)(flat, seeds(4)):
        assert view.isfinite().all()


MASKED = {
    "everything": {"equalization": {"prob": 0.3}},
    "no hue": {"color_jitter": {"prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0}},
    "hue only": {"color_jitter": {"prob": 0.8, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0.3}},
    "nothing": {"color_jitter": {"prob": 0}},
}


@pytest.mark.parametrize(("name", "channels"), [*((name, 3) for name in MASKED), ("everything", 1), ("everything", 5)])
def test_the_form_for_devices_makes_the_same_pixels_in_few_operations(name: str, channels: int) -> None:
    entry = {
        "num_crops": 2,
        "crop_size": 32,
        "rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0},
        "color_jitter": {"prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
        "horizontal_flip": {"prob": 0.5},
        **{key: {"prob": 0.3} for key in ("grayscale", "gaussian_blur", "solarization")},
        **MASKED[name],
    }
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (24, channels, 40, 40), dtype=torch.uint8, generator=generator)
    seeds = torch.randint(2**60, (24,), generator=generator)
    (views,) = BatchAugment([entry], [0.5] * channels, [0.25] * channels, channels).entries
    grouped = torch.cat([view.clone() for view in views(images, seeds)])
    plan = views.plan(seeds, torch.full((24, 2), 40))
    differs = (masked.views(views, images, plan) - grouped).abs() > 1e-4
    assert differs.float().mean() < 1e-4  # equalising rounds: a value between two may go either way


class Launches(TorchDispatchMode):
    """Counts what a GPU is given to do: operations whose results are there, and are neither views nor memory."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.precisions: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        first = out[0] if isinstance(out, (tuple, list)) else out
        there = isinstance(first, Tensor) and first.device.type == "cuda"
        if there and not func.is_view and name not in ("empty", "new_empty", "detach", "_unsafe_view"):
            self.names.append(name)
            if name in ("bmm", "mm", "mv"):
                self.precisions.add(torch.get_float32_matmul_precision())
        return out


FAKE = FakeTensorMode(allow_non_fake_inputs=True)  # one, for constants of a device are kept


@pytest.mark.parametrize(("side", "most"), [(40, 45), (232, 58), (None, 38)])  # None: cropped by workers
def test_the_recipe_of_simclr_takes_few_launches_and_one_copy(side: int | None, most: int) -> None:
    """On fake CUDA tensors: none of another device among them."""
    size = 32 if side == 40 else 224
    entry = {"num_crops": 2, "crop_size": size, **{key: {"prob": 0.2} for key in ("grayscale", "solarization")}}
    entry |= {key: {"prob": 0.5} for key in ("gaussian_blur", "horizontal_flip")}
    entry["rrc"] = {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0}
    entry["color_jitter"] = {"prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
    (views,) = BatchAugment([entry], [0.5] * 3, [0.25] * 3).entries
    plan = views.plan(torch.arange(8), torch.full((8, 2), side or size))
    shape = (8, 3, side, side) if side else (16, 3, size, size)
    torch.set_float32_matmul_precision("high")
    try:
        with FAKE:
            images = torch.zeros(shape, dtype=torch.uint8, device="cuda")
            for _ in range(2):  # the second batch finds constants
                with Launches() as launches:
                    found = masked.views(views, images, plan, cropped=side is None)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found.device.type == "cuda" and found.shape == (16, 3, size, size)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert len(launches.names) <= most, launches.names
    assert launches.precisions == {"highest"}  # TF32 would change pixels
