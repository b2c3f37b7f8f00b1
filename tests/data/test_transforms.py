from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torchvision import transforms as tvt

from solo.data.catalogue.registry import DATASETS
from solo.data.views.pipelines import (
    FullTransformPipeline,
    NCropAugmentation,
    build_eval_pipeline,
    build_train_pipeline,
    build_transform_pipeline,
    prepare_n_crop_transform,
)
from solo.errors import UserError


def entry(**changes: Any) -> dict[str, Any]:
    """An augmentation in which nothing happens but the resize."""
    off = {"prob": 0.0}
    names = ("color_jitter", "grayscale", "gaussian_blur", "solarization", "equalization", "horizontal_flip")
    return {"crop_size": 32, "num_crops": 2, "rrc": {"enabled": False}, **dict.fromkeys(names, off), **changes}


def noise(shape: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


EVERYTHING = entry(
    rrc={"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0},
    color_jitter={"prob": 1.0, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
    grayscale={"prob": 0.2},
    gaussian_blur={"prob": 0.5},
    solarization={"prob": 0.2},
    equalization={"prob": 0.1},
    horizontal_flip={"prob": 0.5},
)


def test_order_of_operations() -> None:
    pipeline = build_transform_pipeline("cifar10", OmegaConf.create(EVERYTHING))
    names = [type(getattr(op, "transforms", [op])[0]).__name__ for op in pipeline.transforms]
    colours = ["ColorJitter", "RandomGrayscale", "GaussianBlur", "Solarization", "Equalization", "RandomHorizontalFlip"]
    assert names == ["RandomResizedCrop", *colours, "ToTensor", "Normalize"]
    assert "p=0.2" in repr(pipeline)


def test_nothing_enabled_is_a_bicubic_resize_with_the_data_sets_constants() -> None:
    image = noise((48, 48, 3))
    spec = DATASETS["cifar100"]
    theirs = tvt.Compose(
        [tvt.Resize(32, tvt.InterpolationMode.BICUBIC), tvt.ToTensor(), tvt.Normalize(spec.mean, spec.std)]
    )
    assert torch.equal(build_transform_pipeline("cifar100", entry())(image), theirs(image))


def test_absent_sections_are_off() -> None:
    short = {"crop_size": 32, "num_crops": 1, "rrc": {"enabled": False}}
    image = noise((40, 40, 3))
    assert torch.equal(
        build_transform_pipeline("cifar10", short)(image), build_transform_pipeline("cifar10", entry())(image)
    )


def test_mean_and_std_of_the_entry_count_for_custom_data_only() -> None:
    own = entry(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    assert build_transform_pipeline("custom", own).transforms[-1].mean == (0.1, 0.2, 0.3)
    assert build_transform_pipeline("stl10", own).transforms[-1].mean == DATASETS["stl10"].mean
    assert build_transform_pipeline("never_heard_of", entry()).transforms[-1].mean == DATASETS["imagenet"].mean
    assert build_transform_pipeline("stl10", own, mean=[0.5] * 3).transforms[-1].mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("dataset", "kwargs", "shape", "expected"),
    [
        ("digits", {}, (8, 8), 1),
        ("digits", {"channels": 3}, (8, 8), 3),
        ("digits", {}, (8, 8, 3), 1),
        ("cifar10", {}, (20, 20), 3),
        ("custom", {"channels": 1, "mean": [0.5], "std": [0.5]}, (20, 20, 3), 1),
    ],
)
def test_channels(dataset: str, kwargs: dict, shape: tuple[int, ...], expected: int) -> None:
    pipeline = build_transform_pipeline(dataset, EVERYTHING, **kwargs)
    for _ in range(10):
        assert pipeline(noise(shape)).shape == (expected, 32, 32)


def test_wrong_number_of_constants_is_refused() -> None:
    with pytest.raises(UserError, match="mean has 3 values.*1 channels"):
        build_transform_pipeline("custom", entry(), channels=1)


@pytest.mark.parametrize("dataset", ["cifar10", "digits"])
def test_grayscale_channels_makes_three_equal_ones(dataset: str) -> None:
    pipeline = build_transform_pipeline(
        dataset, entry(grayscale={"prob": 0.0, "channels": True}), mean=[0.5], std=[0.5]
    )
    image = noise((32, 32, 3))
    x = pipeline(image)
    assert x.shape == (3, 32, 32)
    assert torch.equal(x[0], x[1]) and torch.equal(x[0], x[2])
    assert torch.equal(x[0], (tvt.ToTensor()(image.convert("L"))[0] - 0.5) / 0.5)


def test_views_follow_python_seed() -> None:
    pipeline = build_transform_pipeline("cifar10", EVERYTHING)
    image = noise((32, 32, 3))
    views = []
    for seed in (3, 3, 4):
        random.seed(seed)
        views.append(pipeline(image))
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


def test_n_crops_of_several_pipelines() -> None:
    large, small = (build_transform_pipeline("cifar10", entry(crop_size=size)) for size in (32, 18))
    full = prepare_n_crop_transform([large, small], num_crops_per_aug=[2, 3])
    assert isinstance(full, FullTransformPipeline)
    assert all(isinstance(t, NCropAugmentation) for t in full.transforms)
    assert [v.shape[-1] for v in full(noise((32, 32, 3)))] == [32, 32, 18, 18, 18]


def test_n_crops_needs_as_many_numbers_as_pipelines() -> None:
    with pytest.raises(AssertionError):
        prepare_n_crop_transform([lambda x: x], num_crops_per_aug=[1, 2])


def test_eval_pipeline_equals_torchvision() -> None:
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    image = noise((70, 90, 3))
    tail = [tvt.ToTensor(), tvt.Normalize(mean, std)]
    theirs = tvt.Compose([tvt.Resize(64), tvt.CenterCrop(56), *tail])
    assert torch.equal(build_eval_pipeline(56, mean, std, resize=64)(image), theirs(image))
    small = noise((32, 32, 3))
    assert torch.equal(build_eval_pipeline(32, mean, std)(small), tvt.Compose(tail)(small))


def test_train_pipeline_mirrors_only_if_allowed() -> None:
    image = noise((8, 8, 3))
    crop_all = {"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3, "min_scale": 1.0}
    random.seed(0)
    plain = {build_train_pipeline(**crop_all, flip=False)(image).numpy().tobytes() for _ in range(20)}
    mirrored = {build_train_pipeline(**crop_all)(image).numpy().tobytes() for _ in range(20)}
    assert plain < mirrored
