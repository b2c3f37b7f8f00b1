"""Own images in folders: where the validation images are, and what is no class."""

from __future__ import annotations

import pytest
from PIL import Image

from solo.args.parse import parse
from solo.args.schema import PretrainCfg


def images(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / folder / "1.png")


def parsed(values, path):
    values["data"] = {"dataset": "custom", "train_path": str(path)}
    return parse(values, PretrainCfg)


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_the_folder_beside_train_validates(tmp_path, pretrain_values, name):
    images(tmp_path, "train/a/x", "train/b/y", f"{name}/a/x", f"{name}/b/y")
    found = parsed(pretrain_values, tmp_path / "train")
    assert found.values["data"]["val_path"] == str(tmp_path / name)
    assert found.origins["data.val_path"] == "data.train_path"
    assert any(f"data.val_path={tmp_path / name}, found beside data.train_path" in note for note in found.notes)
    assert not any("classifier_lr is not scaled" in note for note in found.notes)


@pytest.mark.parametrize("other", ["val/a/x", "val/c/y", "other/a/x"])
def test_other_classes_and_other_names_are_not_taken(tmp_path, pretrain_values, other):
    images(tmp_path, "train/a/x", "train/b/y", other)
    assert parsed(pretrain_values, tmp_path / "train").values["data"]["val_path"] is None


def test_the_folder_above_the_splits_is_used(tmp_path, pretrain_values):
    images(tmp_path, "train/a", "test/a")
    found = parsed(pretrain_values, tmp_path)
    assert found.values["data"]["val_path"] == str(tmp_path / "test") and found.values["data"]["num_classes"] == 1
    assert any("train is trained on" in note for note in found.notes)
