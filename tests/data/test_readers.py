"""A miniature of each published layout on disk, read back: files, classes, splits, levels."""

from __future__ import annotations

import json
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets as tv

from solo.args.check_run import check_folders
from solo.data.catalogue.registry import DATASETS, get_spec, layout_of, obtain, query_images, validation_path, with_tree
from solo.data.sources import small
from solo.data.sources.images import load
from solo.errors import UserError

Rows = list[list[Any]]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (len(path.name), 0, 0)).save(path)


def text(path: Path, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def class_folders(root: Path, split: str, names: list[str], images: list[int]) -> None:
    for name, count in zip(names, images, strict=True):
        for i in range(count):
            picture(root / split / name / f"{split}_{i}.jpg")


def bird_lists(root: Path, rows: list[tuple[str, str, str]], classes: list[str]) -> None:
    """Rows of image file, class number, 1 for training."""
    ids = [f"id-{i}" for i in range(len(rows))]
    columns = {"images": 0, "image_class_labels": 1, "train_test_split": 2}
    for name, column in columns.items():
        text(root / f"{name}.txt", [f"{i} {row[column]}" for i, row in zip(ids, rows, strict=True)])
    text(root / "classes.txt", classes)
    for file, *_ in rows:
        picture(root / "images" / file)


def cub200(root: Path) -> None:
    rows = [
        ("001.Black_Albatross/a.jpg", "1", "1"),
        ("003.Ani/b.jpg", "3", "0"),
        ("002.Sooty_Albatross/c.jpg", "2", "1"),
    ]
    bird_lists(root, rows, ["1 001.Black_Albatross", "2 002.Sooty_Albatross", "3 003.Ani"])


def nabirds(root: Path) -> None:
    """Branches of different depth; 3 is a species without sub-species, 4 and 5 are of one species."""
    names = [
        "0 Birds",
        "1 Ducks",
        "2 Loons and allies",
        "3 Loon",
        "4 Mallard (Male)",
        "5 Mallard (Female)",
        "6 Mallard",
    ]
    bird_lists(root, [("0004/a.jpg", "4", "1"), ("0003/b.jpg", "3", "1"), ("0005/c.jpg", "5", "0")], names)
    text(root / "hierarchy.txt", ["1 0", "2 0", "3 2", "6 1", "4 6", "5 6"])


def aircraft(root: Path) -> None:
    data = root / "data"
    variants, families = (
        {"1": "747-100", "2": "DC-10", "3": "747-200"},
        {"1": "Boeing 747", "2": "DC-10", "3": "Boeing 747"},
    )
    makers = {"1": "Boeing", "2": "McDonnell Douglas", "3": "Boeing"}
    for level, of in (("variant", variants), ("family", families), ("manufacturer", makers)):
        text(data / f"images_{level}_trainval.txt", [f"{i} {name}" for i, name in of.items()])
    text(data / "images_variant_test.txt", ["4 DC-10"])
    text(data / "variants.txt", ["747-100", "747-200", "DC-10"])
    for i in "1234":
        picture(data / "images" / f"{i}.jpg")


def flowers(root: Path) -> None:
    root.mkdir()
    savemat(root / "imagelabels.mat", {"labels": np.array([[2, 1, 2, 1]])})
    splits = {"trnid": [[1]], "valid": [[4]], "tstid": [[2, 3]]}
    savemat(root / "setid.mat", {name: np.array(ids) for name, ids in splits.items()})
    for i in range(1, 5):
        picture(root / "jpg" / f"image_{i:05d}.jpg")


def car_annotations(path: Path, rows: list[tuple[str, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = [("bbox_x1", object), ("class", object), ("fname", object)]
    savemat(path, {"annotations": np.array([[(0, label, name) for name, label in rows]], dtype=kinds)})


def cars(root: Path) -> None:
    names = ["Audi S4 Sedan 2012", "Land Rover LR2 SUV 2012", "Audi R8 Coupe 2012"]
    car_annotations(root / "devkit" / "cars_train_annos.mat", [("1.jpg", 3), ("2.jpg", 1)])
    car_annotations(root / "cars_test_annos_withlabels.mat", [("1.jpg", 2)])
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([names], dtype=object)})
    for file in ("cars_train/1.jpg", "cars_train/2.jpg", "cars_test/1.jpg"):
        picture(root / file)


def dogs(root: Path) -> None:
    root.mkdir()
    lists = {"train": ["n02-Pug/n02_1.jpg", "n01-Toy_terrier/n01_1.jpg"], "test": ["n02-Pug/n02_2.jpg"]}
    for split, files in lists.items():
        column = np.array([[file] for file in files], dtype=object)
        savemat(root / f"{split}_list.mat", {"file_list": column, "labels": np.ones((len(files), 1))})
        for file in files:
            picture(root / "Images" / file)


def pets(root: Path) -> None:
    text(root / "annotations" / "trainval.txt", ["great_pyrenees_1 2 2 1", "Birman_7 1 1 1"])
    text(root / "annotations" / "test.txt", ["Birman_8 1 1 1"])
    for name in ("great_pyrenees_1", "Birman_7", "Birman_8"):
        picture(root / "images" / f"{name}.jpg")


def food101(root: Path) -> None:
    text(root / "meta" / "classes.txt", ["apple_pie", "waffles"])
    (root / "meta" / "train.json").write_text(json.dumps({"waffles": ["waffles/1"], "apple_pie": ["apple_pie/2"]}))
    (root / "meta" / "test.json").write_text(json.dumps({"waffles": ["waffles/3"]}))
    for name in ("waffles/1", "apple_pie/2", "waffles/3"):
        picture(root / "images" / f"{name}.jpg")


def caltech101(root: Path) -> None:
    for name, count in (("BACKGROUND_Google", 3), ("ant", 32)):
        class_folders(root, "101_ObjectCategories", [name], [count])


def tinyimagenet200(root: Path) -> None:
    text(root / "wnids.txt", ["n02", "n01"])
    for name in ("n01", "n02"):
        picture(root / "train" / name / "images" / f"{name}_0.JPEG")
    text(root / "val" / "val_annotations.txt", ["val_0.JPEG\tn02\t0\t0\t9\t9"])
    picture(root / "val" / "images" / "val_0.JPEG")


def inat21(root: Path) -> None:
    beetle = "Animalia_Arthropoda_Insecta_Coleoptera_Carabidae_Carabus"
    names = [
        f"00000_{beetle}_auratus",
        f"00001_{beetle}_nitens",
        "00002_Plantae_Tracheophyta_Liliopsida_Poales_Poaceae_Poa_annua",
    ]
    class_folders(root, "2021_train_mini", names, [1, 1, 1])
    class_folders(root, "2021_valid", names, [0, 1, 0])
    for name in names:
        (root / "2021_valid" / name).mkdir(exist_ok=True)


def inshop(root: Path) -> None:
    rows = [
        "img/WOMEN/Dresses/id_00000002/02_1_front.jpg    id_00000002    train",
        "img/WOMEN/Dresses/id_00000002/03_2_side.jpg     id_00000002    train",
        "img/MEN/Denim/id_00000009/01_1_front.jpg        id_00000009    query",
        "img/MEN/Denim/id_00000009/01_2_side.jpg         id_00000009    gallery",
    ]
    text(root / "Eval" / "list_eval_partition.txt", ["4", "image_name item_id evaluation_status", *rows])
    for row in rows:
        picture(root / "Img" / row.split()[0])


def modelnet40(root: Path) -> None:
    for name in (
        "airplane/train/airplane_0001_001",
        "airplane/train/airplane_0001_002",
        "airplane/test/airplane_0627_001",
        "tv_stand/train/tv_stand_0003.obj.shaded_v001",
        "tv_stand/test/tv_stand_0300.obj.shaded_v001",
    ):
        picture(root / f"{name}.png")


# name -> (maker, training targets, validation targets, levels, path of the first training image)
def inat17(root: Path, year: int = 2017, **ranks: str) -> None:
    categories = [{"id": 3, "name": "Apis", "supercategory": "Insecta", **ranks}]
    categories += [{"id": 1, "name": "Bufo", "supercategory": "Amphibia", **ranks}]
    for split, images in (("train", [(7, 1), (8, 3)]), ("val", [(9, 3)])):
        listed = {
            "images": [{"id": i, "file_name": f"images/{label}/{i}.jpg"} for i, label in images],
            "annotations": [{"image_id": i, "category_id": label} for i, label in images],
            "categories": categories,
        }
        text(root / f"{split}{year}.json", [json.dumps(listed)])
        for i, label in images:
            picture(root / "images" / str(label) / f"{i}.jpg")


def inat19(root: Path) -> None:
    """The names that the lists hide are in a file of their own."""
    ranks = ("kingdom", "phylum", "class", "order", "family", "genus")
    inat17(root, 2019, **dict.fromkeys(ranks, "hidden"))
    known = [
        {"id": i, "name": name, **{rank: f"{rank} {i // 2}" for rank in ranks}} for i, name in ((1, "b"), (3, "a"))
    ]
    text(root / "categories.json", [json.dumps(known)])


def dtd(root: Path) -> None:
    for split, images in (("train", ["banded/a.jpg"]), ("val", ["woven/b.jpg"]), ("test", ["woven/c.jpg"])):
        text(root / "labels" / f"{split}1.txt", images)
        for image in images:
            picture(root / "images" / image)


def sun397(root: Path) -> None:
    text(root / "ClassName.txt", ["/a/abbey", "/h/house/outdoor"])
    images = ["/h/house/outdoor/x.jpg", "/a/abbey/y.jpg", "/a/abbey/z.jpg"]
    text(root / "Training_01.txt", images[:2])
    text(root / "Testing_01.txt", images[2:])
    for image in images:
        picture(root / image[1:])


def voc2007(root: Path) -> None:
    for label in layout_of(get_spec("voc2007")).several:
        signs = {"person": ("1", "-1", "1"), "dog": ("1", "0", "-1")}.get(label, ("-1", "-1", "-1"))
        for split, rows in (("trainval", [("01", signs[0]), ("02", signs[1])]), ("test", [("03", signs[2])])):
            text(root / "ImageSets" / "Main" / f"{label}_{split}.txt", [f"{image} {sign}" for image, sign in rows])
    for image in ("01", "02", "03"):
        picture(root / "JPEGImages" / f"{image}.jpg")


def breeds(root: Path) -> None:
    """Two kinds of living and two of other things at each depth, of 20 classes each below a chain of single nodes."""
    edges, leaves = [], []
    for top, kind in (("n00004258", "living"), ("n00000009", "other")):
        edges.append(f"n00001740 {top}")
        for half in "ab":
            chain = [top, *(f"{kind}{half}{depth}" for depth in range(4))]  # depths 2 to 5
            edges += [f"{upper} {lower}" for upper, lower in zip(chain, chain[1:], strict=False)]
            leaves += [(chain[-1], f"n{kind}{half}{i:02d}") for i in range(20)]
    edges += [f"{parent} {leaf}" for parent, leaf in leaves]
    text(root / "class_hierarchy.txt", edges)
    text(root / "node_names.txt", [f"{child}\tthe {child}" for _, child in map(str.split, edges)])
    text(root / "dataset_class_info.json", [json.dumps([[i, leaf, leaf] for i, (_, leaf) in enumerate(leaves)])])
    for split in ("train", "val"):
        class_folders(root, split, [leaf for _, leaf in leaves], [1] * len(leaves))


def tiered_imagenet_h(root: Path) -> None:
    text(root / "tiered_imagenet_isa.txt", ["thing animal", "animal n02", "animal n03", "thing plant", "plant n01"])
    for split, images in {
        "train": [("n01", "n01_1.JPEG"), ("n02", "n02_5.JPEG"), ("n03", "n03_1.JPEG")],
        "test": [("n02", "ILSVRC2012_val_00000001.JPEG")],
    }.items():
        for wnid, image in images:
            text(root / "splits_tieredImageNet-H" / split / f"{wnid}.txt", [image])
            picture(root / ("train" if split == "train" else "val") / wnid / image)


def imagenet_3l(root: Path) -> None:
    for file, names in (("basic", "dog bird"), ("subord", "hound gull"), ("finegrained", "beagle tern skua")):
        text(root / "data" / f"imagenet-3L-id_{file}_dic.json", [json.dumps(dict(enumerate(names.split())))])
    rows = ["train/n3/a.JPEG 1 1 2 1", "train/n1/b.JPEG 0 0 0 147", "val/n2/c.JPEG 1 1 1"]
    text(root / "data" / "imagenet-F-train.txt", rows[:2])
    text(root / "data" / "imagenet-F-val.txt", rows[2:])
    for row in rows:
        picture(root / row.split()[0])


def dyml_product(root: Path) -> None:
    heading = "fname, coarse_id, middle_id, fine_id"
    for folder, rows in {
        "train": ["0.jpg, 2, 5, 9", "1.jpg, 1, 4, 7"],
        "mini-bmk_all_in_one": ["0.jpg, 2, 6, 8"],
    }.items():
        text(root / folder / "label.csv", [heading + rows[0], *rows[1:]])
        for row in rows:
            picture(root / folder / "imgs" / row.partition(",")[0])


LAYOUTS: dict[str, tuple[Callable[[Path], None], list[int], list[int], tuple[str, ...], tuple[str, ...]]] = {
    "cub200": (cub200, [0, 1], [2], ("group", "species"), ("Albatross", "Black Albatross")),
    "nabirds": (nabirds, [0, 2], [1], ("level1", "level2", "level3"), ("Ducks", "Mallard", "Mallard (Male)")),
    "aircraft": (aircraft, [0, 2, 1], [2], ("manufacturer", "family", "variant"), ("Boeing", "Boeing 747", "747-100")),
    "flowers": (flowers, [1, 0], [0, 1], ("class",), ("2",)),
    "cars": (cars, [2, 0], [1], ("make", "model"), ("Audi", "Audi R8 Coupe 2012")),
    "dogs": (dogs, [1, 0], [1], ("class",), ("Pug",)),
    "pets": (pets, [1, 0], [0], ("species", "breed"), ("dog", "Great Pyrenees")),
    "food101": (food101, [1, 0], [1], ("class",), ("waffles",)),
    "caltech101": (caltech101, [0] * 3 + [1] * 30, [1, 1], ("class",), ("BACKGROUND_Google",)),
    "tinyimagenet200": (tinyimagenet200, [0, 1], [1], ("class",), ("n01",)),
    "inat21": (
        inat21,
        [0, 1, 2],
        [1],
        ("kingdom", "phylum", "class", "order", "family", "genus", "species"),
        ("Animalia", "Arthropoda", "Insecta", "Coleoptera", "Carabidae", "Carabus", "Carabus auratus"),
    ),
    "inshop": (
        inshop,
        [1, 2],
        [0, 0],
        ("category", "product", "variation"),
        ("Dresses", "id_00000002", "id_00000002 02"),
    ),
    "modelnet40": (modelnet40, [0, 0, 2], [1, 3], ("category", "model"), ("airplane", "airplane_0001")),
    "inat17": (inat17, [1, 0], [0], ("supercategory", "species"), ("Amphibia", "Bufo")),
    "inat19": (
        inat19,
        [0, 1],
        [1],
        ("kingdom", "phylum", "class", "order", "family", "genus", "species"),
        (*(f"{rank} 0" for rank in ("kingdom", "phylum", "class", "order", "family", "genus")), "b"),
    ),
    "dtd": (dtd, [0, 1], [1], ("class",), ("banded",)),
    "sun397": (sun397, [1, 0], [0], ("class",), ("house/outdoor",)),
    "voc2007": (voc2007, [1, 0], [2], ("class",), ("dog+person",)),
    "living17": (breeds, [0, 1, 4, 5], [2, 3, 6, 7], ("superclass", "class"), ("the livinga3", "nlivinga12")),
    "entity13": (
        breeds,
        [*range(10), *range(20, 30), *range(40, 50), *range(60, 70)],
        [*range(10, 20), *range(30, 40), *range(50, 60), *range(70, 80)],
        ("superclass", "class"),
        ("the livinga1", "nlivinga12"),
    ),
    "entity30": (
        breeds,
        [*range(4), *range(8, 12), *range(16, 20), *range(24, 28)],
        [*range(4, 8), *range(12, 16), *range(20, 24), *range(28, 32)],
        ("superclass", "class"),
        ("the livinga2", "nlivinga12"),
    ),
    "tiered_imagenet_h": (tiered_imagenet_h, [0, 1, 2], [1], ("level1", "level2"), ("plant", "n01")),
    "imagenet_3l": (imagenet_3l, [2, 0], [1], ("basic", "subordinate", "fine"), ("bird", "gull", "skua")),
    "dyml_product": (dyml_product, [1, 0], [2], ("coarse", "middle", "fine"), ("coarse 2", "middle 5", "fine 9")),
}


def test_lists_that_are_missing_are_not_made_up_from_class_folders(tmp_path: Path) -> None:
    """ImageNet's folders without the hierarchy are a thousand classes, not Living-17."""
    breeds(tmp_path)
    (tmp_path / "class_hierarchy.txt").unlink()
    with pytest.raises(UserError, match="no BREEDS Living-17 in .*class_hierarchy.txt"):
        load(get_spec("living17"), "train", tmp_path, download=False)


def test_queries_of_inshop(tmp_path: Path) -> None:
    inshop(tmp_path)
    (query,) = query_images(get_spec("inshop"), str(tmp_path)) or ()
    assert query in {file for file, _ in load(get_spec("inshop"), "val", tmp_path).samples}  # type: ignore[attr-defined]
    assert query.endswith("01_1_front.jpg") and query_images(get_spec("cub200"), str(tmp_path)) is None


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.sampled(2)
@pytest.mark.parametrize("below", [False, True], ids=["given", "below the given"])
def test_published_layout(tmp_path: Path, name: str, below: bool) -> None:
    make, train_targets, val_targets, levels, first_path = LAYOUTS[name]
    root = tmp_path / layout_of(get_spec(name)).about.folder
    make(root)
    path = tmp_path if below else root
    spec = with_tree(get_spec(name), path)
    assert spec.taxonomy is not None and spec.levels == levels
    assert get_spec(name).levels == (("class",) if name in ("nabirds", "tiered_imagenet_h") else levels)
    train, val = (load(spec, split, path, download=False, levels=True) for split in ("train", "val"))
    assert train.targets == train_targets and val.targets == val_targets  # type: ignore[attr-defined]
    assert spec.num_classes == spec.taxonomy.num_classes > max(train_targets + val_targets)
    image, label = train[0]
    assert image.size == (8, 8) and image.mode == "RGB"
    labels = label.tolist() if isinstance(label, torch.Tensor) else [label]
    assert tuple(spec.taxonomy.names[level][node] for level, node in enumerate(labels)) == first_path
    assert [val[i][0].size for i in range(len(val_targets))] == [(8, 8)] * len(val_targets)


def test_branches_of_nabirds_end_at_different_depths(tmp_path: Path) -> None:
    nabirds(tmp_path)
    spec = with_tree(get_spec("nabirds"), tmp_path)
    tree = spec.taxonomy
    assert tree is not None and tree.is_ragged
    assert tree.class_names == ("Mallard (Male)", "Mallard (Female)", "Loon")
    labels = load(spec, "train", tmp_path, levels=True)[1][1].tolist()
    assert labels[-1] == -1 and tree.names[1][labels[1]] == "Loon" and tree.names[0][labels[0]] == "Loons and allies"


def test_validation_path_is_found_where_both_splits_are_kept(tmp_path: Path) -> None:
    cub200(tmp_path / "lists")
    class_folders(tmp_path / "folders", "train", ["a", "b"], [1, 1])
    class_folders(tmp_path / "folders", "test", ["a", "b"], [1, 1])
    spec = get_spec("cub200")
    together = [str(tmp_path / name) for name in ("lists", "folders")]
    assert [validation_path(spec, path) for path in together] == together
    assert validation_path(spec, str(tmp_path / "folders" / "train")) is None
    assert validation_path(get_spec("custom"), together[1]) == str(tmp_path / "folders" / "test")


def test_every_layout_of_the_registry_is_tested() -> None:
    files = {spec.name for spec in DATASETS.values() if spec.source.endswith(":published")}
    assert set(LAYOUTS) == files


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_missing_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    spec, layout = get_spec(name), layout_of(get_spec(name))
    picture(tmp_path / "another_set" / "images" / "deep" / "0.jpg")
    for look in (lambda: load(spec, "train", tmp_path, download=False), lambda: obtain(spec, str(tmp_path), False)):
        with pytest.raises(UserError, match=f"no .* in {tmp_path}; fetch it from http.*data.train_path") as caught:
            look()
        assert "\n" not in str(caught.value) and layout.about.title in str(caught.value)
    assert with_tree(spec, tmp_path) is spec


@pytest.mark.parametrize("name", ["aircraft", "cub200", "cars", "dogs", "flowers", "food101", "pets"])
def test_class_folders_are_read_as_well(tmp_path: Path, name: str) -> None:
    """The HEX release keeps these sets as train/CLASS and test/CLASS."""
    names = {"cub200": ["001.Ani", "002.Sooty_Auk"], "cars": ["BMW M3", "Fiat 500"]}.get(name, ["a", "b"])
    class_folders(tmp_path, "train", names, [2, 1])
    class_folders(tmp_path, "test", names, [1, 1])
    spec = with_tree(get_spec(name), tmp_path)
    assert spec.num_classes == 2 and len(spec.levels) == (2 if name in ("cub200", "cars") else 1)
    for train, val in ((tmp_path, tmp_path), (tmp_path / "train", tmp_path / "test")):
        assert load(spec, "train", train, download=False).targets == [0, 0, 1]  # type: ignore[attr-defined]
        assert load(spec, "val", val, download=False).targets == [0, 1]  # type: ignore[attr-defined]


def damage(root: Path, file: str, content: str) -> None:
    (root / file).write_text(content)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("cub200", "images.txt", "only-one-column\n", "CUB-200-2011 in .*images.txt.*1 columns"),
        ("cub200", "train_test_split.txt", "id-0 1\n", "CUB-200-2011 in .* can't be read.*id-1"),
        ("nabirds", "hierarchy.txt", "4 6\n6 4\n3 0\n5 0\n", "goes around in a circle"),
        ("flowers", "setid.mat", "no matlab file", "Flowers in .* can't be read"),
        ("food101", "meta/train.json", "{", "Food-101 in .* can't be read"),
        ("inat21", "2021_train_mini/strange/0.jpg", "", "NUMBER_KINGDOM"),
        ("inat17", "train2017.json", "{}", "iNaturalist 2017 in .* can't be read.*categories"),
        ("living17", "dataset_class_info.json", "[]", "BREEDS Living-17 in .* can't be read"),
    ],
)
def test_damaged_lists_are_named(tmp_path: Path, name: str, file: str, content: str, message: str) -> None:
    LAYOUTS[name][0](tmp_path / "x")
    (tmp_path / "x" / file).parent.mkdir(exist_ok=True)
    damage(tmp_path / "x", file, content)
    with pytest.raises(UserError, match=message) as caught:
        load(get_spec(name), "train", tmp_path / "x", download=False)
    assert "\n" not in str(caught.value)


