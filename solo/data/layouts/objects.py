"""Pictures of things: Tiny ImageNet, Caltech-101, Food-101, DTD, SUN397, VOC, iNaturalist, glyphs; and of products.

These have levels as in Zhang et al., Use All The Labels (CVPR 2022), section 4: https://arxiv.org/abs/2204.13207.
"""

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from solo.data.labels.trees import Names
from solo.data.layouts.layout import About, Layout, beside, images_in, lines, listed, read_json
from solo.data.storage.facts import class_folders
from solo.files import regular

_GLYPHS = "glyphs.npz"


def _tiny_images(root: Path, train: bool) -> Iterable[tuple[Path, str]]:
    if train:
        names = class_folders(root / "train")
        return ((file, name) for name in names for file in images_in(root / "train" / name / "images"))
    rows = lines(root / "val" / "val_annotations.txt", 6)
    return ((root / "val" / "images" / file, name) for file, name, *_ in rows)


def _caltech_images(root: Path, train: bool) -> Iterator[tuple[Path, str]]:
    """There is no official split: 30 images a class train, as is usual, drawn once and for all; the others validate."""
    for name in class_folders(root / "101_ObjectCategories"):
        files = images_in(root / "101_ObjectCategories" / name)
        drawn = set(random.Random(f"0 {name}").sample(files, min(30, len(files))))
        for file in files:
            if (file in drawn) == train:
                yield file, name


def inat_path(folder: str) -> Names:
    """The seven ranks of `00042_Animalia_Arthropoda_Insecta_Coleoptera_Carabidae_Carabus_auratus`."""
    number, *ranks = folder.split("_")
    if not number.isdigit() or len(ranks) != 7:
        raise ValueError(f"the folder {folder!r} is not named NUMBER_KINGDOM_PHYLUM_CLASS_ORDER_FAMILY_GENUS_EPITHET")
    return (*ranks[:6], f"{ranks[5]} {ranks[6]}")


_RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")


def _inat(year: int, levels: Names) -> Layout:
    """Lists in the format of COCO; a `categories.json` has the names that the lists of 2019 hide."""

    def classes(root: Path) -> dict[int, Names]:
        own = (root / "categories.json").is_file()
        found = read_json(root / "categories.json") if own else read_json(root / f"train{year}.json")["categories"]
        return {one["id"]: (*(one[level] for level in levels[:-1]), one["name"]) for one in found}

    def images(root: Path, train: bool) -> Iterator[tuple[Path, int]]:
        listed = read_json(root / f"{'train' if train else 'val'}{year}.json")
        label = {one["image_id"]: one["category_id"] for one in listed["annotations"]}
        return ((root / one["file_name"], label[one["id"]]) for one in listed["images"])

    url = f"https://github.com/visipedia/inat_comp/tree/master/{year}"
    markers = (f"train{year}.json", f"val{year}.json")
    about = About(f"iNaturalist {year}", f"inat{year}", url)
    return Layout(about, markers, classes, images, levels, of_folder=None)


_VOC = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person".split()
_VOC += ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]


def _voc_images(root: Path, train: bool) -> Iterator[tuple[Path, str]]:
    """`1` has the label, `-1` has it not, of `0` nobody can be asked to see it."""
    found, listed = dict[str, list[str]](), Counter[str]()
    for label in _VOC:
        for image, sign in lines(root / "ImageSets" / "Main" / f"{label}_{'trainval' if train else 'test'}.txt", 2):
            found.setdefault(image, []).extend({"1": [label], "0": [f"?{label}"], "-1": []}[sign])
            listed[image] += 1
    if short := [image for image, number in listed.items() if number != len(_VOC)]:
        raise ValueError(f"{short[0]} is in {listed[short[0]]} of the {len(_VOC)} lists")
    return ((root / "JPEGImages" / f"{image}.jpg", "+".join(labels)) for image, labels in found.items())


INAT17 = _inat(2017, ("supercategory", "species"))
INAT19 = _inat(2019, (*_RANKS, "species"))

# The first of its ten official splits, as is usual.
DTD = Layout(
    About("DTD", "dtd", "https://www.robots.ox.ac.uk/~vgg/data/dtd"),
    markers=("labels/train1.txt", "labels/val1.txt", "labels/test1.txt", "images"),
    classes=lambda root: {name: (name,) for name in class_folders(root / "images")},
    images=listed("labels/{}1.txt", "train val", "test", "images/{}"),
    torchvision="DTD",
)

