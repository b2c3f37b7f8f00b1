"""Where images come from: one function per data set, from a `Request` to items `(PIL image, target)`.

A source is named in `DatasetSpec.source` and has the form `source(spec, request) -> Dataset`. What it returns takes the
request's two transforms, has an attribute `targets` (leaf classes, -1 = unlabelled) and `len()`.
"""

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets as tv

from solo.data.catalogue.registry import DatasetSpec, check_path, choose_classes, layout_of, obtain
from solo.data.labels.subsets import hold_out
from solo.data.sources.images import (
    ArrayDataset,
    CustomDatasetWithoutLabels,
    H5Dataset,
    ImageFiles,
    LabelledImages,
    LevelTargets,
    Request,
    Split,
    Transform,
)
from solo.data.sources.skip import SkipBroken
from solo.data.storage.archives import guarded
from solo.data.storage.folders import class_folders, is_image_name, of_split
from solo.data.storage.containers import is_h5
from solo.data.storage.idx import find_fashion, no_fashion, read_fashion
from solo.data.storage.listing import READERS, WITH_COLUMNS
from solo.data.storage.reading import ImageReading
from solo.errors import UserError, reason

_DIGITS_SPLIT_SEED = 0


class _ImageFolder(tv.ImageFolder):  # type: ignore[misc]
    """torchvision's, without hidden folders; ImageNet-100 may be taken out of the whole ImageNet."""

    def __init__(self, dataset: str, root: str, **options: Any) -> None:
        self.dataset = dataset
        super().__init__(root, **options)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = choose_classes(self.dataset, class_folders(directory))
        return names, {name: index for index, name in enumerate(names)}


class _STL10(tv.STL10):  # type: ignore[misc]
    """torchvision's, with `targets` like all the others."""

    @property
    def targets(self) -> list[int]:
        return cast("list[int]", self.labels.tolist())


def load(
    spec: DatasetSpec,
    split: Split,
    path: str | Path | None = None,
    download: bool = True,
    transform: Transform | None = None,
    levels: bool = False,
    no_labels: bool = False,
    data_format: str | None = None,
) -> Dataset[tuple[Any, Any]]:
    """The images of one split: `train`, `val`, or `pretrain` (`train` and the unlabelled images, where there are some).

    `path` is the folder or HDF5 file of this split, or the root of a data set with a layout of its own; with
    `no_labels` a flat folder, a table or shards of images, whose targets are -1. With `levels` targets are `(levels,)`
    LongTensors, coarse first, if there is more than one level. `data_format` is as `data.format`; `None` takes HDF5
    files for what they are. Raises a `UserError` if the data aren't there, can't be fetched, or don't look as expected.
    """
    share, train_path = spec.holdout
    if share:
        path = train_path if split == "val" else path
        whole = dataclasses.replace(spec, holdout=(0.0, None))
        part: Split = "train" if split == "val" else split
        images: Any = load(whole, part, path, download, transform, levels, no_labels, data_format)
        return hold_out(images, share, split == "val")
    if data_format not in (None, *READERS):
        what = f"data.format={data_format!r} can't be read; only {', '.join(map(repr, READERS))} can"
        raise UserError(f"{what}: store the images as files, one folder per class, and set data.format=image_folder")
    folder = Path(path).expanduser() if path else None
    if folder is not None and spec.folders and folder.is_dir():
        folder = of_split(folder, train=split != "val")
    if data_format is None:
        data_format = "h5" if folder is not None and spec.folders and is_h5(folder) else "image_folder"
    check_path(spec, str(folder) if folder else None, no_labels, data_format)
    if no_labels and spec.format not in WITH_COLUMNS:
        if not spec.folders or folder is None:
            raise UserError(f"data.no_labels=True needs a folder of images; use data.dataset=custom, not {spec.name}")
        images = CustomDatasetWithoutLabels(folder, transform)
    else:
        target_transform = LevelTargets(spec.taxonomy) if levels and spec.taxonomy and len(spec.levels) > 1 else None
        if data_format == "h5":
            images = H5Dataset(spec.name, cast(Path, folder), transform, target_transform)
        else:
            module, _, name = spec.source.partition(":")
            source = getattr(importlib.import_module(module), name)
            images = source(spec, Request(split, folder, download, transform, target_transform))
            if spec.channels not in (1, 3) and not isinstance(images, ImageFiles):
                what = f"data.channels={spec.channels}, but images of {spec.name} have 1 or 3"
                own = "own files (data.dataset=custom): folders, tables, shards, Hugging Face data sets"
                raise UserError(f"{what}; other numbers are read from {own}")
    if isinstance(images, LabelledImages):
        images.reading = ImageReading.by(spec.reading)
    return cast("Dataset[tuple[Any, Any]]", SkipBroken(images) if spec.on_error == "skip" else images)


