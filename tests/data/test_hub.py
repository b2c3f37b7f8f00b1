"""Hugging Face's `datasets`, from folders."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from solo import cli
from solo.data.cache import cached
from solo.data.catalogue.registry import resolve_spec
from solo.data.sources.images import load
from solo.data.views.batched import BatchAugment
from solo.errors import BrokenImageError, UserError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def content(value: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (12, 10), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def table(*values: int) -> Any:
    names = datasets.ClassLabel(names=["z", "a", "m"])
    features = {"picture": datasets.Image(), "group": datasets.Value("string"), "label": names}
    columns = {
        "picture": [{"bytes": content(v), "path": None} for v in values],
        "group": ["xy"[v % 3 > 0] for v in values],
        "label": [v % 3 for v in values],
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def saved(folder: Path) -> str:
    datasets.DatasetDict({"train": table(*range(9)), "test": table(4, 2)}).save_to_disk(str(folder))
    return str(folder)


def parquet(folder: Path) -> str:
    folder.mkdir()
    table(*range(9)).to_parquet(str(folder / "train-00000-of-00001.parquet"))
    table(4, 2).to_parquet(str(folder / "test-00000-of-00001.parquet"))
    return str(folder)


def spec_of(path: str, **keys: Any) -> Any:
    return resolve_spec({"dataset": "custom", "train_path": path, "format": "hf", **keys})


@pytest.mark.parametrize("kind", [saved, parquet])
def test_classes_and_images_of_both_splits(tmp_path: Path, kind: Any) -> None:
    path = kind(tmp_path / "data")
    spec = spec_of(path)
    assert spec.num_classes == 3 and spec.taxonomy.class_names == ("a", "m", "z")
    train: Any = load(spec, "train", path, data_format="hf")
    assert [spec.taxonomy.class_names[i] for i in train.targets] == ["z", "a", "m"] * 3
    assert train[5][0].mode == "RGB" and train[5][0].getpixel((3, 3)) == (5, 0, 0)
    val: Any = load(spec, "val", path, data_format="hf")
    assert [spec.taxonomy.class_names[i] for i in val.targets] == ["a", "m"]
    part: Any = load(spec, "val", f"{path}:train", data_format="hf")
    assert len(part) == 9


@pytest.mark.fault(
    2, "a data set of the hub whose validation split has other classes", "as folders: refused, `drop` or `label`"
)
@pytest.mark.parametrize(
    ("keys", "found"), [({}, None), ({"unknown_classes": "drop"}, 2), ({"unknown_classes": "label"}, 3)]
)
def test_validation_classes_that_training_lacks(tmp_path: Path, keys: dict[str, str], found: int | None) -> None:
    train = table(0, 1, 3, 4).cast_column("label", datasets.Value("int64"))
    test = table(4, 2, 0).cast_column("label", datasets.Value("int64"))  # 2 is in no training image
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tmp_path / "data"))
    path = str(tmp_path / "data")
    spec = spec_of(path, val_path=path, **keys)
    if found is None:
        with pytest.raises(UserError, match="1 classes of 1 images are not among the training data's labels: 2"):
            load(spec, "val", path, data_format="hf")
        return
    val: Any = load(spec, "val", path, data_format="hf")
    assert [int(label) for label in val.targets] == ([1, 0] if found == 2 else [1, -1, 0])


def test_levels_and_no_labels(tmp_path: Path) -> None:
    path = saved(tmp_path / "data")
    spec = spec_of(path, label_columns=["group", "label"])
    assert spec.levels == ("group", "label")
    data: Any = load(spec, "train", path, levels=True, data_format="hf")
    assert data[1][1].tolist() == [1, 0] and data[0][1].tolist() == [0, 2]
    spec = spec_of(path, no_labels=True)
    unlabelled: Any = load(spec, "pretrain", path, no_labels=True, data_format="hf")
    assert set(unlabelled.targets) == {-1} and unlabelled[0][0].size == (12, 10)


def test_refusals(tmp_path: Path) -> None:
    path = saved(tmp_path / "data")
    for keys, message in (
        ({"train_path": f"{path}:dev"}, "no split dev; add one of train, test"),
        ({"train_path": str(tmp_path / "nothing")}, "datasets can't load"),
        ({"path_column": "label"}, "'label' holds no images; .*these do: picture"),
        ({"label_columns": ["genus"]}, "has no column 'genus'; it has picture, group, label"),
    ):
        with pytest.raises(UserError, match=message):
            spec_of(**{"path": path, **{("path" if k == "train_path" else k): v for k, v in keys.items()}})
    broken = table(0, 1)
    rows = [{"bytes": b"no image", "path": None}, {"bytes": content(1), "path": None}]
    broken = broken.remove_columns("picture").add_column("picture", rows).cast_column("picture", datasets.Image())
    broken.save_to_disk(str(tmp_path / "broken"))
    data = load(spec_of(str(tmp_path / "broken")), "train", tmp_path / "broken", data_format="hf")
    with pytest.raises(BrokenImageError, match="broken#0 can't be read"):
        data[0]


def test_decoded_once_and_kept(tmp_path: Path) -> None:
    path = saved(tmp_path / "data")
    entry = {"crop_size": 8, "num_crops": 1, "rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0}}
    augment = BatchAugment([entry], [0.5] * 3, [0.25] * 3)
    data: Any = load(spec_of(path), "train", path, data_format="hf")
    kept: Any = cached(data, augment, folder=str(tmp_path / "kept"))
    pixels = kept.fetch(range(9))
    assert [int(image[0, 3, 3]) for image in pixels] == [data[row][0].getpixel((3, 3))[0] for row in range(9)]
    again: Any = cached(load(spec_of(path), "train", path, data_format="hf"), augment, folder=str(tmp_path / "kept"))
    assert again.path == kept.path and list((tmp_path / "kept").glob("*.uint8")) == [kept.path]
    other = str(tmp_path / "other")
    datasets.DatasetDict({"train": table(8, 7, 6)}).save_to_disk(other)
    changed: Any = cached(
        load(spec_of(other), "train", other, data_format="hf"), augment, folder=str(tmp_path / "kept")
    )
    assert changed.path != kept.path


def test_columns_are_read_where_they_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "data")
    words = ["pretrain", "scripts/pretrain/custom", "simclr.yaml", f"data.train_path={path}", "data.format=hf"]
    assert cli.main([*words, "data.label_columns=[group,label]", "data.path_column=picture", "--cfg", "resolved"]) == 0
    assert cli.main([*words, "data.levels=flat", "data.per_class=3", "--cfg", "resolved"]) == 2
    assert "data.per_class does nothing here" in capsys.readouterr().err


def test_without_a_name_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", "custom", "hex", "data.format=hf", "--cfg", "resolved"]) == 2
    assert "data.train_path is not set" in capsys.readouterr().err
