"""WebDataset shards."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from solo.data.catalogue.registry import resolve_spec
from solo.data.sources.images import load, skipped_files
from solo.data.storage.containers import read_shards
from solo.errors import BrokenImageError, UserError

ENTRY = {"crop_size": 8, "num_crops": 2, "rrc": {"enabled": True, "crop_min_scale": 0.5, "crop_max_scale": 1.0}}


def picture(value: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (12, 10), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return path


def shards(root: Path) -> Path:
    """Two shards, the image's red value is its number; even ones are of group a."""
    for s in range(2):
        members: dict[str, bytes] = {}
        for i in range(4 * s, 4 * s + 4):
            labels = {"group": "ab"[i % 2], "kind": f"k{i % 4}", "caption": ["no", "label"]}
            key = f"part.d/{i:04}"
            members |= {f"{key}.json": json.dumps(labels).encode(), f"{key}.png": picture(i)}
            members[f"{key}.cls"] = str(i % 4).encode()
        shard(root / f"x-{s:03}.tar", members)
    return root


def spec_of(path: Path | str, **keys: Any) -> Any:
    return resolve_spec({"dataset": "custom", "train_path": str(path), "format": "webdataset", **keys})


@pytest.mark.parametrize("path", ["", "x-{000..001}.tar"])
def test_images_and_classes_in_any_order(tmp_path: Path, path: str) -> None:
    root = f"{shards(tmp_path)}/{path}".rstrip("/")
    spec = spec_of(root)
    assert spec.num_classes == 4 and spec.levels == ("cls",)
    data: Any = load(spec, "train", root, data_format="webdataset")
    assert [data[i][0].getpixel((0, 0))[0] for i in (6, 0, 3)] == [6, 0, 3]
    assert data.targets == [0, 1, 2, 3] * 2


@pytest.mark.fault(1, "a folder whose name has `{`", "is that folder, not a range of shards")
def test_braces_in_a_name(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    root = shards(tmp_path / "s").rename(tmp_path / "a{0..9}")
    assert spec_of(root).num_classes == 4


def test_fields_of_json_are_levels(tmp_path: Path) -> None:
    spec = spec_of(shards(tmp_path), label_columns=["group", "kind"])
    assert spec.levels == ("group", "kind") and spec.num_classes == 4
    data: Any = load(spec, "train", tmp_path, levels=True, data_format="webdataset")
    assert [data[i][1].tolist() for i in range(4)] == [[0, 0], [1, 1], [0, 2], [1, 3]]


def test_without_labels(tmp_path: Path) -> None:
    spec = spec_of(shards(tmp_path), no_labels=True)
    data: Any = load(spec, "pretrain", tmp_path, no_labels=True, data_format="webdataset")
    assert spec.num_classes == 1 and data.targets == [-1] * 8 and data[7][0].size == (12, 10)


def test_a_broken_member(tmp_path: Path) -> None:
    shard(tmp_path / "x.tar", {"1.png": picture(1), "1.cls": b"0", "2.png": b"no image", "2.cls": b"1"})
    data = load(spec_of(tmp_path / "x.tar"), "train", tmp_path / "x.tar", data_format="webdataset")
    with pytest.raises(BrokenImageError, match=r"x\.tar:2\.png can't be read"):
        data[1]
    skipping = load(spec_of(tmp_path / "x.tar", on_error="skip"), "train", tmp_path / "x.tar", data_format="webdataset")
    assert skipping[1][1] == -1 and skipped_files(skipping) == [f"{tmp_path}/x.tar:2.png can't be read as an image"]


def test_refusals(tmp_path: Path) -> None:
    shard(tmp_path / "empty" / "x.tar", {"1.cls": b"0"})
    shard(tmp_path / "twice" / "x.tar", {"1.png": picture(1), "1.cls": b"0", "1.CLS": b"1"})
    for kind in ("w", "a"):
        with tarfile.open(tmp_path / "twice" / "y.tar", kind) as archive:
            archive.add(__file__, "1.png")
    shard(tmp_path / "json" / "x.tar", {"1.png": picture(1), "1.json": b"{"})
    (tmp_path / "cut" / "deep").mkdir(parents=True)
    (tmp_path / "cut" / "x.tar").write_bytes(b"no tar file" * 100)
    (tmp_path / "none").mkdir()
    for name, message in (
        ("empty", "holds no images"),
        ("twice/x.tar", r"1\.CLS twice"),
        ("twice/y.tar", r"1\.png twice"),
        ("json", r"x\.tar:1\.json is no JSON"),
        ("cut", r"x\.tar can't be read"),
        ("none", r"holds no \*\.tar file"),
        ("gone.tar", "does not exist"),
        ("x-{0..2}.tar", r"x-0\.tar does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            spec_of(tmp_path / name)
    (tmp_path / "none" / "x.tar.gz").touch()
    with pytest.raises(UserError, match="is compressed"):
        read_shards(tmp_path / "none")
    shards(tmp_path / "fields")
    with pytest.raises(UserError, match=r"has no column 'genus'; it has group, kind, cls"):
        spec_of(tmp_path / "fields", label_columns=["genus"])
    assert len(read_shards(tmp_path / "fields")) == 8


@pytest.mark.fault(
    5, "a WebDataset shard cut off inside a header, between members, or with more behind its end", "refused"
)
@pytest.mark.fault(5, "the same with `data.on_error=skip`", "what is there is used; the shard is counted")
@pytest.mark.parametrize(
    "where", ["in a header", "between members", "in an image", "a second archive behind it", "zeroed"]
)
def test_no_sample_is_lost_silently(where: str, tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", {f"{i}.png": picture(i) for i in range(5)})
    content = path.read_bytes()
    size = 512 + -(-len(picture(0)) // 512) * 512  # of a member
    assert len(read_shards(path)) == 5
    damaged = {
        "in a header": content[: 3 * size + 100],
        "between members": content[: 3 * size],
        "in an image": content[: 4 * size - 520],
        "a second archive behind it": content + content,
        "zeroed": content[: 3 * size] + bytes(512) + content[3 * size + 512 :],
    }
    path.write_bytes(damaged[where])
    with pytest.raises(UserError, match=r"x.tar can't be read to its end \(.*data.on_error=skip"):
        spec_of(path)
    spec = spec_of(path, on_error="skip", no_labels=True)
    data = load(spec, "train", path)
    assert len(data) == (5 if where == "a second archive behind it" else 3)
    assert len(skipped_files(data)) == 1 and "x.tar" in skipped_files(data)[0]


@pytest.mark.fault(
    5, "a shard's header with an absurd or negative size, deep JSON beside an image", "refused in one line"
)
def test_absurd_headers(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", {"0.png": picture(0), "1.png": picture(1)})
    for name, size in (("a", -(2**40)), ("b", 2**62)):
        info = tarfile.TarInfo("9.png")
        info.size = size
        evil = tmp_path / f"{name}.tar"
        evil.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + path.read_bytes())
        with pytest.raises(UserError, match="can't be read to its end"):
            read_shards(evil)
    with pytest.raises(UserError, match="means 10,000,000,001 shards"):
        read_shards(tmp_path / "x-{0..10000000000}.tar")
    deep = shard(tmp_path / "deep.tar", {"0.png": picture(0), "0.json": b"[" * 100_000})
    with pytest.raises(UserError, match=r"deep.tar:0.json is no JSON \(it is nested too deeply"):
        spec_of(deep)
