"""One row per data set: where it comes from, how large its images are, how they are normalised, what the labels mean.

A new one is a row here and a function in `solo.data.sources` (or anywhere else), or a `Layout` in `solo.data.layouts`.
"""

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from solo.data.layouts.layout import Layout
from solo.data.storage.facts import ReadingKeys
from solo.taxonomy import Taxonomy

Stats = tuple[float, ...]
SMALL = 64  # pixels of a side, up to which ResNets begin with a small stem


def wrong_statistics(mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, str]:
    """What is wrong with the mean and std, per channel, of images in [0, 1]: the name of the one and why."""
    found = {}
    for name, values, least in (("mean", mean, 0.0), ("std", std, 0.002)):
        # A std of 1 leaves the values as they are; half a step of 256 is the least that pictures have.
        if bad := [value for value in values or () if not least <= value <= 1]:
            hint = "divide by 255?" if all(1 < value <= 255 for value in bad) else f"give {least:g} to 1"
            found[name] = f"={list(values or ())}: these are values of images in [0, 1]; {hint}"
    return found


@dataclass(frozen=True)
class DatasetSpec:
    """All that is known of a data set before a single image is read."""

    name: str  # the value of `data.dataset`
    source: str  # `"module:function"`; the function's form is described in `solo.data.sources.images`
    channels: int  # 1 (grey) or 3 (RGB)
    size: int  # height and width of a validation image, in pixels
    mean: Stats  # per channel, of images in [0, 1], as the next three; used in pretraining
    std: Stats
    eval_mean: Stats | None = None  # for classification; None means `mean`, `std`
    eval_std: Stats | None = None
    taxonomy: Taxonomy | None = None  # the label tree; None if the class names come from folders
    num_classes: int | None = None  # as published, until the files are read; None: counted from the folders
    small_stem: bool = False  # whether ResNets get a stem for small images
    downloads: bool = False  # whether it is at hand, or fetched, without a path
    folders: bool = False  # whether `data.train_path` is a folder with one sub-folder per class
    resize: int | None = None  # of a validation image's shorter side, before `size` is cropped; None: it has that size
    crop_min_scale: float = 0.08  # how a classifier's training images may be cropped
    flip: bool = True  # whether they may be mirrored
    path_column: str | None = None  # of a table of own images, the column with their paths
    on_error: Literal["raise", "skip"] = "raise"  # what is done with files that can't be decoded
    layout: str | None = None  # `"module:NAME"` of a `Layout`, by which classes and label tree come from its own files
    reading: ReadingKeys = ReadingKeys()  # how files become images
    unknown_classes: Literal["raise", "drop", "label"] = "raise"  # label: images keep what they share with training's
    holdout: tuple[float, str | None] = (0.0, None)  # share of the training images that validate, and where these are
    side: int = 0  # of own training images, pixels of the median shorter side; 0: nobody looked
    notes: tuple[str, ...] = ()  # what was found in own images and has to be said, a line each
    format: str = "image_folder"  # how own images are stored, `data.format`
    nested: bool = False  # whether folders in folders are the levels of the tree of own images

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the label levels, coarse first; those of the published layout while its files are not read."""
        if self.taxonomy:
            return self.taxonomy.levels
        return (self.layout and layout_of(self).levels) or ("class",)


def layout_of(spec: DatasetSpec) -> Layout:
    """The layout that a row names."""
    return cast(Layout, pkgutil.resolve_name(cast(str, spec.layout)))


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# solo-learn normalises CIFAR-100 like this, too, when it classifies; published numbers depend on it.
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
_SMALL: dict[str, Any] = {"small_stem": True, "downloads": True}
_GREY: dict[str, Any] = {**_SMALL, "crop_min_scale": 0.5}
_TWO: dict[str, Any] = {**_SMALL, "eval_mean": _CIFAR[0], "eval_std": _CIFAR[1]}
_FOLDERS: dict[str, Any] = {"folders": True, "resize": 256}

# Class names and groups: public facts, in the order of the official labels.
_CIFAR10 = Taxonomy.flat("airplane automobile bird cat deer dog frog horse ship truck".split())
_STL10 = Taxonomy.flat("airplane bird car cat deer dog horse monkey ship truck".split())
_FASHION = Taxonomy.from_groups(
    "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(","),
    {
        "tops": ("T-shirt/top", "Pullover", "Dress", "Coat", "Shirt"),
        "bottoms": ("Trouser",),
        "shoes": ("Sandal", "Sneaker", "Ankle boot"),
        "bags": ("Bag",),
    },
)
# Superclasses and classes of CIFAR-100 as in its meta file (Krizhevsky, 2009). Both are sorted by name there.
_CIFAR100_GROUPS = {
    name: members.split()
    for name, members in {
        "aquatic_mammals": "beaver dolphin otter seal whale",
        "fish": "aquarium_fish flatfish ray shark trout",
        "flowers": "orchid poppy rose sunflower tulip",
        "food_containers": "bottle bowl can cup plate",
        "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
        "household_electrical_devices": "clock keyboard lamp telephone television",
        "household_furniture": "bed chair couch table wardrobe",
        "insects": "bee beetle butterfly caterpillar cockroach",
        "large_carnivores": "bear leopard lion tiger wolf",
        "large_man-made_outdoor_things": "bridge castle house road skyscraper",
        "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
        "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
        "medium_mammals": "fox porcupine possum raccoon skunk",
        "non-insect_invertebrates": "crab lobster snail spider worm",
        "people": "baby boy girl man woman",
        "reptiles": "crocodile dinosaur lizard snake turtle",
        "small_mammals": "hamster mouse rabbit shrew squirrel",
        "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
        "vehicles_1": "bicycle bus motorcycle pickup_truck train",
        "vehicles_2": "lawn_mower rocket streetcar tank tractor",
    }.items()
}
_CIFAR100 = Taxonomy.from_groups(
    sorted(name for members in _CIFAR100_GROUPS.values() for name in members), _CIFAR100_GROUPS, ("superclass", "class")
)


def _row(
    name: str, size: int, classes: Taxonomy | int | None, statistics: tuple[Stats, Stats], source: str, **more: Any
) -> DatasetSpec:
    """A row by its label tree or number of classes; source and layout below `solo.data`."""
    tree, count = (classes, classes.num_classes) if isinstance(classes, Taxonomy) else (None, classes)
    mean, std = statistics
    source = f"solo.data.sources.{source}"
    return DatasetSpec(name, source, len(mean), size, mean, std, taxonomy=tree, num_classes=count, **more)


def _photos(name: str, num_classes: int, layout: str, size: int = 224, **more: Any) -> DatasetSpec:
    """Photographs of any size, in their authors' layout."""
    more = {"resize": 256, "layout": f"solo.data.layouts.{layout}", **more}
    return _row(name, size, num_classes, more.pop("statistics", _IMAGENET), "images:published", **more)


