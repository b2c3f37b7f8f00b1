from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from solo.data.cache import cached
from solo.data.catalogue.registry import get_spec, resolve_spec
from solo.data.labels.subsets import Indexed, Subset
from solo.data.sources.images import ArrayDataset, load
from solo.data.views.batched import BatchAugment
from solo.run.resume import Fingerprint, fingerprint

ENTRY = {"crop_size": 12, "num_crops": 2, "rrc": {"enabled": True, "crop_min_scale": 0.3, "crop_max_scale": 1.0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for c in "ab":
        (tmp_path / "images" / c).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (8 + i, 8)).save(tmp_path / "images" / c / f"{i}.png")
    return tmp_path / "images"


def of(folder: Path) -> Fingerprint:
    found = fingerprint(Indexed(load(get_spec("custom"), "train", folder)))
    assert found is not None
    return found


def test_it_is_the_data_not_their_place_nor_how_they_are_loaded(folder: Path, tmp_path: Path) -> None:
    before = of(folder)
    shutil.copytree(folder, tmp_path / "elsewhere" / "x")
    assert of(tmp_path / "elsewhere" / "x") == before
    data = load(get_spec("custom"), "train", folder)
    decoded = cached(data, BatchAugment([ENTRY], (0.5,), (0.25,), 3), folder=str(tmp_path / "cache"))
    assert fingerprint(decoded) == before and before.classes == {"0": 4, "1": 4}
    part = fingerprint(Subset(data, [1, 5]))
    assert part is not None and len(part.lines) == 2 and part.digest != before.digest


@pytest.mark.fault(2, "a table with absolute and relative paths", "read, and known again")
def test_paths_of_both_kinds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = []
    for first in (folder / "a" / "0.png", "a/0.png"):
        Path("t.csv").write_text(f"path,label\n{first},a\na/1.png,a\nb/0.png,b\n", encoding="utf-8")
        spec = resolve_spec({"dataset": "custom", "format": "table", "train_path": "t.csv"})
        found.append(fingerprint(Indexed(load(spec, "train", "t.csv", data_format="table"))))
    assert found[0] == found[1] is not None


def replaced(folder: Path) -> None:
    shutil.rmtree(folder / "b")
    shutil.copytree(folder / "a", folder / "c")


def longer(folder: Path) -> None:
    Image.effect_noise((60, 60), 50).save(folder / "a" / "0.png")


CHANGES: dict[str, tuple[Any, str]] = {
    "one more": (
        lambda f: shutil.copy(f / "a/0.png", f / "a/x.png"),
        "class 0 has 5 .*instead of 4; 1 files added.*a/x",
    ),
    "one less": (lambda f: (f / "b/3.png").unlink(), r"class 1 has 3.*1 files removed \(b/3.png\)"),
    "another class": (replaced, r"4 files added \(c/0.png.*4 files removed \(b/0.png"),
    "another image": (longer, r"1 files changed \(a/0.png\)"),
}


@pytest.mark.fault(
    5, "the data changed before `auto_resume`, with the same number of images", "refused; lists the changes"
)
@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_listed(change: str, folder: Path) -> None:
    before = of(folder)
    make, said = CHANGES[change]
    make(folder)
    after = of(folder)
    assert after.digest != before.digest
    assert re.search(said, after.changes(before.classes, before.lines)), after.changes(before.classes, before.lines)


def test_pixels_and_labels_in_memory() -> None:
    images = np.zeros((6, 8, 8), np.uint8)
    before = fingerprint(ArrayDataset(images, range(6)))
    assert before == fingerprint(ArrayDataset(images.copy(), range(6)))
    images[3, 0, 0] = 1
    assert before != fingerprint(ArrayDataset(images, range(6)))
    assert fingerprint(object()) is None
