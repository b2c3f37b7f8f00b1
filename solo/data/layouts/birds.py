"""CUB-200-2011 and NABirds: three text files that give each image an id, a class and a split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from solo.data.labels.trees import Names
from solo.data.layouts.layout import Layout, lines
from solo.errors import UserError

_MARKERS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "images")


def cub_path(name: str) -> Names:
    """`001.Black_footed_Albatross` -> (`Albatross`, `Black footed Albatross`): birds of one last name are a group."""
    words = name.rpartition(".")[2].split("_")
    return words[-1], " ".join(words)


def _cub_classes(root: Path) -> list[Names]:
    return [cub_path(name) for _, name in lines(root / "classes.txt", 2)]


def _cub_images(root: Path, train: bool) -> Iterator[tuple[Path, int]]:
    for file, label in _labelled(root, train):
        yield file, int(label) - 1


def _nabirds_classes(root: Path) -> list[Names]:
    names = dict(lines(root / "classes.txt", 2))
    parents = dict(lines(root / "hierarchy.txt", 2))
    return [tuple(names[node] for node in _climb(label, parents)) for label in _nabirds_labels(root)]


def _nabirds_labels(root: Path) -> list[str]:
    """The nodes that have images, in the order of their numbers: 555 of 1,011."""
    return sorted({label for _, label in lines(root / "image_class_labels.txt", 2)}, key=int)


def _climb(node: str, parents: dict[str, str]) -> list[str]:
    """The way from below the root to `node`; the root is the only node without a parent."""
    path = [node]
    while path[-1] in parents:
        path.append(parents[path[-1]])
        if len(path) > len(parents) + 1:
            raise UserError(f"hierarchy.txt goes around in a circle above class {node}; unpack the archive again")
    return path[-2::-1] if len(path) > 1 else path


def _nabirds_images(root: Path, train: bool) -> Iterator[tuple[Path, int]]:
    index = {label: i for i, label in enumerate(_nabirds_labels(root))}
    for file, label in _labelled(root, train):
        yield file, index[label]


def _labelled(root: Path, train: bool) -> Iterator[tuple[Path, str]]:
    labels = dict(lines(root / "image_class_labels.txt", 2))
    training = {image: flag == "1" for image, flag in lines(root / "train_test_split.txt", 2)}
    for image, file in lines(root / "images.txt", 2):
        if training[image] == train:
            yield root / "images" / file, labels[image]


CUB200 = Layout(
    title="CUB-200-2011",
    folder="CUB_200_2011",
    url="https://www.vision.caltech.edu/datasets/cub_200_2011",
    markers=_MARKERS,
    classes=_cub_classes,
    images=_cub_images,
    levels=("group", "species"),
    of_folder=cub_path,
)

NABIRDS = Layout(
    title="NABirds",
    folder="nabirds",
    url="https://dl.allaboutbirds.org/nabirds",
    markers=(*_MARKERS, "hierarchy.txt"),
    classes=_nabirds_classes,
    images=_nabirds_images,
    levels=None,  # as many as the hierarchy is deep
)
