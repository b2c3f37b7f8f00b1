"""Makes, breeds and species: Aircraft, Flowers, Cars, Dogs, Pets, CUB-200, NABirds; BREEDS and others in ImageNet."""

import functools
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np

from solo.data.labels.trees import Names, climb
from solo.data.layouts.layout import About, Layout, beside, images_in, lines, listed, read_json
from solo.data.storage.facts import class_folders
from solo.files import regular


def car_path(name: str) -> Names:
    """`Audi S4 Sedan 2012` -> (`Audi`, `Audi S4 Sedan 2012`)."""
    two_words = ("AM General", "Aston Martin", "Land Rover")
    return next((make for make in two_words if name.startswith(make)), name.split()[0]), name


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
    About("FGVC-Aircraft", "fgvc-aircraft-2013b", "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft"),
    markers=("data/variants.txt", "data/images_variant_trainval.txt", "data/images_variant_test.txt", "data/images"),
    classes=_aircraft_classes,
    images=listed("data/images_variant_{}.txt", "trainval", "test", "data/images/{}.jpg", columns=2),
    levels=("manufacturer", "family", "variant"),
    torchvision="FGVCAircraft",
)

# The two smaller parts, 10 images a class each, train; the 6,149 test images validate.
FLOWERS = Layout(
    About("Oxford 102 Flowers", "flowers-102", "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"),
    markers=("imagelabels.mat", "setid.mat"),
    # The classes have numbers only.
    classes=lambda root: {n: (str(n),) for n in sorted({*map(int, _mat(root / "imagelabels.mat", "labels"))})},
    images=_flower_images,
    torchvision="Flowers102",
)

CARS = Layout(
    About("Stanford Cars", "stanford_cars", "https://github.com/pytorch/vision/issues/7545 (its own site is gone)"),
    markers=("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_train"),
    classes=lambda root: dict(enumerate(map(car_path, _mat(root / "devkit/cars_meta.mat", "class_names")), start=1)),
    images=_car_images,
    levels=("make", "model"),
    of_folder=car_path,
)

DOGS = Layout(
    About("Stanford Dogs", "stanford_dogs", "http://vision.stanford.edu/aditya86/ImageNetDogs"),
    markers=("Images", "train_list.mat|lists/train_list.mat"),
    classes=lambda root: {folder: dog_path(folder) for folder in class_folders(root / "Images")},
    images=lambda root, train: (
        (root / "Images" / name, name.partition("/")[0])
        for name in _mat(beside(root, "lists", f"{'train' if train else 'test'}_list.mat"), "file_list")
    ),
    of_folder=dog_path,
)

PETS = Layout(
    About("Oxford-IIIT Pets", "oxford-iiit-pet", "https://www.robots.ox.ac.uk/~vgg/data/pets"),
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
    About("CUB-200-2011", "CUB_200_2011", "https://www.vision.caltech.edu/datasets/cub_200_2011"),
    markers=_BIRD_FILES,
    classes=lambda root: {number: cub_path(name) for number, name in lines(root / "classes.txt", 2)},
    images=_bird_images,
    levels=("group", "species"),
    of_folder=cub_path,
)

NABIRDS = Layout(
    About("NABirds", "nabirds", "https://dl.allaboutbirds.org/nabirds"),
    markers=(*_BIRD_FILES, "hierarchy.txt"),
    classes=_nabirds_classes,
    images=_bird_images,
    levels=None,  # as many as the hierarchy is deep
)

# Parts of ImageNet's folders with label trees of their own.
_SPLITS, _ISA = "splits_tieredImageNet-H", "tiered_imagenet_isa.txt"
_NODES, _EDGES, _LEAVES = "node_names.txt", "class_hierarchy.txt", "dataset_class_info.json"
_IMAGENET, _WHERE = ("train", "val"), "beside ImageNet's train and val"
_TABLE = "imagenet-F-{}.txt"
_LEVELS = {"basic": "basic", "subordinate": "subord", "fine": "finegrained"}  # level -> its word in names of files


def _tiered_classes(root: Path) -> dict[str, Names]:
    parents = {child: [parent] for parent, child in lines(root / _ISA, 2)}
    paths = {file.stem: climb(file.stem, parents) for file in sorted((root / _SPLITS / "train").glob("*.txt"))}
    while min(map(len, paths.values())) > 1 and len({path[0] for path in paths.values()}) == 1:
        paths = {name: path[1:] for name, path in paths.items()}  # what all are is no level
    return paths


def _tiered_images(root: Path, train: bool) -> Iterator[tuple[Path, str]]:
    for file in sorted((root / _SPLITS / ("train" if train else "test")).glob("*.txt")):
        for (name,) in lines(file):
            folder = "val" if name.startswith("ILSVRC2012_val") else "train"
            yield root / folder / file.stem / name, file.stem


