from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from solo.data.catalogue.registry import get_spec
from solo.data.sources import small
from solo.data.sources.images import load
from solo.data.sources.small import find_fashion, read_idx
from solo.errors import UserError


def encode(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_split(folder: Path, prefix: str, n: int = 4, zipped: bool = True) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", np.arange(n, dtype=np.uint8))):
        data = encode(array)
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(data) if zipped else data)
    return images


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("layout", [".", "FashionMNIST/raw"])
def test_finds_and_reads(tmp_path: Path, zipped: bool, layout: str) -> None:
    written = write_split(tmp_path / layout, "train", zipped=zipped)
    found: Any = load(get_spec("fashion_mnist"), "train", tmp_path)
    assert np.array_equal(found.data, written) and found.data.flags.writeable
    assert found.targets == [0, 1, 2, 3]


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    for name in ("given", "debian", "package"):
        write_split(tmp_path / name, "t10k")
    found = [find_fashion("t10k", *f) for f in ((tmp_path / "given", None), (None, tmp_path / "package"))]
    assert [f[0].parent.name for f in found if f] == ["given", "debian"]
    assert find_fashion("train", tmp_path / "given") is None
    (tmp_path / "elsewhere").mkdir()
    assert find_fashion("t10k", tmp_path / "elsewhere", tmp_path / "package") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no idx file"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "no idx file"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05ab", r"should hold \[5\] bytes but has 2"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.name}.*{message}"):
        read_idx(path)


def test_truncated_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes(1000))[:-9])
    with pytest.raises(UserError, match=r"x\.gz can't be read"):
        read_idx(path)


def test_labels_of_another_file_are_refused(tmp_path: Path) -> None:
    write_split(tmp_path, "train", n=3)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encode(np.zeros(2, np.uint8))))
    with pytest.raises(UserError, match=r"\(3, 28, 28\)"):
        load(get_spec("fashion_mnist"), "train", tmp_path)
