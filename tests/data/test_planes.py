"""Images of other than one or three channels."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tvf

from solo.cli import main
from solo.data.cache import cached
from solo.data.catalogue.registry import resolve_spec
from solo.data.sources.images import load
from solo.data.storage.reading import ImageReading, as_picture
from solo.data.views import tensor_ops
from solo.data.views.batched import BatchAugment
from solo.data.views.pipelines import build_eval_pipeline, build_train_pipeline, build_transform_pipeline
from solo.errors import BrokenImageError, UserError

CHANNELS = 5
MEAN, STD = [0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.3, 0.2, 0.3, 0.25]


def planes(seed: int = 0, height: int = 20, width: int = 24) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, CHANNELS)).astype(np.uint8)


def npy(path: Path, array: np.ndarray[Any, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def tiff(path: Path, array: np.ndarray[Any, Any]) -> Path:
    first, *rest = [Image.fromarray(array[..., channel]) for channel in range(array.shape[2])]
    first.save(path, save_all=True, append_images=rest)
    return path


@pytest.mark.parametrize(
    "write",
    [
        lambda folder, x: npy(folder / "a.npy", x),
        lambda folder, x: npy(folder / "a.npy", x.transpose(2, 0, 1)),
        lambda folder, x: npy(folder / "a.npy", x.astype(np.uint16) * 257),
        lambda folder, x: npy(folder / "a.npy", x / 255),
        lambda folder, x: tiff(folder / "a.tiff", x),
        lambda folder, x: tiff(folder / "a.tif", x.astype(np.uint16) * 257),
    ],
)
def test_arrays_and_pages_of_any_depth_are_read(
    tmp_path: Path, write: Callable[[Path, np.ndarray[Any, Any]], Path]
) -> None:
    path = write(tmp_path, planes())
    found = ImageReading(CHANNELS).read(path)
    assert found.dtype == np.uint8 and np.array_equal(found, planes())
    assert np.array_equal(ImageReading(CHANNELS).read(BytesIO(path.read_bytes()), "x"), planes())
    assert (
        ImageReading(CHANNELS).head(path).size
        == ImageReading(CHANNELS).head(BytesIO(path.read_bytes())).size
        == (24, 20)
    )


def test_bands_are_channels_and_arrays_of_three_are_colours(tmp_path: Path) -> None:
    rgba = planes()[..., :4]
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(ImageReading(4).read(tmp_path / "a.png"), rgba)
    for name, array in (("b", planes()[..., :3]), ("c", planes()[..., :3].transpose(2, 0, 1))):
        assert np.array_equal(np.asarray(ImageReading().read(npy(tmp_path / f"{name}.npy", array))), planes()[..., :3])
    grey = np.asarray(ImageReading().read(npy(tmp_path / "d.npy", planes()[..., 0])))
    assert np.array_equal(grey, np.repeat(planes()[..., :1], 3, axis=2))
    assert np.array_equal(np.asarray(as_picture(planes())), planes()[..., :3])
    assert np.array_equal(np.asarray(as_picture(planes()[..., :2])), planes()[..., 0])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (planes()[..., :4], "a.npy has 4 channels, and data.channels=5; set data.channels=4, and as many data.mean"),
        (planes()[None], "an array of 4 axes is no image"),
        (planes() * 2.0, "they have to be in 0 to 1"),
        (np.array([{}]), "type object is no image"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray[Any, Any], message: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(BrokenImageError, match=message):
        ImageReading(CHANNELS).read(tmp_path / "a.npy")
    with pytest.raises(BrokenImageError, match="has 5 channels; set data.channels=5, and as many data.mean"):
        ImageReading().read(npy(tmp_path / "c.npy", planes()))
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:40])
    with pytest.raises(BrokenImageError, match="b.npy can't be read"):
        ImageReading(CHANNELS).read(tmp_path / "b.npy")


def test_each_channel_by_itself() -> None:
    x = torch.from_numpy(planes()).movedim(2, 0)[None].float()
    half = torch.tensor([0.5])
    assert all(torch.equal(op(x.clone()), x) for op in (tensor_ops.to_grey,))
    assert all(torch.equal(op(x.clone(), half), x) for op in (tensor_ops.adjust_saturation, tensor_ops.adjust_hue))
    for channel in range(CHANNELS):
        one = x[:, channel : channel + 1]
        for op, theirs in (
            (tensor_ops.adjust_contrast, tvf.adjust_contrast),
            (tensor_ops.adjust_brightness, tvf.adjust_brightness),
        ):
            ours, expected = op(x.clone(), half)[:, channel], theirs(one.to(torch.uint8), 0.5)[:, 0].float()
            assert (ours - expected).abs().max() <= 1
        blurred = tensor_ops.gaussian_blur(x.clone(), torch.tensor([1.0]))[:, channel : channel + 1]
        assert (blurred - tvf.gaussian_blur(one, 13, 1.0)).abs().max() < 0.1
        flat = tensor_ops.equalize(x.clone())[:, channel]
        assert torch.equal(flat, tvf.equalize(one.to(torch.uint8))[:, 0].float())


def test_pipelines_for_one_image() -> None:
    entry = {
        "crop_size": 16,
        "num_crops": 2,
        "rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0},
        "color_jitter": {"prob": 1.0, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
        "grayscale": {"prob": 0.5},
        "horizontal_flip": {"prob": 0.5},
    }
    view = build_transform_pipeline("custom", entry, MEAN, STD)
    random.seed(3)
    first, second = view(planes()), view(planes())
    random.seed(3)
    again = view(planes())
    assert first.shape == (CHANNELS, 16, 16) and torch.equal(first, again) and not torch.equal(first, second)
    assert build_train_pipeline(16, MEAN, STD)(planes()).shape == (CHANNELS, 16, 16)


@pytest.mark.parametrize("resize", [None, 18])
def test_evaluation_sees_what_it_sees_of_grey_images(resize: int | None) -> None:
    found = build_eval_pipeline(12, MEAN, STD, resize=resize)(planes())
    for channel in range(CHANNELS):
        grey = build_eval_pipeline(12, MEAN[channel : channel + 1], STD[channel : channel + 1], resize=resize)
        expected = grey(Image.fromarray(planes()[..., channel]))
        assert (found[channel] - expected[0]).abs().max() * STD[channel] * 255 <= 1.01


def folder(root: Path) -> Path:
    for seed, place in enumerate(("tissue/a/1", "tissue/a/2", "tissue/b/1", "blood/c/1", "blood/c/2")):
        npy(root / f"{place}.npy", planes(seed))
    return root


def test_own_files_are_cached_and_give_the_same_views_in_any_process(tmp_path: Path) -> None:
    data = {"dataset": "custom", "train_path": str(folder(tmp_path / "images")), "channels": CHANNELS}
    images: Any = load(resolve_spec(data), "train", tmp_path / "images", levels=True)
    assert np.array_equal(images[0][0], planes(3)) and images[0][1].tolist() == [0, 0]
    entry = {"crop_size": 8, "num_crops": 2, "rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0}}
    augment = BatchAugment([entry], MEAN, STD)
    kept: Any = cached(images, augment, side=10, folder=str(tmp_path / "kept"))
    small = kept.fetch(range(5))
    assert [tuple(image.shape) for image in small] == [(CHANNELS, 10, 12)] * 5
    assert torch.equal(torch.stack(kept.fetch(range(5))), torch.stack(small))
    assert (small[0].float().mean((1, 2)) - torch.from_numpy(planes(3)).float().mean((0, 1))).abs().max() < 2
    views = augment(small, torch.arange(5))
    assert [tuple(view.shape) for view in views] == [(5, CHANNELS, 8, 8)] * 2
    with pytest.raises(UserError, match="data.channels=5, but images of digits have 1 or 3"):
        load(resolve_spec({"dataset": "digits", "channels": 5}), "train")


@pytest.mark.thorough
def test_inspect_and_training_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "images")
    assert main(["inspect", str(root)]) == 0
    out = capsys.readouterr().out
    assert "modes: 5 channels (5)" in out and "sizes: 24 x 20 (5)" in out and "channels: 5" in out
    given = ["mean=[0.5,0.5,0.5,0.5,0.5]", "std=[0.3,0.3,0.3,0.3,0.3]", "channels=5", "num_workers=0", "image_size=32"]
    words = ["pretrain", "scripts/pretrain/custom", "simclr.yaml", f"data.train_path={root}", f"data.val_path={root}"]
    words += [*(f"data.{word}" for word in given), "augmentations.0.crop_size=32", "max_epochs=1", "precision=32"]
    words += ["optimizer.batch_size=4", "backbone.name=resnet10", "backbone.kwargs={width: 16}", "devices=1"]
    for how in ("batch", "sample"):
        made = [f"data.augment={how}", f"checkpoint.dir={tmp_path / how}", "accelerator=cpu", "progress=off"]
        assert main([*words, *made, f"data.cache_dir={tmp_path / 'kept'}"][: None if how == "batch" else -1]) == 0
        (run,) = (tmp_path / how / "simclr").iterdir()
        weight = torch.load(run / "last.ckpt")["state_dict"]["backbone.conv1.weight"]
        assert weight.shape[1] == CHANNELS
    assert (
        main(["pretrain", *words[1:], "--preview", f"checkpoint.dir={tmp_path / 'p'}", f"data.cache_dir={tmp_path}"])
        == 0
    )
    assert (tmp_path / "p" / "simclr" / "preview.png").is_file()
    found = [
        "measures=[knn]",
        "intervals=false",
        "cache=False",
        "data.num_workers=0",
        f"checkpoint.dir={tmp_path / 'e'}",
        "accelerator=cpu",
    ]
    assert main(["evaluate", f"checkpoint={run}", *found]) == 0