def _split(root: Path, level: int, count: int, ancestor: str | None) -> dict[str, tuple[str, Names, Names]]:
    """Superclass -> its name, source classes, target classes, as BREEDS draws them for its split `rand` (seed 2).

    Superclasses are the nodes at a depth, the longest way from the root, with at least `count` classes below.
    """
    leaves = {wnid for _, wnid, _ in read_json(root / _LEAVES)}
    names = {line[0]: line[1].strip() for line in lines(root / _NODES, 2)}
    children = defaultdict[str, list[str]](list)
    for parent, child in lines(root / _EDGES, 2):
        children[parent].append(child)
    if not leaves:
        raise ValueError(f"{_LEAVES} names no class")
    order = [*TopologicalSorter(children).static_order()]  # children first; refuses circles
    below: dict[str, frozenset[str]] = {}
    for node in order:
        mine = (frozenset([child]) if child in leaves else below[child] for child in children[node])
        below[node] = frozenset().union({node} & leaves, *mine)
    depth, inside = {"n00001740": 0}, {ancestor}
    for node in reversed(order):
        if node in inside:
            inside.update(children[node])
        if node in depth:
            for child in filter(below.get, children[node]):
                depth[child] = max(depth.get(child, 0), depth[node] + 1)
    inside = inside if ancestor else set(depth)
    generator, found = np.random.RandomState(2), {}
    for node in sorted(node for node, at in depth.items() if at == level and node in inside):
        classes = sorted(below[node])
        if len(classes) >= count:
            drawn = generator.choice(classes, count, replace=False).tolist()
            found[node] = (names.get(node, node), tuple(drawn[: count // 2]), tuple(drawn[count // 2 :]))
    return found


def _breeds(title: str, folder: str, level: int, count: int, ancestor: str | None = None) -> Layout:
    """Source classes train and target classes validate: the superclasses are the same, their classes others."""

    def classes(root: Path) -> dict[str, Names]:
        found = _split(root, level, count, ancestor)
        return {wnid: (name, wnid) for name, source, target in found.values() for wnid in (*source, *target)}

    def images(root: Path, train: bool) -> Iterator[tuple[Path, str]]:
        for _, source, target in _split(root, level, count, ancestor).values():
            for wnid in source if train else target:
                yield from ((file, wnid) for file in images_in(root / ("train" if train else "val") / wnid))

    markers, levels = (_EDGES, _NODES, _LEAVES, *_IMAGENET), ("superclass", "class")
    url = f"https://github.com/MadryLab/BREEDS-Benchmarks (its class hierarchy), {_WHERE}"
    return Layout(About(title, folder, url), markers, classes, images, levels, of_folder=None)


def _three_levels(root: Path, train: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Image, and its three numbers; training images have a fourth, the label that ImageNet-F gives them."""
    for (line,) in lines(beside(root, "data", _TABLE.format("train" if train else "val"))):
        image, basic, subordinate, fine, *_ = line.split()
        yield image, (int(basic), int(subordinate), int(fine))


def _three_level_classes(root: Path) -> dict[int, Names]:
    found = [read_json(beside(root, "data", f"imagenet-3L-id_{word}_dic.json")) for word in _LEVELS.values()]
    names = [{int(number): str(name) for number, name in one.items()} for one in found]
    paths = {path[-1]: path for train in (True, False) for _, path in _three_levels(root, train)}
    return {fine: tuple(of[number] for of, number in zip(names, paths[fine], strict=True)) for fine in sorted(paths)}


LIVING17 = _breeds("BREEDS Living-17", "breeds", 5, 4, ancestor="n00004258")
ENTITY13 = _breeds("BREEDS Entity-13", "breeds", 3, 20)
ENTITY30 = _breeds("BREEDS Entity-30", "breeds", 4, 8)

TIERED_IMAGENET_H = Layout(
    About(
        "tieredImageNet-H",
        "tiered_imagenet_h",
        f"https://github.com/fiveai/making-better-mistakes (dataset_splits, data), {_WHERE}",
    ),
    markers=(_SPLITS, _ISA, *_IMAGENET),
    classes=_tiered_classes,
    images=_tiered_images,
    levels=None,
    of_folder=None,
)

IMAGENET_3L = Layout(
    About("ImageNet-3L", "imagenet_3l", f"https://github.com/pseulki/FreeGrainLearning (data), {_WHERE}"),
    markers=(*(f"{name}|data/{name}" for name in map(_TABLE.format, ("train", "val"))), *_IMAGENET),
    classes=_three_level_classes,
    images=lambda root, train: ((root / image, path[-1]) for image, path in _three_levels(root, train)),
    levels=tuple(_LEVELS),
    of_folder=None,
)