GARBLED = [
    b"",
    bytes(range(256)) * 9,
    b"[" * 100_000,
    b"1 2 3 4\n" * 3,
    b"0 1\n1 0\n",
    b"null",
    b"{}",
    b'{"images": 3}',
    b"[[1]]",
]


@pytest.mark.fault(
    2, "lists of a published data set empty, garbled, endless, a pipe, a folder", "one line, or what they say"
)
@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", LAYOUTS)
def test_garbled_lists(tmp_path: Path, name: str) -> None:
    LAYOUTS[name][0](tmp_path / "data")
    layout, rng = layout_of(get_spec(name)), random.Random(name)
    files = (file for file in (tmp_path / "data").rglob("*") if file.is_file())
    lists = sorted(file for file in files if file.suffix not in (".jpg", ".JPEG", ".png"))

    def harmless() -> None:
        for train in (True, False):
            try:
                files, targets, tree = layout.read(tmp_path / "data", train)
            except UserError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
            else:
                assert len(files) == len(targets) and all(0 <= target < tree.num_classes for target in targets)

    for file in rng.sample(lists, min(2, len(lists))):
        slow = file.suffix == ".mat"  # another process reads it, for scipy may end this one
        content = file.read_bytes()
        cut = [content[: rng.randrange(len(content))] for _ in range(2)]
        flipped = [bytes(byte ^ (rng.random() < 0.02) * rng.randrange(256) for byte in content) for _ in range(2)]
        for harm in [*(() if slow else (*GARBLED, *cut)), *flipped]:
            file.write_bytes(harm)
            harmless()
        file.unlink()
        os.mkfifo(file)
        harmless()
        file.unlink()
        file.mkdir()
        harmless()
        file.rmdir()
        file.write_bytes(content)