def digits(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 enlarged to `spec.size`; a fixed stratified fifth validates."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    train, val = train_test_split(
        np.arange(len(images)), test_size=0.2, stratify=bunch.target, random_state=_DIGITS_SPLIT_SEED
    )
    rows = val if request.split == "val" else train
    size = (spec.size, spec.size)
    large = [np.asarray(Image.fromarray(images[i]).resize(size, Image.Resampling.BICUBIC)) for i in rows]
    return ArrayDataset(np.stack(large), bunch.target[rows], request.transform, request.target_transform)


def fashion_mnist(spec: DatasetSpec, request: Request) -> ArrayDataset:
    """Fashion-MNIST from idx files in the given folder, else from Debian's package; what is missing is fetched."""
    prefix = "t10k" if request.split == "val" else "train"
    files, why = find_fashion(prefix, request.path, request.root), "data.download=False"
    if files is None and request.download:
        try:
            tv.FashionMNIST(str(request.root), download=True)
        except (RuntimeError, OSError) as error:
            why = f"the download failed: {reason(error)}"
        files = find_fashion(prefix, request.root)
    if files is None:
        raise UserError(no_fashion(request.path, why))
    images, labels = read_fashion(*files)
    return ArrayDataset(images, labels, request.transform, request.target_transform)


def cifar10(spec: DatasetSpec, request: Request) -> Dataset[tuple[Any, Any]]:
    """CIFAR-10 as torchvision reads and fetches it."""
    return from_torchvision(tv.CIFAR10, "cifar-10-batches-py", request, train=request.split != "val")


def cifar100(spec: DatasetSpec, request: Request) -> Dataset[tuple[Any, Any]]:
    """CIFAR-100 as torchvision reads and fetches it; its superclasses are the row's."""
    return from_torchvision(tv.CIFAR100, "cifar-100-python", request, train=request.split != "val")


def stl10(spec: DatasetSpec, request: Request) -> Dataset[tuple[Any, Any]]:
    """STL-10 by torchvision; pretraining adds the 100,000 unlabelled images."""
    split = {"pretrain": "train+unlabeled", "train": "train", "val": "test"}[request.split]
    return from_torchvision(_STL10, "stl10_binary", request, split=split)


def from_torchvision(
    cls: Callable[..., Dataset[tuple[Any, Any]]], layout: str, request: Request, **kwargs: Any
) -> Dataset[tuple[Any, Any]]:
    """A data set of torchvision that fetches itself; a `UserError` says where it was looked for in vain."""
    options = {"transform": request.transform, "target_transform": request.target_transform, **kwargs}
    try:
        with guarded():
            return cls(str(request.root), download=request.download, **options)
    except (RuntimeError, OSError) as error:
        fetch = "the download failed" if request.download else "data.download=False"
        what = f"no complete {layout} in {request.root} ({fetch}: {reason(error)})"
        raise UserError(f"{what}; set data.train_path and data.val_path to the folder that holds {layout}/") from error


def published(spec: DatasetSpec, request: Request) -> ImageFiles:
    """A data set in its authors' layout, fetched by torchvision where that is possible."""
    layout, train = layout_of(spec), request.split != "val"
    if layout.tree(request.root, train) is None:
        obtain(spec, str(request.root), request.download)
    files, targets, tree = layout.read(request.root, train)
    if spec.taxonomy not in (None, tree):
        raise UserError(
            f"{request.root} holds {tree.num_classes} classes, others than the {spec.num_classes} of the training "
            "data; data.train_path and data.val_path must belong to the same copy of the data set"
        )
    return ImageFiles(files, targets, tree.class_names, request.transform, request.target_transform)


def image_folder(spec: DatasetSpec, request: Request) -> tv.ImageFolder:
    """One folder per class, images inside at any depth."""
    reading = ImageReading.by(spec.reading)
    options = {"transform": request.transform, "target_transform": request.target_transform}
    try:
        images = _ImageFolder(spec.name, str(request.path), loader=reading.read, is_valid_file=is_image_name, **options)
        images.reading = reading
        return images
    except FileNotFoundError as error:
        raise UserError(f"{request.path}: {reason(error)} Put images into these folders or remove them") from error
