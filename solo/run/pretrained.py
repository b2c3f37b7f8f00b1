"""A trained backbone in one's own code: what evaluation does to an image, and features of whatever holds images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from solo.backbones import features_dim
from solo.checkpoint import checkpoint_file, load_checkpoint, saved_settings
from solo.data.catalogue.registry import DATASETS
from solo.data.classification_dataloader import prepare_transforms
from solo.data.storage.decode import read_image, scaled
from solo.data.storage.folders import Problems, image_folders
from solo.errors import UserError
from solo.run.source import pretrained_backbone
from solo.taxonomy import Taxonomy


@dataclass(frozen=True)
class PretrainedModel:
    """The backbone of a run, with everything that is needed to use it.

    Attributes:
        backbone: images (B, C, H, W) -> features (B, F); in eval mode, on `device`.
        transform: what evaluation does to one image: `PIL.Image`, or for other than 1 and 3 channels a uint8 array
            (H, W, C), to a normalised float tensor (C, H, W).
        taxonomy: the label tree of the data it was trained on; None where nothing is known of it.
        channels: C.
        settings: the resolved config of the run; empty where the file has none.
        device: where `embed` computes.
    """

    backbone: nn.Module
    transform: Callable[[Any], Tensor]
    taxonomy: Taxonomy | None
    channels: int
    settings: dict[str, Any]
    device: torch.device

    @property
    def features_dim(self) -> int:
        """F, the length of a feature vector."""
        return features_dim(self.backbone)

    @torch.no_grad()
    def embed(self, images: Any, batch_size: int = 256) -> Tensor:
        """Features of images, in their order.

        Args:
            images: one image or any iterable of them, mixed as you like, also a generator. An image is a file's path, a
                `PIL.Image`, an array (H, W) or (H, W, C), uint8, 16 bits or floating point in [0, 1], or a float tensor
                (C, H, W) that `transform` has made. A folder stands for all images below it, sorted; a float tensor
                (N, C, H, W) and an array (N, H, W, C) or (N, H, W) hold N images; an array of three axes whose last is
                1, 3, 4 or C long is one image.
            batch_size: images computed at once; memory, not the result, depends on it.

        Returns:
            (N, F) float32, in CPU memory; N = 0 for no images.

        Raises:
            UserError: a path that is no image or doesn't exist, or something that is no image.
        """
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        self.backbone.eval()
        inputs, parts = (self._input(image) for image in _each(images, self.channels)), []
        while batch := list(islice(inputs, batch_size)):
            if len({image.shape for image in batch}) > 1:
                raise UserError(f"tensors of different shapes, {_shapes(batch)}; let `transform` make them of one size")
            parts.append(self.backbone(torch.stack(batch).to(self.device)).float().cpu())
        return torch.cat(parts) if parts else torch.empty(0, self.features_dim)

    def _input(self, image: Any) -> Tensor:
        if isinstance(image, Tensor):
            if image.ndim != 3 or not image.is_floating_point() or len(image) != self.channels:
                raise UserError(
                    f"a tensor {image.dtype} of shape {tuple(image.shape)} is no input; give float ({self.channels}, "
                    "H, W) as `transform` makes it, or the image as PIL.Image, array or path"
                )
            return image
        if isinstance(image, (str, Path)):
            image = read_image(Path(image).expanduser(), self.channels)
        elif isinstance(image, np.ndarray):
            try:
                image = scaled(image)
            except ValueError as error:
                raise UserError(f"an array can't be read as an image: {error}") from error
            if self.channels in (1, 3):
                image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
        elif not isinstance(image, Image.Image):
            raise UserError(f"a {type(image).__name__} is no image; give PIL images, arrays, tensors or paths")
        return self.transform(image)


def load_pretrained(source: str | Path, device: str | torch.device | None = None, **data: Any) -> PretrainedModel:
    """Build the backbone of a run and load its weights.

    Args:
        source: a checkpoint of ours or of solo-learn, or the folder of a run.
        device: default: a GPU where there is one.
        data: what the file doesn't say or is to be changed: `dataset`, `image_size`, `channels`, `mean`, `std`.

    Raises:
        UserError: the file can't be read, holds no backbone, or doesn't say which one.
    """
    unknown = sorted(set(data) - {"dataset", "image_size", "channels", "mean", "std"})
    if unknown:
        raise UserError(f"{unknown[0]!r} can't be set; choose dataset, image_size, channels, mean, std")
    file = checkpoint_file(source)
    saved = saved_settings(load_checkpoint(file), file)
    name = data.get("dataset") or saved["data"].get("dataset") or (saved["cfg"].get("data") or {}).get("dataset")
    facts = {"dataset": name if name in DATASETS else "custom"}
    asked = {key: data.get(key) for key in ("image_size", "channels", "mean", "std")}
    cfg = OmegaConf.create(
        {
            "pretrained_feature_extractor": str(file),
            "pretrain_method": None,
            "backbone": {"name": None, "kwargs": {}},
            "data": {**facts, **asked},
        }
    )
    backbone = pretrained_backbone(cfg)  # which fills in what is left open
    images: Any = OmegaConf.to_container(cfg.data)
    transform = prepare_transforms(
        images["dataset"], images["mean"], images["std"], images["image_size"], images["channels"]
    )[1]
    tree = saved["data"].get("taxonomy")
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return PretrainedModel(
        backbone=backbone.to(where).eval(),
        transform=cast(Callable[[Any], Tensor], transform),
        taxonomy=Taxonomy.from_dict(tree) if tree else DATASETS[images["dataset"]].taxonomy,
        channels=images["channels"],
        settings=saved["cfg"],
        device=where,
    )


def _is_one(images: Any, channels: int) -> bool:
    """Whether a tensor or an array is one image and not a stack of them."""
    if isinstance(images, Tensor):
        return images.ndim < 4
    is_array = isinstance(images, np.ndarray)
    return is_array and (images.ndim < 3 or (images.ndim == 3 and images.shape[2] in (1, 3, 4, channels)))


def _each(images: Any, channels: int) -> Iterator[Any]:
    """The images one by one."""
    if isinstance(images, (str, Path)):
        path = Path(images).expanduser()
        if not path.exists():
            raise UserError(f"{images} doesn't exist; give an image, or a folder of images")
        if path.is_dir():
            yield from _below(path)
            return
        images = [path]
    elif isinstance(images, Image.Image) or _is_one(images, channels):
        images = [images]
    elif not isinstance(images, Iterable):
        raise UserError(f"a {type(images).__name__} holds no images; give PIL images, arrays, tensors or paths")
    yield from images


def _below(folder: Path) -> Iterator[Path]:
    found = False
    for parts, names in image_folders(folder, Problems()):
        for name in names:
            found = True
            yield folder.joinpath(*parts, name)
    if not found:
        raise UserError(f"{folder} holds no images, neither directly nor in its folders")


def _shapes(batch: list[Tensor]) -> str:
    return " and ".join(sorted({str(tuple(image.shape)) for image in batch})[:3])
