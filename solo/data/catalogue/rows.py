"""One row per data set: where it comes from, how large its images are, how they are normalised, what the labels mean.

No torch. A new data set is one row here and one function in `solo.data.sources.load` (or anywhere else: `source` is an
import path), or one `Layout` in `solo.data.layouts`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from solo.data.catalogue import class_names as classes
from solo.data.layouts.layout import find_layout
from solo.data.storage.facts import ReadingKeys, Sample
from solo.taxonomy import Taxonomy

Stats = tuple[float, ...]
SMALL = 64  # pixels of a side, up to which ResNets begin with a small stem

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# solo-learn normalises CIFAR-100 like this, too, when it classifies; published numbers depend on it.
_CIFAR_EVAL_MEAN, _CIFAR_EVAL_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)


def wrong_statistics(mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, str]:
    """What is wrong with the mean and std, per channel, of images in [0, 1]: the name of the one and why."""
    found = {}
    for name, values, least in (("mean", mean, 0.0), ("std", std, 0.002)):
        # A std of 1 leaves the values as they are; half a step of 256 is the least that pictures have.
        bad = [value for value in values or () if not least <= value <= 1]
        if bad:
            hint = "divide by 255?" if all(1 < value <= 255 for value in bad) else f"give {least:g} to 1"
            found[name] = f"={list(values or ())}: these are values of images in [0, 1]; {hint}"
    return found


@dataclass(frozen=True)
class DatasetSpec:
    """All that is known of a data set before a single image is read.

    Attributes:
        name: the value of `data.dataset`.
        source: `"module:function"`; the function's form is described in `solo.data.sources.load`.
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
        path_column: of a table of own images, the column with their paths.
        on_error: `raise`, or `skip` files that can't be decoded.
        crop_min_scale, flip: how a classifier's training images may be cropped and whether they may be mirrored.
        layout: `"module:NAME"` of a `solo.data.layouts.layout.Layout`, for data sets whose classes and label tree come
            from their own files; `num_classes` is the published number until they are read.
        reading: how files become images.
        unknown_classes: what happens to validation images of classes that the training data lack: an error, they are
            left out, or they keep the labels that they share with the training data.
        sample: of own training images.
        notes: what was found in own images and has to be said, a line each.
        format: how own images are stored, `data.format`.
        nested: whether folders in folders are the levels of the tree of own images.
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
    path_column: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    layout: str | None = None
    reading: ReadingKeys = ReadingKeys()
    unknown_classes: Literal["raise", "drop", "label"] = "raise"
    sample: Sample = Sample()
    notes: tuple[str, ...] = ()
    format: str = "image_folder"
    nested: bool = False

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the label levels, coarse first; those of the published layout while its files are not read."""
        if self.taxonomy:
            return self.taxonomy.levels
        if self.layout:
            return find_layout(self.layout).levels or ("class",)
        return ("class",)


def _imagenet_like(name: str, num_classes: int | None) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        source="solo.data.sources.load:image_folder",
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
    source="solo.data.sources.load:digits",
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
    source="solo.data.sources.load:fashion_mnist",
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


def _cifar(name: str, taxonomy: Taxonomy, mean: Stats, std: Stats) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        source=f"solo.data.sources.load:{name}",
        channels=3,
        size=32,
        mean=mean,
        std=std,
        eval_mean=_CIFAR_EVAL_MEAN,
        eval_std=_CIFAR_EVAL_STD,
        taxonomy=taxonomy,
        num_classes=taxonomy.num_classes,
        small_stem=True,
        downloads=True,
    )


_CIFAR10 = _cifar("cifar10", Taxonomy.flat(classes.CIFAR10), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR100 = _cifar(
    "cifar100",
    Taxonomy.from_groups(classes.CIFAR100, classes.CIFAR100_GROUPS, ("superclass", "class")),
    (0.5071, 0.4865, 0.4409),
    (0.2673, 0.2564, 0.2762),
)

_STL10 = DatasetSpec(
    name="stl10",
    source="solo.data.sources.load:stl10",
    channels=3,
    size=96,
    mean=(0.4914, 0.4823, 0.4466),
    std=(0.247, 0.243, 0.261),
    taxonomy=Taxonomy.flat(classes.STL10),
    num_classes=10,
    downloads=True,
)


def _photos(name: str, num_classes: int, layout: str, downloads: bool = False) -> DatasetSpec:
    """Photographs of any size, in their authors' layout."""
    return dataclasses.replace(
        _imagenet_like(name, num_classes),
        source="solo.data.sources.load:published",
        layout=f"solo.data.layouts.{layout}",
        folders=False,
        downloads=downloads,
    )


