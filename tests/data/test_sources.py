from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets as tv

from solo.data.catalogue.registry import get_spec, resolve_spec
from solo.data.sources import images as sources
from solo.data.sources import small
from solo.data.sources.images import ArrayDataset, CustomDatasetWithoutLabels, load
from solo.errors import BrokenImageError, UserError


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has, or could fetch, must not matter."""
    monkeypatch.setattr(small, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    monkeypatch.setattr(sources, "DEFAULT_ROOT", tmp_path / "package")

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no network")

    for module in (tv.cifar, tv.stl10, tv.mnist):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)


def save(path: Path, colour: Any = (200, 100, 50), size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def make_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), n: int = 3) -> Path:
    for c, name in enumerate(classes):
        for i in range(n):
            save(root / name / f"{i}.png", (c * 50, i * 20, 0))
    return root


def test_digits_are_split_once_and_for_all() -> None:
    spec = get_spec("digits")
    train, val = (load(spec, split) for split in ("train", "val"))
    assert isinstance(train, ArrayDataset) and isinstance(val, ArrayDataset)
    assert (len(train), len(val)) == (1437, 360)
    assert set(Counter(val.targets).values()) <= {35, 36, 37}
    image, target = train[0]
    assert image.mode == "L" and image.size == (16, 16) and 0 <= target <= 9
    both = {a.tobytes() for a in train.data} & {a.tobytes() for a in val.data}
    assert not both
    assert np.array_equal(load(spec, "train").data, train.data)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["digits"])
def test_mean_and_std_of_the_row_are_those_of_the_images(name: str) -> None:
    spec = get_spec(name)
    x = load(spec, "train").data / 255  # type: ignore[attr-defined]
    assert x.mean() == pytest.approx(spec.mean[0], abs=1e-4)
    assert x.std() == pytest.approx(spec.std[0], abs=1e-4)


def write_fashion(folder: Path, prefix: str, labels: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8])
    n = len(labels).to_bytes(4, "big")
    side = (28).to_bytes(4, "big")
    pixels = bytes(28 * 28 * len(labels))
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + b"\x03" + n + side + side + pixels)
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + b"\x01" + n + bytes(labels))


@pytest.mark.parametrize("given", ["", "glyphs.npz"])
def test_glyphs(tmp_path: Path, given: str) -> None:
    """Its tree and its split come from the file; `data.holdout` validates with fonts of the training images."""
    names = {"names0": ["a", "b"], "names1": ["a1", "b1", "b2"], "names2": ["x", "y", "z"]}
    tree = {"parent1": [0, 1, 1], "parent2": [0, 1, 2]}
    labels = np.array([[0, 0, 0], [1, 1, 1], [1, 2, 2], [0, 0, 0]], dtype=np.int16)
    images, rows = np.zeros((4, 32, 32), np.uint8), {"labels": labels, "split": [0, 0, 0, 1], "family": [7, 8, 8, 9]}
    np.savez(tmp_path / "glyphs.npz", images=images, **rows, **names, **tree)
    data = {"dataset": "glyphs", "train_path": str(tmp_path / given)}
    spec = resolve_spec(data)
    assert spec.levels == ("script", "group", "character") and spec.num_classes == 3
    train, val = (load(spec, split, data["train_path"], levels=True) for split in ("train", "val"))
    assert [train[i][1].tolist() for i in range(3)] == labels[:3].tolist() and len(val) == 1  # type: ignore[arg-type]
    inner = resolve_spec({**data, "holdout": 0.7})
    assert load(inner, "val", None).targets == [1, 2] and load(inner, "train", data["train_path"]).targets == [0]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="make_glyphs"):
        load(spec, "train", tmp_path / "nowhere")


@pytest.mark.parametrize("place", ["given", "debian", "package/FashionMNIST/raw"])
def test_fashion_mnist(tmp_path: Path, place: str) -> None:
    write_fashion(tmp_path / place, "train", [9, 1, 0])
    write_fashion(tmp_path / place, "t10k", [8])
    spec = get_spec("fashion_mnist")
    path = tmp_path / "given" if place == "given" else None
    train = load(spec, "train", path, levels=True)
    assert [train[i][1].tolist() for i in range(3)] == [[2, 9], [1, 1], [0, 0]]
    assert train.targets == [9, 1, 0]  # type: ignore[attr-defined]
    image, target = load(spec, "val", path)[0]
    assert image.size == (28, 28) and image.mode == "L" and target == 8


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_fashion_mnist_that_is_nowhere_says_what_to_do(tmp_path: Path, download: bool, given: bool) -> None:
    if given:  # what was not asked for must not stand in
        write_fashion(tmp_path / "debian", "train", [9, 1, 0])
    said = r"no Fashion-MNIST in .*here \(.*data\.train_path.*ubyte.*leave it out" if given else "or install Debian"
    with pytest.raises(UserError, match=said):
        load(get_spec("fashion_mnist"), "train", tmp_path / "here" if given else None, download=download)


def test_a_folder_that_is_not_there_yet_is_fetched_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, download_root: str, **_: Any) -> None:
        write_fashion(Path(download_root), "t10k" if "t10k" in url else "train", [9, 1, 0])

    write_fashion(tmp_path / "debian", "train", [8])
    monkeypatch.setattr(tv.mnist, "download_and_extract_archive", fetch)
    assert load(get_spec("fashion_mnist"), "train", tmp_path / "new").targets == [9, 1, 0]  # type: ignore[attr-defined]


def write_cifar(root: Path, name: str) -> None:
    folder = root / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    cls = {"cifar10": tv.CIFAR10, "cifar100": tv.CIFAR100}[name]
    label, names = {"cifar10": ("labels", "label_names"), "cifar100": ("fine_labels", "fine_label_names")}[name]
    for file, _ in cls.train_list + cls.test_list:
        batch = {"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8), label: [3, 9]}
        (folder / file).write_bytes(pickle.dumps(batch))
    tree = get_spec(name).taxonomy
    assert tree is not None
    (folder / cls.meta["filename"]).write_bytes(pickle.dumps({names: list(tree.names[-1])}))


@pytest.mark.parametrize(("name", "n_train", "target"), [("cifar10", 10, 9), ("cifar100", 2, [3, 9])])
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, n_train: int, target: Any) -> None:
    write_cifar(tmp_path, name)
    monkeypatch.setattr(tv.cifar, "check_integrity", lambda path, md5=None: Path(path).exists())
    spec = get_spec(name)
    train, val = (load(spec, split, tmp_path, download=False, levels=True) for split in ("pretrain", "val"))
    assert (len(train), len(val)) == (n_train, 2)  # type: ignore[arg-type]
    image, got = train[1]
    assert image.size == (32, 32) and image.mode == "RGB"
    assert (got.tolist() if isinstance(got, torch.Tensor) else got) == target
    assert train.classes == list(spec.taxonomy.names[-1])  # type: ignore[attr-defined, union-attr]


def test_stl10_pretraining_adds_the_unlabelled_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    counts = {"train_X.bin": 2, "unlabeled_X.bin": 3, "test_X.bin": 1}
    for name, n in counts.items():
        (folder / name).write_bytes(bytes(n * 3 * 96 * 96))
    (folder / "train_y.bin").write_bytes(bytes([10, 1]))
    (folder / "test_y.bin").write_bytes(bytes([5]))
    monkeypatch.setattr(tv.stl10, "check_integrity", lambda path, md5=None: True)
    monkeypatch.setattr(tv.STL10, "_STL10__load_folds", lambda self, folds: None)
    targets = {s: load(get_spec("stl10"), s, tmp_path).targets for s in ("pretrain", "train", "val")}  # type: ignore
    assert targets == {"pretrain": [9, 0, -1, -1, -1], "train": [9, 0], "val": [4]}


@pytest.mark.parametrize(("name", "layout"), [("cifar100", "cifar-100-python"), ("stl10", "stl10_binary")])
@pytest.mark.parametrize("download", [True, False])
def test_missing_torchvision_data_are_named(tmp_path: Path, name: str, layout: str, download: bool) -> None:
    with pytest.raises(UserError, match=f"no complete {layout} in .*data.train_path"):
        load(get_spec(name), "train", tmp_path, download=download)


def test_image_folder(tmp_path: Path) -> None:
    make_folder(tmp_path, ("dog", "cat"))
    save(tmp_path / "cat" / "deep" / "grey.png", 77, mode="L")
    save(tmp_path / ".thumbs" / "0.png")
    data = load(get_spec("custom"), "train", tmp_path)
    assert data.classes == ["cat", "dog"]  # type: ignore[attr-defined]
    assert Counter(data.targets) == {0: 4, 1: 3}  # type: ignore[attr-defined]
    pictures = [data[i] for i in range(7)]
    assert {image.mode for image, _ in pictures} == {"RGB"}
    assert (77, 77, 77) in [image.getpixel((0, 0)) for image, _ in pictures]


def test_class_folder_without_images_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("hello")
    with pytest.raises(UserError, match=r"classes notes\b"):
        load(get_spec("custom"), "train", tmp_path)


def test_flat_folder(tmp_path: Path) -> None:
    save(tmp_path / "b.png")
    save(tmp_path / "a.jpg")
    Image.new("RGB", (4, 4)).save(tmp_path / "no_ending", format="PNG")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    data = load(get_spec("custom"), "train", tmp_path, no_labels=True)
    assert isinstance(data, CustomDatasetWithoutLabels)
    assert data.images == ["a.jpg", "b.png", "no_ending"]
    assert data.targets == [-1, -1, -1]
    image, target = data[1]
    assert image.size == (12, 10) and target == -1
    assert CustomDatasetWithoutLabels(tmp_path, transform=lambda image: image.size)[2] == ((4, 4), -1)


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("a,1")
    (tmp_path / "readme").write_text("hello")
    found = resolve_spec({"dataset": "custom", "train_path": str(tmp_path), "no_labels": True})
    assert any(note.endswith("no images: .csv (1), no suffix (1)") for note in found.notes)


def test_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds nothing"):
        load(get_spec("custom"), "train", tmp_path)
    with pytest.raises(UserError, match="holds no files that are images"):
        CustomDatasetWithoutLabels(tmp_path)


def test_no_labels_needs_a_folder() -> None:
    with pytest.raises(UserError, match="dataset=custom, not digits"):
        load(get_spec("digits"), "train", no_labels=True)


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["text", "truncated", "empty", "broken png"])
def test_broken_image_gives_one_line_that_names_it(tmp_path: Path, kind: str, workers: int) -> None:
    make_folder(tmp_path, n=1)
    bad = tmp_path / "dog" / ("0.png" if kind == "broken png" else "bad.jpg")
    if kind == "truncated":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(bad)
        bad.write_bytes(bad.read_bytes()[:2000])
    elif kind == "broken png":
        bad.write_bytes(bad.read_bytes()[:40] + b"garbage")
    else:
        bad.write_bytes(b"not an image" if kind == "text" else b"")
    data = load(get_spec("custom"), "train", tmp_path, transform=lambda image: image.size[0])
    with pytest.raises(BrokenImageError) as caught:
        list(DataLoader(data, num_workers=workers))
    message = str(caught.value)
    assert message.startswith(str(bad)) and "replace or remove the file" in message
    assert "\n" not in message


def test_level_targets_keep_unknown_labels() -> None:
    tree = get_spec("cifar100").taxonomy
    assert tree is not None
    lookup = sources.LevelTargets(tree)
    assert lookup(-1).tolist() == [-1, -1]
    assert lookup(0).tolist() == [4, 0] and lookup(0).dtype == torch.int64
