"""Parts of ImageNet's folders with label trees of their own: BREEDS, tieredImageNet-H, ImageNet-3L."""

from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np

from solo.data.labels.trees import Names, climb
from solo.data.layouts.layout import Layout, beside, images_in, lines, read_json

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
    return Layout(title, folder, url, markers, classes, images, levels, of_folder=None)


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
    title="tieredImageNet-H",
    folder="tiered_imagenet_h",
    url=f"https://github.com/fiveai/making-better-mistakes (dataset_splits, data), {_WHERE}",
    markers=(_SPLITS, _ISA, *_IMAGENET),
    classes=_tiered_classes,
    images=_tiered_images,
    levels=None,
    of_folder=None,
)

IMAGENET_3L = Layout(
    title="ImageNet-3L",
    folder="imagenet_3l",
    url=f"https://github.com/pseulki/FreeGrainLearning (data), {_WHERE}",
    markers=(*(f"{name}|data/{name}" for name in map(_TABLE.format, ("train", "val"))), *_IMAGENET),
    classes=_three_level_classes,
    images=lambda root, train: ((root / image, path[-1]) for image, path in _three_levels(root, train)),
    levels=tuple(_LEVELS),
    of_folder=None,
)