def _thumbnails(name: str, classes: Taxonomy | int, source: str, size: int = 32, **more: Any) -> DatasetSpec:
    """Small images with CIFAR's constants, grey ones as RGB, as the HEX release has them."""
    return _row(name, size, classes, _CIFAR, f"small:{source}", **{**_SMALL, **more})


# The HEX release uses five superclasses of CIFAR-100 as data sets of their own, by their names there.
_PARTS = {name: _CIFAR100_GROUPS[name] for name in ("aquatic_mammals", "fish", "flowers", "trees")}
_PARTS["vehicle_1"] = _CIFAR100_GROUPS["vehicles_1"]
# Names of the MedMNIST collection, without their ending, and numbers of classes.
_MEDMNIST = {"blood": 8, "chest": 2, "derma": 7, "oct": 4, "organa": 11, "organc": 11, "organs": 11, "path": 9}
_MEDMNIST |= {"pneumonia": 2, "retina": 5, "tissue": 8}

ROWS = (
    _row(
        "digits", 16, Taxonomy.flat("0123456789", "digit"), ((0.3098,), (0.3476,)), "small:digits", flip=False, **_GREY
    ),
    _row("fashion_mnist", 28, _FASHION, ((0.2860,), (0.3530,)), "small:fashion_mnist", **_GREY),
    _row(
        *("glyphs", 32, 350, ((0.1496,), (0.3299,)), "small:glyphs"),
        **{**_GREY, "downloads": False, "flip": False, "layout": "solo.data.layouts.objects:GLYPHS"},
    ),
    _row("cifar10", 32, _CIFAR10, ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)), "small:cifar", **_TWO),
    _row("cifar100", 32, _CIFAR100, ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)), "small:cifar", **_TWO),
    _row("stl10", 96, _STL10, ((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)), "small:stl10", downloads=True),
    _row("imagenet", 224, 1000, _IMAGENET, "images:image_folder", **_FOLDERS),
    _row("imagenet100", 224, 100, _IMAGENET, "images:image_folder", **_FOLDERS),
    _row("custom", 224, None, _IMAGENET, "images:image_folder", **_FOLDERS),
    _photos("tinyimagenet200", 200, "objects:TINY_IMAGENET", size=64, statistics=_CIFAR, resize=None),
    _photos("inat21", 10_000, "objects:INAT21"),
    _photos("inat17", 5089, "objects:INAT17"),
    _photos("inat19", 1010, "objects:INAT19"),
    _photos("aircraft", 100, "fine_grained:AIRCRAFT", downloads=True),
    _photos("flowers", 102, "fine_grained:FLOWERS", downloads=True),
    _photos("cars", 196, "fine_grained:CARS"),
    _photos("dogs", 120, "fine_grained:DOGS"),
    _photos("pets", 37, "fine_grained:PETS", downloads=True),
    # All nodes of its hierarchy, as the HEX release counts; 555 of them have images.
    _photos("nabirds", 1011, "fine_grained:NABIRDS"),
    _photos("cub200", 200, "fine_grained:CUB200"),
    # With the class BACKGROUND_Google.
    _photos("caltech101", 102, "objects:CALTECH101", downloads=True),
    _photos("food101", 101, "objects:FOOD101", downloads=True),
    _photos("dtd", 47, "objects:DTD", downloads=True),
    _photos("sun397", 397, "objects:SUN397"),
    # The combinations of its 20 labels are counted when the lists are read.
    _photos("voc2007", 20, "objects:VOC2007"),
    _photos("living17", 68, "fine_grained:LIVING17"),
    _photos("entity13", 260, "fine_grained:ENTITY13"),
    _photos("entity30", 240, "fine_grained:ENTITY30"),
    _photos("tiered_imagenet_h", 608, "fine_grained:TIERED_IMAGENET_H"),
    _photos("imagenet_3l", 505, "fine_grained:IMAGENET_3L"),
    # Those that train; those that validate are counted when the lists are read.
    _photos("dyml_product", 1609, "objects:DYML_PRODUCT"),
    _photos("inshop", 7982, "objects:INSHOP"),
    _photos("modelnet40", 40, "objects:MODELNET40"),
    _thumbnails("mnist", 10, "mnist", size=28, flip=False),
    _thumbnails("svhn", 10, "svhn", flip=False),
    _thumbnails("cifar10c", _CIFAR10, "cifar10c"),
    *(_thumbnails(f"cifar100_{name}", Taxonomy.flat(classes), "cifar100_part") for name, classes in _PARTS.items()),
    *(
        _thumbnails(f"{name}mnist", count, "medmnist", size=28, small_stem=name != "path")
        for name, count in _MEDMNIST.items()
    ),
)

# Second names: ours, and those of the HEX release.
ALIASES = {"image_folder": "custom", "INaturalist": "inat21", "blood": "bloodmnist", "cub": "cub200"}
ALIASES |= {"fgvc_aircraft": "aircraft", "oxford102flowers": "flowers", "oxfordpets": "pets"}
ALIASES |= {"stanford_cars": "cars", "stanford_dogs": "dogs"}