# The first of its ten official splits, as is usual.
SUN397 = Layout(
    About("SUN397", "SUN397", "https://vision.princeton.edu/projects/2010/SUN (with Partitions.zip unpacked there)"),
    markers=("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
    # `/a/apartment_building/outdoor` is the class `apartment_building/outdoor`.
    classes=lambda root: {name[1:]: (name[3:],) for (name,) in lines(root / "ClassName.txt")},
    images=listed("{}_01.txt", "Training", "Testing"),
    of_folder=None,
)

VOC2007 = Layout(
    About("PASCAL VOC 2007", "VOCdevkit/VOC2007", "http://host.robots.ox.ac.uk/pascal/VOC/voc2007 (trainval and test)"),
    markers=("ImageSets/Main/person_trainval.txt", "ImageSets/Main/person_test.txt", "JPEGImages"),
    images=_voc_images,
    several=tuple(_VOC),
    of_folder=None,
)

TINY_IMAGENET = Layout(
    About("Tiny ImageNet", "tiny-imagenet-200", "http://cs231n.stanford.edu/tiny-imagenet-200.zip"),
    markers=("wnids.txt", "train", "val/val_annotations.txt", "val/images"),
    classes=lambda root: {name: (name,) for name in class_folders(root / "train")},
    images=_tiny_images,
)

CALTECH101 = Layout(
    About("Caltech-101", "caltech101", "https://data.caltech.edu/records/mzrjq-6wc02"),
    markers=("101_ObjectCategories",),
    classes=lambda root: {name: (name,) for name in class_folders(root / "101_ObjectCategories")},
    images=_caltech_images,
    torchvision="Caltech101",
)

FOOD101 = Layout(
    About("Food-101", "food-101", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101"),
    markers=("meta/classes.txt", "meta/train.json", "meta/test.json", "images"),
    classes=lambda root: {name: (name,) for (name,) in lines(root / "meta" / "classes.txt")},
    images=lambda root, train: (
        (root / "images" / f"{image}.jpg", name)
        for name, images in read_json(root / "meta" / f"{'train' if train else 'test'}.json").items()
        for image in images
    ),
    torchvision="Food101",
)

INAT21 = Layout(
    About("iNaturalist 2021", "inat21", "https://github.com/visipedia/inat_comp/tree/master/2021"),
    levels=(*_RANKS, "species"),
    of_folder=inat_path,
)


def _glyph_classes(root: Path) -> dict[int, Names]:
    with np.load(regular(root / _GLYPHS)) as file:
        script, group, character = (file[f"names{level}"].tolist() for level in range(3))
        above, top = file["parent2"].tolist(), file["parent1"].tolist()
    names = enumerate(zip(above, character, strict=True))
    return {number: (script[top[parent]], group[parent], name) for number, (parent, name) in names}


GLYPHS = Layout(
    About("glyphs", "glyphs", "where you have it, or make it with benchmarks/make_glyphs.py"),
    markers=(_GLYPHS,),
    classes=_glyph_classes,
    levels=("script", "group", "character"),
)

_PARTITION = "list_eval_partition.txt"
DYML_LEVELS = ("coarse", "middle", "fine")


def _inshop_rows(root: Path) -> Iterator[tuple[Path, Names, str]]:
    """Image; category, product, variation (mostly colour: 02 of `02_1_front.jpg`); `train`, `query` or `gallery`."""
    file, folder = beside(root, "Eval", _PARTITION), beside(root, "Img", "img").parent
    for (line,) in itertools.islice(lines(file), 2, None):  # behind their number and the columns' names
        image, _, status = line.split()
        *_, category, product, name = image.split("/")
        if status not in ("train", "query", "gallery"):
            raise ValueError(f"{file.name}: {image} is for {status!r}")
        path = category, product, f"{product} {name.partition('_')[0]}"
        yield folder / image, path, status


def _views(root: Path, train: bool) -> Iterator[tuple[Path, Names]]:
    """Image, category > model; `airplane/train/airplane_0001.*.png` are views of airplane_0001."""
    for category in class_folders(root):
        for file in images_in(root / category / ("train" if train else "test")):
            found = re.match(rf"{re.escape(category)}_\d+", file.name)
            yield file, (category, found[0] if found else file.stem.rpartition("_")[0])


def _dyml_rows(root: Path, train: bool) -> Iterator[tuple[Path, Names]]:
    """Images with their path; in the published lists the heading ends in the first image, `.., fine_id0.jpg, 3`."""
    folder = root / ("train" if train else "mini-bmk_all_in_one")
    first, *rest = (line for (line,) in lines(folder / "label.csv"))
    for row in (first.rpartition("_id")[2], *rest):
        if row:
            name, *numbers = (cell.strip() for cell in row.split(","))
            coarse, middle, fine = (f"{level} {number}" for level, number in zip(DYML_LEVELS, numbers, strict=True))
            yield folder / "imgs" / name, (coarse, middle, fine)


# The query and gallery images validate.
INSHOP = Layout(
    About(
        "DeepFashion In-Shop",
        "In-shop Clothes Retrieval Benchmark",
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
    ),
    markers=(f"Eval/{_PARTITION}|{_PARTITION}", "Img/img|img"),
    images=lambda root, train: ((file, path) for file, path, to in _inshop_rows(root) if (to == "train") == train),
    levels=("category", "product", "variation"),
    queries=lambda root: (file for file, _, to in _inshop_rows(root) if to == "query"),
)

MODELNET40 = Layout(
    About("ModelNet40 (rendered views)", "modelnet40_images_new_12x", "https://github.com/jongchyisu/mvcnn_pytorch"),
    markers=("airplane/train", "airplane/test"),
    images=_views,
    levels=("category", "model"),
)

# Its classes that validate are others than those that train.
DYML_PRODUCT = Layout(
    About("DyML-Product", "dyml_product", "https://github.com/SupetZYK/DynamicMetricLearning"),
    markers=("train/label.csv", "train/imgs", "mini-bmk_all_in_one/label.csv"),
    images=_dyml_rows,
    levels=DYML_LEVELS,
    of_folder=None,
)
