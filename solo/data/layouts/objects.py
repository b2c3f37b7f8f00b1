"""Tiny ImageNet, Caltech-101, Food-101 and iNaturalist 2021: pictures in one folder per class; glyphs: in one file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from solo.data.labels.trees import Names
from solo.data.layouts.layout import Layout, lines
from solo.data.storage.folders import class_folders, is_image_name

_CALTECH_TRAIN, _CALTECH_SEED = 30, 0
_GLYPHS = "glyphs.npz"


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if is_image_name(file.name))


def _by_name(names: Iterable[str]) -> dict[str, Names]:
    return {name: (name,) for name in names}


def _tiny_images(root: Path, train: bool) -> Iterator[tuple[Path, str]]:
    if train:
        for name in class_folders(root / "train"):
            for file in _images_in(root / "train" / name / "images"):
                yield file, name
        return
    for file_name, name, *_ in lines(root / "val" / "val_annotations.txt", 6):
        yield root / "val" / "images" / file_name, name


def _caltech_images(root: Path, train: bool) -> Iterator[tuple[Path, str]]:
    """There is no official split: 30 images a class train, as is usual, drawn once and for all; the others validate."""
    for name in class_folders(root / "101_ObjectCategories"):
        files = _images_in(root / "101_ObjectCategories" / name)
        drawn = set(random.Random(f"{_CALTECH_SEED} {name}").sample(files, min(_CALTECH_TRAIN, len(files))))
        for file in files:
            if (file in drawn) == train:
                yield file, name


def _food_images(root: Path, train: bool) -> Iterator[tuple[Path, str]]:
    listed = json.loads((root / "meta" / f"{'train' if train else 'test'}.json").read_text(encoding="utf-8"))
    for name, images in listed.items():
        for image in images:
            yield root / "images" / f"{image}.jpg", name


def inat_path(folder: str) -> Names:
    """The seven ranks of `00042_Animalia_Arthropoda_Insecta_Coleoptera_Carabidae_Carabus_auratus`.

    Raises:
        ValueError: the name has other parts.
    """
    number, *ranks = folder.split("_")
    if not number.isdigit() or len(ranks) != 7:
        raise ValueError(f"the folder {folder!r} is not named NUMBER_KINGDOM_PHYLUM_CLASS_ORDER_FAMILY_GENUS_EPITHET")
    return (*ranks[:6], f"{ranks[5]} {ranks[6]}")


TINY_IMAGENET = Layout(
    title="Tiny ImageNet",
    folder="tiny-imagenet-200",
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    markers=("wnids.txt", "train", "val/val_annotations.txt", "val/images"),
    classes=lambda root: _by_name(class_folders(root / "train")),
    images=_tiny_images,
)

CALTECH101 = Layout(
    title="Caltech-101",
    folder="caltech101",
    url="https://data.caltech.edu/records/mzrjq-6wc02",
    markers=("101_ObjectCategories",),
    classes=lambda root: _by_name(class_folders(root / "101_ObjectCategories")),
    images=_caltech_images,
    torchvision="Caltech101",
)

FOOD101 = Layout(
    title="Food-101",
    folder="food-101",
    url="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
    markers=("meta/classes.txt", "meta/train.json", "meta/test.json", "images"),
    classes=lambda root: _by_name(name for (name,) in lines(root / "meta" / "classes.txt")),
    images=_food_images,
    torchvision="Food101",
)

INAT21 = Layout(
    title="iNaturalist 2021",
    folder="inat21",
    url="https://github.com/visipedia/inat_comp/tree/master/2021",
    levels=("kingdom", "phylum", "class", "order", "family", "genus", "species"),
    of_folder=inat_path,
)


def _glyph_classes(root: Path) -> dict[int, Names]:
    with np.load(root / _GLYPHS) as file:
        script, group, character = (file[f"names{level}"].tolist() for level in range(3))
        above, top = file["parent2"].tolist(), file["parent1"].tolist()
    paths = [(script[top[parent]], group[parent], name) for parent, name in zip(above, character, strict=True)]
    return dict(enumerate(paths))


GLYPHS = Layout(
    title="glyphs",
    folder="glyphs",
    url="where you have it, or make it with benchmarks/make_glyphs.py",
    markers=(_GLYPHS,),
    classes=_glyph_classes,
    levels=("script", "group", "character"),
)