@pytest.mark.fault(
    2, "two classes of a published data set that have one name", "are one class: labels never leave the tree"
)
def test_two_classes_of_one_name(tmp_path: Path) -> None:
    inat17(tmp_path)
    for split in ("train", "val"):
        file = tmp_path / f"{split}2017.json"
        file.write_text(file.read_text().replace("Amphibia", "Insecta").replace("Bufo", "Apis"))
    _, targets, tree = layout_of(get_spec("inat17")).read(tmp_path, True)
    assert tree.num_classes == 1 and targets == [0, 0]


def test_train_and_val_must_be_of_one_copy(tmp_path: Path) -> None:
    class_folders(tmp_path, "train", ["a", "b"], [1, 1])
    class_folders(tmp_path, "test", ["a"], [1])
    with pytest.raises(UserError, match="holds 1 classes, others than the 2"):
        load(with_tree(get_spec("dogs"), tmp_path), "val", tmp_path)


def test_torchvision_fetches_and_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, here = tmp_path / "server" / "fgvc-aircraft-2013b", tmp_path / "here"
    aircraft(root)
    here.mkdir()
    with tarfile.open(here / "fgvc-aircraft-2013b.tar.gz", "w:gz") as archive:  # as if it had just arrived
        archive.add(root, root.name)
    monkeypatch.setattr(tv.FGVCAircraft, "_URL", "file:///nowhere/fgvc-aircraft-2013b.tar.gz")
    spec = get_spec("fgvc_aircraft")
    obtain(spec, str(here), download=True)
    assert load(spec, "train", here).targets == [0, 2, 1]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="no FGVC-Aircraft in .*the download failed"):
        load(spec, "train", tmp_path / "there")


