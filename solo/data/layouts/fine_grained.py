"""Aircraft, Flowers, Cars, Dogs, Pets, CUB-200 and NABirds: makes, breeds and species, in text and MATLAB files."""

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solo.data.labels.trees import Names, climb
from solo.data.layouts.layout import Layout, beside, lines, listed
from solo.data.storage.facts import class_folders
from solo.untrusted import regular

_MAKES_OF_TWO_WORDS = ("AM General", "Aston Martin", "Land Rover")


def car_path(name: str) -> Names:
    """`Audi S4 Sedan 2012` -> (`Audi`, `Audi S4 Sedan 2012`)."""
    return next((make for make in _MAKES_OF_TWO_WORDS if name.startswith(make)), name.split()[0]), name


# scipy may end the program if such a file is damaged, so another one reads it.
_READ = """
import json, sys
import numpy as np
from scipy.io import loadmat
found = np.atleast_1d(loadmat(sys.argv[1], squeeze_me=True)[sys.argv[2]]).reshape(-1)
plain = lambda values: [one.item() if getattr(one, "size", 0) == 1 else str(one) for one in values]
print(json.dumps({name: plain(found[name]) for name in found.dtype.names} if found.dtype.names else plain(found)))
"""


def _mat(path: Path, key: str) -> Any:
    """A variable of a MATLAB file: a list, or lists by field."""
    return _values(path, key, regular(path).stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _values(path: Path, key: str, changed: int) -> Any:
    command = [sys.executable, "-c", _READ, str(path), key]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        said = done.stderr.splitlines() if done.returncode > 0 else []
        raise ValueError(f"{path.name}: {said[-1] if said else 'it is damaged'}")
    return json.loads(done.stdout)


def _aircraft_classes(root: Path) -> dict[str, Names]:
    """Manufacturer, family and variant of each variant; the lists give one of them for each image."""
    data = root / "data"
    of = {level: dict(lines(data / f"images_{level}_trainval.txt", 2)) for level in AIRCRAFT.levels or ()}
    path_of = {variant: (of["manufacturer"][i], of["family"][i], variant) for i, variant in of["variant"].items()}
    return {variant: path_of[variant] for (variant,) in lines(data / "variants.txt")}


def _flower_images(root: Path, train: bool) -> Iterator[tuple[Path, int]]:
    labels = [int(label) for label in _mat(root / "imagelabels.mat", "labels")]
    folder = beside(root, "102flowers", "jpg")
    for split in ("trnid", "valid") if train else ("tstid",):
        for number in _mat(root / "setid.mat", split):
            yield folder / f"image_{int(number):05d}.jpg", labels[int(number) - 1]


def _car_images(root: Path, train: bool) -> Iterator[tuple[Path, int]]:
    name = "cars_train_annos.mat" if train else "cars_test_annos_withlabels.mat"
    found = _mat(beside(root, "devkit", name), "annotations")
    for fname, label in zip(found["fname"], found["class"], strict=True):
        yield root / ("cars_train" if train else "cars_test") / str(fname), int(label)


def dog_path(name: str) -> Names:
    """The name of a breed from its folder's: `n02085620-Chihuahua` -> `Chihuahua`."""
    return (name.partition("-")[2] or name,)


def _pet_classes(root: Path) -> dict[str, Names]:
    """`great_pyrenees_12` is a `Great Pyrenees`."""
    found = {label: (image, kind) for image, label, kind, _ in lines(root / "annotations" / "trainval.txt", 4)}
    breeds = {label: " ".join(word.title() for word in found[label][0].split("_")[:-1]) for label in found}
    return {label: ({"1": "cat", "2": "dog"}[found[label][1]], breeds[label]) for label in sorted(found, key=int)}


AIRCRAFT = Layout(
    title="FGVC-Aircraft",
    folder="fgvc-aircraft-2013b",
    url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
    markers=("data/variants.txt", "data/images_variant_trainval.txt", "data/images_variant_test.txt", "data/images"),
    classes=_aircraft_classes,
    images=listed("data/images_variant_{}.txt", "trainval", "test", "data/images/{}.jpg", columns=2),
    levels=("manufacturer", "family", "variant"),
    torchvision="FGVCAircraft",
)

# The two smaller parts, 10 images a class each, train; the 6,149 test images validate.
FLOWERS = Layout(
    title="Oxford 102 Flowers",
    folder="flowers-102",
    url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
    markers=("imagelabels.mat", "setid.mat"),
    # The classes have numbers only.
    classes=lambda root: {n: (str(n),) for n in sorted({*map(int, _mat(root / "imagelabels.mat", "labels"))})},
    images=_flower_images,
    torchvision="Flowers102",
)

CARS = Layout(
    title="Stanford Cars",
    folder="stanford_cars",
    url="https://github.com/pytorch/vision/issues/7545 (its own site is gone)",
    markers=("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_train"),
    classes=lambda root: dict(enumerate(map(car_path, _mat(root / "devkit/cars_meta.mat", "class_names")), start=1)),
    images=_car_images,
    levels=("make", "model"),
    of_folder=car_path,
)

DOGS = Layout(
    title="Stanford Dogs",
    folder="stanford_dogs",
    url="http://vision.stanford.edu/aditya86/ImageNetDogs",
    markers=("Images", "train_list.mat|lists/train_list.mat"),
    classes=lambda root: {folder: dog_path(folder) for folder in class_folders(root / "Images")},
    images=lambda root, train: (
        (root / "Images" / name, name.partition("/")[0])
        for name in _mat(beside(root, "lists", f"{'train' if train else 'test'}_list.mat"), "file_list")
    ),
    of_folder=dog_path,
)

PETS = Layout(
    title="Oxford-IIIT Pets",
    folder="oxford-iiit-pet",
    url="https://www.robots.ox.ac.uk/~vgg/data/pets",
    markers=("annotations/trainval.txt", "annotations/test.txt", "images"),
    classes=_pet_classes,
    images=listed("annotations/{}.txt", "trainval", "test", "images/{}.jpg", columns=4),
    levels=("species", "breed"),
    torchvision="OxfordIIITPet",
)


_BIRD_FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "images")


