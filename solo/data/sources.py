"""Where images come from: one function per data set, from a `Request` to items `(PIL image, target)`.

A source is named in `DatasetSpec.source` and has the form `source(spec, request) -> Dataset`. What it returns takes the
request's two transforms, has an attribute `targets` (leaf classes, -1 = unlabelled) and `len()`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset
from torchvision import datasets as tv

from solo.data.idx import FashionFiles
from solo.data.registry import IMAGE_EXTENSIONS, DatasetSpec, check_path, class_folders
from solo.errors import UserError
from solo.taxonomy import Taxonomy

Split = Literal["pretrain", "train", "val"]
Transform = Callable[[Any], Any]

_DEFAULT_ROOT = Path(__file__).parents[1] / "datasets"
_DIGITS_SPLIT_SEED = 0


@dataclass(frozen=True)
class Request:
    """What is wanted of a source: `pretrain` is `train` plus whatever unlabelled images there are."""

    split: Split
    path: Path | None
    download: bool
    transform: Transform | None
    target_transform: Transform | None

    @property
    def root(self) -> Path:
        """The given folder or the one inside the package."""
        return self.path or _DEFAULT_ROOT


class BrokenImageError(UserError):
    """An image that can't be decoded.

    A loader's worker hands the error over with its whole traceback as the message; only the last line is for users.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip())


class LevelTargets:
    """Target transform: leaf class -> `(levels,)` LongTensor, coarse first; -1 gives -1 at all levels."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        unknown = (-1,) * taxonomy.num_levels
        self.table = torch.tensor([*taxonomy.path_table(), unknown])  # index -1 is the last row

    def __call__(self, target: int) -> torch.Tensor:
        """The path to the leaf `target`."""
        return self.table[int(target)]


class ArrayDataset(Dataset[tuple[Any, Any]]):
    """Images in memory.

    Args:
        images: uint8, `(N, H, W)` grey or `(N, H, W, 3)` RGB.
        targets: `N` leaf classes.
        transform, target_transform: applied to each PIL image and target.
    """

    def __init__(
        self,
        images: np.ndarray,
        targets: Iterable[int],
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        self.images = images
        self.targets = [int(target) for target in targets]
        self.transform = transform
        self.target_transform = target_transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = Image.fromarray(self.images[index])
        target: Any = self.targets[index]
        return (
            self.transform(image) if self.transform else image,
            self.target_transform(target) if self.target_transform else target,
        )


class CustomDatasetWithoutLabels(Dataset[tuple[Any, int]]):
    """All files directly in `root` as RGB images with target -1; hidden files are left out.

    Attributes:
        images: file names, sorted.

    Raises:
        UserError: if there is no file, or if files are no images; names them.
    """

    def __init__(self, root: str | Path, transform: Transform | None = None) -> None:
        self.root = Path(root)
        self.transform = transform
        self.images = sorted(p.name for p in self.root.iterdir() if p.is_file() and not p.name.startswith("."))
        if not self.images:
            raise UserError(f"{self.root} holds no files; give a folder with images directly inside")
        # Names without a known ending may still be images; a look at their first bytes decides.
        strange = [name for name in self.images if not name.lower().endswith(IMAGE_EXTENSIONS)]
        foreign = [name for name in strange if not _is_image(self.root / name)]
        if foreign:
            more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
            raise UserError(f"{self.root} holds files that are no images: {', '.join(foreign[:5])}{more}; remove them")

    @property
    def targets(self) -> list[int]:
        """-1 for each image."""
        return [-1] * len(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image: Any = read_rgb(self.root / self.images[index])
        return (self.transform(image) if self.transform else image), -1


class _ImageFolder(tv.ImageFolder):  # type: ignore[misc]
    """torchvision's, without hidden folders."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = class_folders(directory)
        return names, {name: index for index, name in enumerate(names)}


class _STL10(tv.STL10):  # type: ignore[misc]
    """torchvision's, with `targets` like all the others."""

    @property
    def targets(self) -> list[int]:
        return cast("list[int]", self.labels.tolist())