@pytest.mark.parametrize(
    ("alias", "classes"),
    [
        *[("INaturalist", 10000), ("cub", 200), ("cub200", 200), ("fgvc_aircraft", 100), ("oxford102flowers", 102)],
        *[("oxfordpets", 37), ("stanford_cars", 196), ("stanford_dogs", 120), ("nabirds", 1011), ("blood", 8)],
        *[("caltech101", 102), ("food101", 101), ("tinyimagenet200", 200), ("cifar10c", 10), ("mnist", 10)],
        *[("svhn", 10), ("chestmnist", 2), ("organamnist", 11), ("tissuemnist", 8), ("cifar100_vehicle_1", 5)],
    ],
)
def test_names_and_classes_of_the_hex_release(alias: str, classes: int) -> None:
    assert get_spec(alias).num_classes == classes


class Fake:
    """What torchvision's MNIST, SVHN or CIFAR-100 would hold."""

    def __init__(self, root: str, train: bool = True, split: str = "", **_: Any) -> None:
        self.data = torch.arange(2 * 28 * 28, dtype=torch.uint8).view(2, 28, 28)
        self.targets = torch.tensor([7, 1])
        self.labels = np.array([3, 0])


def test_mnist_and_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small.tv, "MNIST", Fake)
    data: Any = load(get_spec("mnist"), "train", tmp_path)
    assert data.targets == [7, 1] and data[0][0].size == (28, 28)

    class Numbers(Fake):
        def __init__(self, root: str, **kwargs: Any) -> None:
            super().__init__(root, **kwargs)
            self.data = np.zeros((2, 3, 32, 32), np.uint8)
            self.data[:, 2] = 9

    monkeypatch.setattr(small.tv, "SVHN", Numbers)
    data = load(get_spec("svhn"), "val", tmp_path)
    assert data.targets == [3, 0] and data[0][0].getpixel((5, 5)) == (0, 0, 9)


