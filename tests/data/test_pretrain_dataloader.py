from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.datasets import FakeData

from solo.data.pretrain_dataloader import (
    build_transform_pipeline,
    dataset_with_index,
    prepare_dataloader,
    prepare_datasets,
    prepare_n_crop_transform,
)
from solo.errors import UserError

SYMMETRIC = {
    "crop_size": 16,
    "num_crops": 2,
    "rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0},
    "color_jitter": {"prob": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "grayscale": {"prob": 0.2},
    "gaussian_blur": {"prob": 0.5},
    "solarization": {"prob": 0.1},
    "equalization": {"prob": 0.1},
    "horizontal_flip": {"prob": 0.5},
}


def two_views(dataset: str) -> Any:
    return prepare_n_crop_transform([build_transform_pipeline(dataset, SYMMETRIC)], num_crops_per_aug=[2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for c in range(4):
        (tmp_path / f"class{c}").mkdir()
        for i in range(10):
            Image.new("RGB", (24, 20), (60 * c, 20 * i, 90)).save(tmp_path / f"class{c}" / f"{i}.png")
    return tmp_path


def test_index_comes_first() -> None:
    data = dataset_with_index(FakeData)(size=4, image_size=(3, 8, 8), num_classes=2)  # type: ignore[call-arg]
    assert isinstance(data, FakeData)
    index, image, target = data[2]
    assert index == 2 and image.size == (8, 8) and int(target) in (0, 1)


@pytest.mark.parametrize("dataset", ["imagenet", "imagenet100", "custom", "image_folder"])
def test_batches_of_an_image_folder(folder: Path, dataset: str) -> None:
    data = prepare_datasets(dataset, two_views(dataset), train_data_path=folder)
    indexes, views, targets = next(iter(prepare_dataloader(data, batch_size=8, num_workers=0)))
    assert indexes.shape == targets.shape == (8,)
    assert [tuple(v.shape) for v in views] == [(8, 3, 16, 16)] * 2
    assert targets.tolist() == [i // 10 for i in indexes.tolist()]
    assert not torch.equal(views[0], views[1])


def test_grey_images_have_one_channel() -> None:
    data = prepare_datasets("digits", two_views("digits"))
    _, views, targets = next(iter(prepare_dataloader(data, 16, 0, seed=1)))
    assert views[0].shape == (16, 1, 16, 16) and targets.dtype == torch.int64


def test_fraction_is_stratified_and_indexed_from_zero(folder: Path) -> None:
    data = prepare_datasets("custom", two_views("custom"), train_data_path=folder, data_fraction=0.5)
    indexes, _, targets = next(iter(prepare_dataloader(data, batch_size=20, num_workers=0)))
    assert sorted(indexes.tolist()) == list(range(20))
    assert targets.bincount().tolist() == [5, 5, 5, 5]


def test_no_labels(folder: Path) -> None:
    data = prepare_datasets("custom", two_views("custom"), train_data_path=folder / "class0", no_labels=True)
    *_, targets = next(iter(prepare_dataloader(data, batch_size=4, num_workers=0)))
    assert targets.tolist() == [-1] * 4


def test_same_seed_same_views(folder: Path) -> None:
    batches = []
    for seed in (5, 5, 6):
        data = prepare_datasets("custom", two_views("custom"), train_data_path=folder)
        batches.append(next(iter(prepare_dataloader(data, batch_size=8, num_workers=0, seed=seed))))
    first, again, other = batches
    assert torch.equal(first[0], again[0]) and torch.equal(first[1][1], again[1][1])
    assert not torch.equal(first[1][1], other[1][1])


@pytest.mark.parametrize("data_format", ["dali", "lmdb"])
def test_other_formats_are_refused(folder: Path, data_format: str) -> None:
    with pytest.raises(UserError, match=f"data.format='{data_format}'.*image_folder"):
        prepare_datasets("imagenet", two_views("imagenet"), train_data_path=folder, data_format=data_format)


def test_batch_larger_than_the_data(folder: Path) -> None:
    data = prepare_datasets("custom", two_views("custom"), train_data_path=folder)
    with pytest.raises(UserError, match="256.*40 images"):
        prepare_dataloader(data, batch_size=256, num_workers=0)
