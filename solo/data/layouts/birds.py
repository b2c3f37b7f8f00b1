"""CUB-200-2011 and NABirds: three text files that give each image an id, a class and a split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from solo.data.labels.trees import Names, climb
from solo.data.layouts.layout import Layout, lines

_MARKERS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "images")


def cub_path(name: str) -> Names:
    """`001.Black_footed_Albatross` -> (`Albatross`, `Black footed Albatross`): birds of one last name are a group."""
    words = name.rpartition(".")[2].split("_")
    return words[-1], " ".join(words)


def _cub_classes(root: Path) -> dict[str, Names]:
    return {number: cub_path(name) for number, name in lines(root / "classes.txt", 2)}


def _nabirds_classes(root: Path) -> dict[str, Names]:
    """The nodes that have images, in the order of their numbers: 555 of 1,011."""
    names = dict(lines(root / "classes.txt", 2))
    parents = {child: [parent] for child, parent in lines(root / "hierarchy.txt", 2)}
    used = sorted({label for _, label in lines(root / "image_class_labels.txt", 2)}, key=int)
    # The root, the only node without a parent, is no level.
    return {label: tuple(names[node] for node in climb(label, parents)[1:] or [label]) for label in used}


def _images(root: Path, train: bool) -> Iterator[tuple[Path, str]]:
    labels = dict(lines(root / "image_class_labels.txt", 2))
    training = {image: {"1": True, "0": False}[flag] for image, flag in lines(root / "train_test_split.txt", 2)}
    for image, file in lines(root / "images.txt", 2):
        if training[image] == train:
            yield root / "images" / file, labels[image]


CUB200 = Layout(
    title="CUB-200-2011",
    folder="CUB_200_2011",
    url="https://www.vision.caltech.edu/datasets/cub_200_2011",
    markers=_MARKERS,
    classes=_cub_classes,
    images=_images,
    levels=("group", "species"),
    of_folder=cub_path,
)

NABIRDS = Layout(
    title="NABirds",
    folder="nabirds",
    url="https://dl.allaboutbirds.org/nabirds",
    markers=(*_MARKERS, "hierarchy.txt"),
    classes=_nabirds_classes,
    images=_images,
    levels=None,  # as many as the hierarchy is deep
)