def test_part_of_cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["apple", "aquarium_fish", "flatfish", "ray", "shark", "trout"]

    class Whole(Fake):
        def __init__(self, root: str, **kwargs: Any) -> None:
            self.class_to_idx = {name: i for i, name in enumerate(names)}
            self.data = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
            self.targets = [5, 0, 1, 3]

    monkeypatch.setattr("solo.data.sources.images.tv.CIFAR100", Whole)
    data: Any = load(get_spec("cifar100_fish"), "train", tmp_path)
    assert data.targets == [4, 0, 2] and data[1][0].getpixel((0, 0)) == (2, 2, 2)
    class_folders(tmp_path, "train", names[1:], [1, 0, 0, 2, 0])
    for name in names[1:]:
        picture(tmp_path / "train" / name / "x.jpg")
    assert load(get_spec("cifar100_fish"), "train", tmp_path / "train").targets == [0, 0, 1, 2, 3, 3, 3, 4]  # type: ignore


def test_cifar10c_validates_on_corrupted_images(tmp_path: Path) -> None:
    for value, name in enumerate(("fog", "snow")):
        np.save(tmp_path / f"{name}.npy", np.full((5, 32, 32, 3), value, np.uint8))
    with pytest.raises(UserError, match="no CIFAR-10-C in .*labels.npy"):
        load(get_spec("cifar10c"), "val", tmp_path)
    np.save(tmp_path / "labels.npy", np.arange(5))
    data: Any = load(get_spec("cifar10c"), "val", tmp_path)
    assert data.targets == [0, 1, 2, 3, 4] * 2 and data[7][0].getpixel((0, 0)) == (1, 1, 1)
    assert len(load(get_spec("cifar10c"), "val", tmp_path / "snow.npy").targets) == 5  # type: ignore[attr-defined]