def _thumbnails(name: str, num_classes: int, source: str, **settings: Any) -> DatasetSpec:
    """Small images with CIFAR's constants, grey ones as RGB, as the HEX release has them."""
    return DatasetSpec(
        name=name,
        source=f"solo.data.sources.small:{source}",
        channels=3,
        mean=_CIFAR_EVAL_MEAN,
        std=_CIFAR_EVAL_STD,
        num_classes=num_classes,
        **{"size": 32, "small_stem": True, "downloads": True, **settings},
    )


_TINY_IMAGENET = DatasetSpec(
    name="tinyimagenet200",
    source="solo.data.sources.load:published",
    channels=3,
    size=64,
    mean=_CIFAR_EVAL_MEAN,
    std=_CIFAR_EVAL_STD,
    num_classes=200,
    layout="solo.data.layouts.objects:TINY_IMAGENET",
)

# The HEX release uses five superclasses of CIFAR-100 as data sets of their own: name there -> superclass.
CIFAR100_PARTS = {
    "cifar100_aquatic_mammals": "aquatic_mammals",
    "cifar100_fish": "fish",
    "cifar100_flowers": "flowers",
    "cifar100_trees": "trees",
    "cifar100_vehicle_1": "vehicles_1",
}

_MEDMNIST = {
    "bloodmnist": 8,
    "chestmnist": 2,
    "dermamnist": 7,
    "octmnist": 4,
    "organamnist": 11,
    "organcmnist": 11,
    "organsmnist": 11,
    "pathmnist": 9,
    "pneumoniamnist": 2,
    "retinamnist": 5,
    "tissuemnist": 8,
}

ROWS = (
    _DIGITS,
    _FASHION_MNIST,
    _CIFAR10,
    _CIFAR100,
    _STL10,
    _imagenet_like("imagenet", 1000),
    _imagenet_like("imagenet100", 100),
    _imagenet_like("custom", None),
    _TINY_IMAGENET,
    _photos("inat21", 10_000, "objects:INAT21"),
    _photos("aircraft", 100, "fine_grained:AIRCRAFT", downloads=True),
    _photos("flowers", 102, "fine_grained:FLOWERS", downloads=True),
    _photos("cars", 196, "fine_grained:CARS"),
    _photos("dogs", 120, "fine_grained:DOGS"),
    _photos("pets", 37, "fine_grained:PETS", downloads=True),
    # All nodes of its hierarchy, as the HEX release counts; 555 of them have images.
    _photos("nabirds", 1011, "birds:NABIRDS"),
    _photos("cub200", 200, "birds:CUB200"),
    # With the class BACKGROUND_Google.
    _photos("caltech101", 102, "objects:CALTECH101", downloads=True),
    _photos("food101", 101, "objects:FOOD101", downloads=True),
    _photos("inshop", 7982, "products:INSHOP"),
    _photos("modelnet40", 40, "products:MODELNET40"),
    _thumbnails("mnist", 10, "mnist", size=28, flip=False),
    _thumbnails("svhn", 10, "svhn", flip=False),
    _thumbnails("cifar10c", 10, "cifar10c", taxonomy=Taxonomy.flat(classes.CIFAR10)),
    *(
        _thumbnails(name, 5, "cifar100_part", taxonomy=Taxonomy.flat(classes.CIFAR100_GROUPS[group]))
        for name, group in CIFAR100_PARTS.items()
    ),
    *(
        _thumbnails(name, count, "medmnist", size=28, small_stem=name != "pathmnist")
        for name, count in _MEDMNIST.items()
    ),
)

# Second names: ours, and those of the HEX release.
ALIASES = {
    "image_folder": "custom",
    "INaturalist": "inat21",
    "blood": "bloodmnist",
    "cub": "cub200",
    "fgvc_aircraft": "aircraft",
    "oxford102flowers": "flowers",
    "oxfordpets": "pets",
    "stanford_cars": "cars",
    "stanford_dogs": "dogs",
}
