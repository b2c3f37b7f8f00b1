from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from solo.data.catalogue.registry import resolve_spec
from solo.data.pretrain_dataloader import prepare_dataloader, prepare_datasets
from solo.data.sources.images import load, skipped_files
from solo.errors import UserError


def images(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(root / name)
    return root


def custom(path: Path, **more: Any) -> dict[str, Any]:
    return {"dataset": "custom", "train_path": str(path), **more}


def test_nested_folders_are_levels(tmp_path: Path) -> None:
    root = images(tmp_path / "train", "birds/owls/a.png", "birds/eagles/a.png", "fish/cod/sea/a.png")
    images(root, "fish/cod/lake/a.png", "fish/eel/a.png")
    spec = resolve_spec(custom(root))
    assert spec.levels == ("level1", "level2", "level3") and spec.num_classes == 5
    data = load(spec, "train", root, levels=True)
    assert {tuple(data[i][1].tolist()) for i in range(5)} == {(0, 1, -1), (0, 0, -1), (1, 2, 0), (1, 2, 1), (1, 3, -1)}
    val = images(tmp_path / "val", "birds/owls/deeper/x.png")
    assert load(spec, "val", val, levels=True)[0][1].tolist() == [0, 1, -1]
    images(val, "birds/hens/x.png")
    with pytest.raises(UserError, match="1 classes of . images are not among the training data.s labels: .*hens"):
        load(spec, "val", val, levels=True)


def test_class_folders_stay_flat(tmp_path: Path) -> None:
    root = images(tmp_path, "cats/a.png", "cats/deep/b.png", "dogs/c.png")
    assert resolve_spec(custom(root)).levels == ("class",)
    named = resolve_spec(custom(root, levels=["kind", "detail"]))
    assert named.levels == ("kind", "detail") and named.taxonomy is not None
    assert named.taxonomy.class_names == ("deep", "dogs")
    data = load(named, "train", root, levels=True)
    assert [data[i][1].tolist() for i in range(3)] == [[0, -1], [0, 0], [1, -1]]
    assert data.targets == [-1, 0, 1]  # type: ignore[attr-defined]


def test_levels_flat_turns_nesting_off(tmp_path: Path) -> None:
    root = images(tmp_path, "a/x/1.png", "a/y/1.png", "b/z/1.png")
    assert resolve_spec(custom(root)).num_classes == 3
    spec = resolve_spec(custom(root, levels="flat"))
    assert spec.num_classes == 2 and load(spec, "train", root).targets == [0, 0, 1]  # type: ignore[attr-defined]


def test_a_file_gives_class_folders_a_tree(tmp_path: Path) -> None:
    root = images(tmp_path / "train", "cat/1.png", "dog/1.png", "oak/1.png")
    (tmp_path / "tree.json").write_text(json.dumps({"animal": ["cat", "dog"], "plant": ["oak"]}))
    spec = resolve_spec(custom(root, taxonomy=str(tmp_path / "tree.json"), levels=["kingdom", "kind"]))
    data = load(spec, "train", root, levels=True)
    assert [data[i][1].tolist() for i in range(3)] == [[0, 0], [0, 1], [1, 2]]
    with pytest.raises(UserError, match="needs class folders"):
        resolve_spec({"dataset": "digits", "taxonomy": "tree.json"})


def test_table(tmp_path: Path) -> None:
    images(tmp_path, "pics/1.png", "pics/2.png")
    table = tmp_path / "t.csv"
    table.write_text("file,kingdom,kind\npics/1.png,animal,cat\npics/2.png,plant,oak\n")
    settings = custom(table, format="table", label_columns=["kingdom", "kind"])
    spec = resolve_spec(settings)
    data = load(spec, "train", table, levels=True)
    assert len(data) == 2 and data[1][1].tolist() == [1, 1]  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no column 'kinds'; did you mean 'kind'"):
        resolve_spec({**settings, "label_columns": ["kinds"]})
    with pytest.raises(UserError, match="several columns"):
        resolve_spec({**settings, "label_columns": None})


@pytest.mark.parametrize("link", [False, True])
def test_on_error(tmp_path: Path, link: bool) -> None:
    root = images(tmp_path, "a/1.png", "a/2.png", "b/1.png")
    if link:
        os.symlink("nowhere", root / "a" / "3.png")
    else:
        (root / "a" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"3\.png"):
        data = load(resolve_spec(custom(root)), "train", root)
        list(data[i] for i in range(4))
    spec = resolve_spec(custom(root, on_error="skip"))
    data = prepare_datasets(spec, lambda image: image.size[0], str(root))
    items = [target for _, views, targets in prepare_dataloader(data, 2, 0, seed=0) for target in targets.tolist()]
    assert len(items) in (2, 4)
    [data[i] for i in range(len(data))]
    assert len(skipped_files(data)) == 1 and "3.png" in skipped_files(data)[0]


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"no image")
    data = load(resolve_spec(custom(tmp_path, on_error="skip")), "train", tmp_path)
    with pytest.raises(UserError, match="none of the 1 images can be read"):
        data[0]
