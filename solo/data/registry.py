"""One row per data set: where it comes from, how large its images are, how they are normalised, what the labels mean.

Imports no torch, so that configurations can be checked and described in no time. A new data set is one row here and
one function in `solo.data.sources` (or anywhere else: `source` is an import path).
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from solo.data import classes
from solo.errors import UserError
from solo.taxonomy import Taxonomy

Stats = tuple[float, ...]

# What Pillow reads without plug-ins; the same list as torchvision's ImageFolder.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# solo-learn normalises CIFAR-100 like this, too, when it classifies; published numbers depend on it.
_CIFAR_EVAL_MEAN, _CIFAR_EVAL_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)


@dataclass(frozen=True)
class DatasetSpec:
    """All that is known of a data set before a single image is read.

    Attributes:
        name: the value of `data.dataset`.
        source: `"module:function"`; the function's form is described in `solo.data.sources`.
        channels: 1 (grey) or 3 (RGB).
        size: height and width of a validation image, in pixels.
        mean, std: per channel, of images in [0, 1]; used in pretraining.
        eval_mean, eval_std: the same for classification; `None` means `mean`, `std`.
        taxonomy: the label tree; `None` if the class names come from folders.
        num_classes: `None` if counted from the folders, see `count_classes`.
        small_stem: whether ResNets get a stem for small images.
        downloads: whether it is at hand, or fetched, without a path.
        folders: whether `data.train_path` is a folder with one sub-folder per class.
        resize: `None`: validation images have `size` already; else the length of the shorter side before the centre
            crop of `size` pixels.
        crop_min_scale, flip: how a classifier's training images may be cropped and whether they may be mirrored.
    """

    name: str
    source: str
    channels: int
    size: int
    mean: Stats
    std: Stats
    eval_mean: Stats | None = None
    eval_std: Stats | None = None
    taxonomy: Taxonomy | None = None
    num_classes: int | None = None
    small_stem: bool = False
    downloads: bool = False
    folders: bool = False
    resize: int | None = None
    crop_min_scale: float = 0.08
    flip: bool = True

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the label levels, coarse first."""
        return self.taxonomy.levels if self.taxonomy else ("class",)


def _imagenet_like(name: str, num_classes: int | None) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        source="solo.data.sources:image_folder",
        channels=3,
        size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        num_classes=num_classes,
        folders=True,
        resize=256,
    )


_DIGITS = DatasetSpec(
    name="digits",
    source="solo.data.sources:digits",
    channels=1,
    size=16,
    mean=(0.3098,),
    std=(0.3476,),
    taxonomy=Taxonomy.flat(tuple("0123456789"), level="digit"),
    num_classes=10,
    small_stem=True,
    downloads=True,
    crop_min_scale=0.5,
    flip=False,
)

_FASHION_MNIST = DatasetSpec(
    name="fashion_mnist",
    source="solo.data.sources:fashion_mnist",
    channels=1,
    size=28,
    mean=(0.2860,),
    std=(0.3530,),
    taxonomy=Taxonomy.from_groups(classes.FASHION_MNIST, classes.FASHION_MNIST_GROUPS),
    num_classes=10,
    small_stem=True,
    downloads=True,
    crop_min_scale=0.5,
)

_CIFAR10 = DatasetSpec(
    name="cifar10",
    source="solo.data.sources:cifar10",
    channels=3,
    size=32,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    eval_mean=_CIFAR_EVAL_MEAN,
    eval_std=_CIFAR_EVAL_STD,
    taxonomy=Taxonomy.flat(classes.CIFAR10),
    num_classes=10,
    small_stem=True,
    downloads=True,
)

_CIFAR100 = DatasetSpec(
    name="cifar100",
    source="solo.data.sources:cifar100",
    channels=3,
    size=32,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    eval_mean=_CIFAR_EVAL_MEAN,
    eval_std=_CIFAR_EVAL_STD,
    taxonomy=Taxonomy.from_groups(classes.CIFAR100, classes.CIFAR100_GROUPS, ("superclass", "class")),
    num_classes=100,
    small_stem=True,
    downloads=True,
)

_STL10 = DatasetSpec(
    name="stl10",
    source="solo.data.sources:stl10",
    channels=3,
    size=96,
    mean=(0.4914, 0.4823, 0.4466),
    std=(0.247, 0.243, 0.261),
    taxonomy=Taxonomy.flat(classes.STL10),
    num_classes=10,
    downloads=True,
)

_ROWS = (
    _DIGITS,
    _FASHION_MNIST,
    _CIFAR10,
    _CIFAR100,
    _STL10,
    _imagenet_like("imagenet", 1000),
    _imagenet_like("imagenet100", 100),
    _imagenet_like("custom", None),
)

DATASETS: dict[str, DatasetSpec] = {row.name: row for row in _ROWS}
DATASETS["image_folder"] = DATASETS["custom"]  # a second name, the same row


def get_spec(name: str) -> DatasetSpec:
    """The row of `name`.

    Raises:
        UserError: if there is none; names the closest ones.
    """
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), DATASETS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"data.dataset={name!r} is unknown; {hint}choose one of {', '.join(sorted(DATASETS))}")


def class_folders(path: str | os.PathLike[str]) -> list[str]:
    """Names of the folders in `path`, sorted, without hidden ones: the classes of an image folder."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def count_classes(spec: DatasetSpec, train_path: str | None = None) -> int:
    """The number of leaf classes: the data set's own, else the number of sub-folders of `train_path`, at least 1.

    Raises:
        UserError: if it has to be counted and `train_path` is no folder.
    """
    if spec.num_classes is not None:
        return spec.num_classes
    return max(1, len(class_folders(_existing_folder(train_path))))


def check_path(spec: DatasetSpec, path: str | None, no_labels: bool = False) -> None:
    """Look at a data folder without reading an image, so that a wrong path fails at once.

    Data sets which can be fetched or are built in accept any path, also none.

    Raises:
        UserError: if the folder is missing, empty, or has no class folders (no files, with `no_labels`).
    """
    if not spec.folders:
        return
    folder = _existing_folder(path)
    with os.scandir(folder) as entries:
        has_files = any(entry.is_file() and not entry.name.startswith(".") for entry in entries)
    if no_labels and not has_files:
        raise UserError(f"{folder} holds no files; data.no_labels=True expects the images directly in that folder")
    if not no_labels and not class_folders(folder):
        found = "only files" if has_files else "nothing"
        raise UserError(
            f"{folder} holds {found}; expected one folder per class with images inside. "
            "Unlabelled images in one flat folder need data.dataset=custom data.no_labels=True"
        )


def _existing_folder(path: str | None) -> Path:
    if not path:
        raise UserError("data.train_path (or data.val_path) is not set; give the folder that holds the images")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"the data folder {folder} {what}; check data.train_path and data.val_path")
    return folder
