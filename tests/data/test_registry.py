from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from solo.data.catalogue.registry import DATASETS, check_path, count_classes, get_spec
from solo.data.storage.facts import class_folders
from solo.errors import UserError

# Fine to coarse, as in the official CIFAR-100 meta file.
CIFAR100_COARSE = [
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
]


def test_import_needs_no_torch() -> None:
    code = "import sys, solo.data.catalogue.registry; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("name", DATASETS)
def test_row_is_consistent(name: str) -> None:
    spec = DATASETS[name]
    for stats in (spec.mean, spec.std, spec.eval_mean or spec.mean, spec.eval_std or spec.std):
        assert len(stats) == spec.channels
        assert all(0 < value < 1 for value in stats)
    if spec.taxonomy is not None:
        assert spec.taxonomy.num_classes == spec.num_classes
        assert spec.levels == spec.taxonomy.levels
    module, _, function = spec.source.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_cifar100_has_its_official_superclasses() -> None:
    tree = DATASETS["cifar100"].taxonomy
    assert tree is not None
    assert list(tree.parents[0]) == CIFAR100_COARSE
    assert tree.names[1][:3] == ("apple", "aquarium_fish", "baby")
    assert tree.names[0][14] == "people"


def test_fashion_mnist_groups() -> None:
    tree = DATASETS["fashion_mnist"].taxonomy
    assert tree is not None
    assert tree.names[0] == ("tops", "bottoms", "shoes", "bags")
    assert tree.parents[0] == (0, 1, 0, 0, 0, 2, 0, 2, 3, 2)


@pytest.mark.parametrize(("typed", "meant"), [("cifar-10", "cifar10"), ("fashionmnist", "fashion_mnist")])
def test_unknown_name_says_what_was_meant(typed: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{meant}'"):
        get_spec(typed)


def test_custom_and_image_folder_are_one_row() -> None:
    assert get_spec("image_folder") is get_spec("custom")


def test_classes_are_counted_without_files_and_hidden_folders(tmp_path: Path) -> None:
    for name in ("b", "a", ".cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "readme.txt").touch()
    assert class_folders(tmp_path) == ["a", "b"]
    assert count_classes(get_spec("custom"), str(tmp_path)) == 2
    assert count_classes(get_spec("custom"), str(tmp_path / "a")) == 1
    assert count_classes(get_spec("cifar100"), None) == 100


@pytest.mark.parametrize(
    ("path", "no_labels", "message"),
    [
        ("missing", False, "does not exist"),
        ("flat/a.png", False, "is a file"),
        (None, False, "not set"),
        ("empty", False, "holds nothing"),
        ("flat", False, "holds only files"),
        ("empty", True, "holds no files"),
    ],
)
def test_check_path_says_what_is_wrong(tmp_path: Path, path: str | None, no_labels: bool, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").touch()
    with pytest.raises(UserError, match=message):
        check_path(get_spec("custom"), str(tmp_path / path) if path else None, no_labels)


def test_check_path_leaves_downloads_alone(tmp_path: Path) -> None:
    check_path(get_spec("cifar10"), str(tmp_path / "not there yet"))
    for folder in ("cifar-10-batches-py", "oxford-iiit-pet/images", "imagenet/train/n01"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "oxford-iiit-pet" / "images" / "a.jpg").touch()
    (tmp_path / "overview.png").touch()
    check_path(get_spec("cifar10"), str(tmp_path))


@pytest.mark.parametrize("place", [".", "train"])
@pytest.mark.parametrize("dataset", ["fashion_mnist", "cifar10", "cifar100_fish"])
def test_check_path_refuses_to_fetch_beside_other_images(tmp_path: Path, dataset: str, place: str) -> None:
    for name in ("cat", "dog"):
        (tmp_path / place / name).mkdir(parents=True)
        (tmp_path / place / name / "a.PNG").touch()
    with pytest.raises(UserError, match=rf"holds class folders \(cat, dog, \.\.\) and no {dataset}.*dataset=custom"):
        check_path(get_spec(dataset), str(tmp_path))
    with pytest.raises(UserError, match=f"holds images and no {dataset}"):
        check_path(get_spec(dataset), str(tmp_path / place / "cat"))
    with pytest.raises(UserError, match=r"a\.PNG is a file"):
        check_path(get_spec(dataset), str(tmp_path / place / "cat" / "a.PNG"))


def test_check_path_lets_a_part_of_cifar100_be_class_folders(tmp_path: Path) -> None:
    for name in get_spec("cifar100_fish").taxonomy.class_names:  # type: ignore[union-attr]
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    check_path(get_spec("cifar100_fish"), str(tmp_path))