def test_medmnist(tmp_path: Path) -> None:
    grey, colour = np.zeros((2, 28, 28), np.uint8), np.zeros((3, 28, 28, 3), np.uint8)
    findings = np.eye(14, dtype=np.uint8)[:2] * [[0], [1]]
    sets = {"bloodmnist": (colour, np.array([[7], [0], [1]])), "chestmnist": (grey, findings)}
    for name, (images, labels) in sets.items():
        split = {
            f"{part}_{kind}": x for part in ("train", "test") for kind, x in (("images", images), ("labels", labels))
        }
        np.savez(tmp_path / f"{name}.npz", **split)
    assert load(get_spec("blood"), "train", tmp_path).targets == [7, 0, 1]  # type: ignore[attr-defined]
    assert load(get_spec("chestmnist"), "val", tmp_path).targets == [0, 1]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"no octmnist.npz in .*fetch it from https://medmnist\.com"):
        load(get_spec("octmnist"), "train", tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"train_path": "nowhere"}, ["data.train_path: no CUB-200-2011 in nowhere"]),
        ({"train_path": "{folders}/train"}, ["data.val_path is missing"]),
        ({"train_path": "{folders}", "val_path": "nowhere"}, ["data.val_path: no CUB-200-2011 in nowhere"]),
        ({"train_path": "{folders}/train", "val_path": "{folders}/test"}, []),
        ({"train_path": "{folders}"}, []),
    ],
)
def test_paths_are_checked_before_a_run(tmp_path: Path, data: dict[str, Any], said: list[str]) -> None:
    for split in ("train", "test"):
        class_folders(tmp_path, split, ["a", "b"], [1, 1])
    paths = {"train_path": None, "val_path": None, **{k: v.format(folders=tmp_path) for k, v in data.items()}}
    values = {"data": {"dataset": "cub200", "format": "image_folder", "download": True, **paths}}
    problems = ["".join(problem) for problem in check_folders(values)]
    assert [problem[: len(text)] for problem, text in zip(problems, said, strict=True)] == said