def cub_path(name: str) -> Names:
    """`001.Black_footed_Albatross` -> (`Albatross`, `Black footed Albatross`): birds of one last name are a group."""
    words = name.rpartition(".")[2].split("_")
    return words[-1], " ".join(words)


def _nabirds_classes(root: Path) -> dict[str, Names]:
    """The nodes that have images, in the order of their numbers: 555 of 1,011."""
    names = dict(lines(root / "classes.txt", 2))
    parents = {child: [parent] for child, parent in lines(root / "hierarchy.txt", 2)}
    used = sorted({label for _, label in lines(root / "image_class_labels.txt", 2)}, key=int)
    # The root, the only node without a parent, is no level.
    return {label: tuple(names[node] for node in climb(label, parents)[1:] or [label]) for label in used}


def _bird_images(root: Path, train: bool) -> Iterator[tuple[Path, str]]:
    labels = dict(lines(root / "image_class_labels.txt", 2))
    training = {image: {"1": True, "0": False}[flag] for image, flag in lines(root / "train_test_split.txt", 2)}
    for image, file in lines(root / "images.txt", 2):
        if training[image] == train:
            yield root / "images" / file, labels[image]


CUB200 = Layout(
    title="CUB-200-2011",
    folder="CUB_200_2011",
    url="https://www.vision.caltech.edu/datasets/cub_200_2011",
    markers=_BIRD_FILES,
    classes=lambda root: {number: cub_path(name) for number, name in lines(root / "classes.txt", 2)},
    images=_bird_images,
    levels=("group", "species"),
    of_folder=cub_path,
)

NABIRDS = Layout(
    title="NABirds",
    folder="nabirds",
    url="https://dl.allaboutbirds.org/nabirds",
    markers=(*_BIRD_FILES, "hierarchy.txt"),
    classes=_nabirds_classes,
    images=_bird_images,
    levels=None,  # as many as the hierarchy is deep
)