def read_rgb(path: str | Path) -> Image.Image:
    """Decode a file.

    Raises:
        BrokenImageError: if it is missing, truncated or no image; names the file.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    # What Pillow raises differs between formats; SyntaxError comes from broken PNG chunks.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "no known image format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
        raise BrokenImageError(f"{path} can't be read as an image ({reason}); replace or remove the file") from error


def _is_image(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except OSError:
        return False


def load(
    spec: DatasetSpec,
    split: Split,
    path: str | Path | None = None,
    download: bool = True,
    transform: Transform | None = None,
    levels: bool = False,
    no_labels: bool = False,
) -> Dataset[tuple[Any, Any]]:
    """The images of one split.

    Args:
        spec: a row of the registry.
        split: `train`, `val` or `pretrain` (`train` and the unlabelled images, where there are some).
        path: the folder of this split, or the root of a data set with a layout of its own.
        download: whether what is missing may be fetched.
        transform: applied to the PIL image.
        levels: whether targets are `(levels,)` LongTensors, coarse first, if there is more than one level.
        no_labels: `path` is a flat folder of images; every target is -1.

    Raises:
        UserError: if the data aren't there, can't be fetched, or don't look as expected.
    """
    check_path(spec, str(path) if path else None, no_labels)
    folder = Path(path).expanduser() if path else None
    if no_labels:
        if not spec.folders or folder is None:
            raise UserError(f"data.no_labels=True needs a folder of images; use data.dataset=custom, not {spec.name}")
        return CustomDatasetWithoutLabels(folder, transform)
    target_transform = LevelTargets(spec.taxonomy) if levels and spec.taxonomy and len(spec.levels) > 1 else None
    module, _, name = spec.source.partition(":")
    source = getattr(importlib.import_module(module), name)
    return cast("Dataset[tuple[Any, Any]]", source(spec, Request(split, folder, download, transform, target_transform)))


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
    """Fashion-MNIST from idx files: the given folder, Debian's package, or torchvision's folder and download."""
    prefix = "t10k" if request.split == "val" else "train"
    files = FashionFiles.find(prefix, request.path, _DEFAULT_ROOT)
    if files is None and request.download:
        try:
            tv.FashionMNIST(str(request.root), download=True)
        except (RuntimeError, OSError) as error:
            raise UserError(f"{FashionFiles.how_to(request.path)} (the download failed: {error})") from error
        files = FashionFiles.find(prefix, request.root)
    if files is None:
        raise UserError(FashionFiles.how_to(request.path))
    images, labels = files.read()
    return ArrayDataset(images, labels, request.transform, request.target_transform)


def cifar10(spec: DatasetSpec, request: Request) -> Dataset[tuple[Any, Any]]:
    """CIFAR-10 by torchvision."""
    return _from_torchvision(tv.CIFAR10, "cifar-10-batches-py", request, train=request.split != "val")


def cifar100(spec: DatasetSpec, request: Request) -> Dataset[tuple[Any, Any]]:
    """CIFAR-100 by torchvision."""
    return _from_torchvision(tv.CIFAR100, "cifar-100-python", request, train=request.split != "val")


def stl10(spec: DatasetSpec, request: Request) -> Dataset[tuple[Any, Any]]:
    """STL-10 by torchvision; pretraining adds the 100,000 unlabelled images."""
    split = {"pretrain": "train+unlabeled", "train": "train", "val": "test"}[request.split]
    return _from_torchvision(_STL10, "stl10_binary", request, split=split)


def _from_torchvision(
    cls: Callable[..., Dataset[tuple[Any, Any]]], layout: str, request: Request, **kwargs: Any
) -> Dataset[tuple[Any, Any]]:
    options = {"transform": request.transform, "target_transform": request.target_transform, **kwargs}
    try:
        return cls(str(request.root), download=request.download, **options)
    except (RuntimeError, OSError) as error:
        fetch = "the download failed" if request.download else "data.download=False"
        raise UserError(
            f"no complete {layout} in {request.root} ({fetch}: {error}); "
            f"set data.train_path and data.val_path to the folder that holds {layout}/"
        ) from error


def image_folder(spec: DatasetSpec, request: Request) -> tv.ImageFolder:
    """One folder per class, images inside at any depth."""
    try:
        return _ImageFolder(
            str(request.path),
            transform=request.transform,
            target_transform=request.target_transform,
            loader=read_rgb,
        )
    except FileNotFoundError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{request.path}: {reason} Put images into these folders or remove them") from error
