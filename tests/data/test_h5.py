from __future__ import annotations

import importlib
import os
import pickle
import runpy
import sys
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from solo.data.h5_dataset import H5Dataset
from torch.utils.data import DataLoader

import solo.data
from solo.args.parse import ParseError, parse
from solo.args.schema import PretrainCfg
from solo.compat.misc import compute_dataset_size
from solo.data.cache import cached
from solo.data.catalogue.registry import IMAGENET100, count_classes, get_spec
from solo.data.pretrain_dataloader import prepare_datasets
from solo.data.sources.images import load
from solo.data.storage import containers
from solo.data.storage.listing import list_images
from solo.data.views.batched import BatchAugment
from solo.errors import BrokenImageError, UserError

SCRIPT = Path(__file__).parents[2] / "scripts" / "utils" / "convert_imgfolder_to_h5.py"
write_h5 = runpy.run_path(str(SCRIPT))["write_h5"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of two images; the red value says which image it is."""
    for value, name in enumerate(("dog/a.png", "dog/deep/b.png", "cat/c.png", "cat/d.png", ".cache/e.png")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), (value, 0, 0)).save(path)
    (tmp_path / "images" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "images"


@pytest.fixture
def h5(folder: Path) -> Path:
    path = folder.parent / "train.h5"
    assert write_h5(folder, path) == 4
    return path


def write(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name] = value
    return path


def encoded(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes(), np.uint8)


def red(image: Image.Image) -> int:
    return int(np.asarray(image)[0, 0, 0])


def test_a_folder_comes_back_as_it_was(folder: Path, h5: Path) -> None:
    data, files = H5Dataset("custom", h5, transform=red), load(get_spec("custom"), "train", folder, transform=red)
    assert data.classes == ["cat", "dog"] and data.targets == [0, 0, 1, 1]
    assert [data[i] for i in range(4)] == [(2, 0), (3, 0), (0, 1), (1, 1)] == [files[i] for i in range(4)]
    assert data.samples[3] == ("dog/deep__b.png", 1)
    with h5py.File(h5) as file:
        stored = file["dog/a.png"]
        assert stored.compression == "gzip" and stored.compression_opts == 9
        assert bytes(stored[()]) == (folder / "dog" / "a.png").read_bytes()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_each_process_opens_the_file_itself(h5: Path) -> None:
    data = H5Dataset("custom", h5, transform=lambda image: (red(image), os.getpid()))
    assert data[0][0] == (2, os.getpid())
    batches = list(DataLoader(data, num_workers=2))
    assert [int(x[0]) for x, _ in batches] == [2, 3, 0, 1]
    assert len({int(x[1]) for x, _ in batches} | {os.getpid()}) == 3
    data.transform = red
    assert pickle.loads(pickle.dumps(data))[2] == (0, 1)


def test_imagenet100_takes_its_classes_out_of_all(tmp_path: Path, folder: Path) -> None:
    names = IMAGENET100.read_text().split()
    assert len(names) == len(set(names)) == 100 and names == sorted(names)
    image = encoded(folder / "dog" / "a.png")
    path = write(tmp_path / "all.h5", {f"{name}/0.JPEG": image for name in (names[5], names[2], "n00000001")})
    assert H5Dataset("imagenet100", path).classes == [names[2], names[5]]
    assert len(H5Dataset("imagenet", path).classes) == 3
    own = write(tmp_path / "own.h5", {"apple/0.jpg": image, "pear/0.jpg": image})
    assert H5Dataset("imagenet100", own).classes == ["apple", "pear"]
    for name in (names[5], names[2], "n00000001"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "0.png").write_bytes(image.tobytes())
    assert load(get_spec("imagenet100"), "train", tmp_path / "all").classes == [names[2], names[5]]  # type: ignore


def test_index_is_kept_until_the_file_changes(h5: Path, folder: Path) -> None:
    index = h5.with_name("train.h5.index.json")
    assert len(H5Dataset("custom", h5)) == 4
    written = index.stat()
    assert len(H5Dataset("custom", h5)) == 4 and index.stat() == written
    with h5py.File(h5, "a") as file:
        file["cat/new.png"] = encoded(folder / "dog" / "a.png")
    assert len(H5Dataset("custom", h5)) == 5 and index.stat() != written
    kept = index.read_text()
    index.write_text("half of")
    assert len(H5Dataset("custom", h5)) == 5 and index.read_text() == kept


def test_decoded_once_and_kept(h5: Path, tmp_path: Path) -> None:
    entry = {"crop_size": 4, "num_crops": 1, "rrc": {"enabled": True, "crop_min_scale": 0.2, "crop_max_scale": 1.0}}
    augment, data = BatchAugment([entry], [0.5] * 3, [0.25] * 3), H5Dataset("custom", h5)
    kept: Any = cached(data, augment, folder=str(tmp_path / "kept"))
    assert [int(image[0, 0, 0]) for image in kept.fetch(range(4))] == [red(data[i][0]) for i in range(4)]
    assert kept.fetch([2])[0].shape == (3, 5, 6)
    same: Any = cached(H5Dataset("custom", h5), augment, folder=str(tmp_path / "kept"))
    path = kept.path
    assert same.path == path
    del data, kept, same  # HDF5 writes no file that is open
    with h5py.File(h5, "a") as file:
        file["dog/more.png"] = np.array(file["dog/a.png"])
    more: Any = cached(H5Dataset("custom", h5), augment, folder=str(tmp_path / "kept"))
    assert more.path != path and len(more) == 5


def test_data_sets_and_configs_take_h5(h5: Path) -> None:
    images = prepare_datasets("custom", lambda image: [red(image)], h5, data_format="h5", data_fraction=0.5)
    assert len(images) == 2 and {target for _, _, target in images} == {0, 1}
    assert load(get_spec("custom"), "val", h5).classes == ["cat", "dog"]  # type: ignore[attr-defined]
    assert count_classes(get_spec("custom"), str(h5)) == 2
    cfg = config(train_path=str(h5), val_path=str(h5))
    assert parse(cfg, PretrainCfg, for_run=True).values["data"]["num_classes"] == 2


def config(**data: Any) -> dict[str, Any]:
    return {
        "method": "simclr",
        "method_kwargs": {"proj_hidden_dim": 8, "proj_output_dim": 8, "temperature": 0.1},
        "data": {"dataset": "custom", "format": "h5", **data},
        "augmentations": [{"num_crops": 2}],
        "optimizer": {"name": "sgd", "batch_size": 2, "lr": 0.1},
        "scheduler": {"name": "none"},
        "max_epochs": 1,
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train_path": "{folder}"}, "images is no HDF5 file.*convert_imgfolder_to_h5"),
        ({"train_path": "{folder}/missing.h5"}, "missing.h5 is no HDF5 file"),
        ({"train_path": "{h5}", "no_labels": True}, r"not unlabelled images.*image_folder"),
        ({"dataset": "cifar10", "train_path": "{h5}"}, "reads imagenet, imagenet100.* not cifar10"),
        ({"train_path": "{h5}", "format": "image_folder"}, "train.h5 is a file; check .*data.format"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(folder: Path, h5: Path, data: dict[str, Any], message: str) -> None:
    filled = {k: v.format(folder=folder, h5=h5) if isinstance(v, str) else v for k, v in data.items()}
    with pytest.raises(ParseError, match=message) as caught:
        parse(config(**filled), PretrainCfg, for_run=True)
    assert "\n" not in str(caught.value)


def test_files_of_another_layout_are_refused(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = write(tmp_path / "flat.h5", {"image": np.zeros(3)})
    with pytest.raises(UserError, match="flat.h5 holds the array 'image'; expected one group per class"):
        H5Dataset("custom", flat)
    with pytest.raises(UserError, match="holds nothing"):
        H5Dataset("custom", write(tmp_path / "empty.h5", {}))
    text = tmp_path / "text.h5"
    text.write_text("not HDF5 at all")
    with pytest.raises(UserError, match=r"text.h5 can't be read as HDF5"):
        H5Dataset("custom", text)
    bad = write(tmp_path / "bad.h5", {"cat/x.png": np.arange(9, dtype=np.uint8)})
    with pytest.raises(BrokenImageError, match="bad.h5: cat/x.png can't be read as an image"):
        H5Dataset("custom", bad)[0]
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r'pip install "solo-hex\[h5\]"'):
        containers.open_h5(bad)


def test_converter(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder.parent / "out.h5"
    monkeypatch.setattr(sys, "argv", ["convert", "--folder_path", str(folder), "--h5_path", str(path)])
    for code, said in ((0, "4 images"), (2, "exists already")):
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        printed = capsys.readouterr()
        assert end.value.code == code and said in printed.out + printed.err
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no images"):
        write_h5(folder, folder.parent / "other.h5")
    assert not list(folder.parent.glob("*other*"))


def test_submodules_say_what_is_there() -> None:
    assert {"pretrain_dataloader", "classification_dataloader", "h5_dataset"} <= set(solo.data.__all__)
    assert solo.data.h5_dataset.H5Dataset is H5Dataset
    with pytest.raises(ImportError, match="without NVIDIA DALI; use solo.data.pretrain_dataloader"):
        importlib.import_module("solo.data.dali_dataloader")


@pytest.mark.parametrize(
    ("kwargs", "size"),
    [
        ({"dataset": "cifar10"}, 50_000),
        ({"dataset": "CIFAR100", "train": False, "data_fraction": 0.1}, 1_000),
        ({"dataset": "stl10"}, 105_000),
        ({"dataset": "stl10", "train": False}, 8_000),
        ({"dataset": "custom", "data_path": "{folder}"}, 4),
        ({"data_path": "{folder}", "data_fraction": 0.5}, 2),
        ({"dataset": "imagenet", "data_path": "{h5}", "data_format": "h5"}, 4),
        ({"dataset": "custom", "data_path": "{folder}/dog", "no_labels": True}, 1),
        ({"dataset": "digits", "train": False}, 360),
    ],
)
def test_compute_dataset_size(folder: Path, h5: Path, kwargs: dict[str, Any], size: int) -> None:
    filled = {k: v.format(folder=folder, h5=h5) if isinstance(v, str) else v for k, v in kwargs.items()}
    assert compute_dataset_size(**filled) == size


@pytest.mark.fault(1, "classes and images in an HDF5 file whose names are no UTF-8", "read, by their bytes")
def test_names_of_any_bytes(tmp_path: Path) -> None:
    stream = BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    content = np.frombuffer(stream.getvalue(), np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in (b"gr\xfc\xdf", "größe".encode(), b"esc\x1b[31m\nx"):
            group = h5py.Group(h5py.h5g.create(file.id, name))
            group.create_dataset(b"im\xff.png", data=content)
    for _ in range(2):  # the second time from the index beside it
        images = list_images("h5", tmp_path / "a.h5").images
        assert len(images) == 3 and {image.read() for image in images} == {stream.getvalue()}


def test_a_place_in_a_file_takes_little_memory() -> None:
    file = containers.H5File(Path("a.h5"))
    tracemalloc.start()
    images = [file.image("0.png") for _ in range(1000)]
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(images) == 1000 and memory < 280_000  # there may be millions, in each process


@pytest.mark.fault(5, "an HDF5 file with links to other files, a virtual or an endless array", "refused in one line")
def test_nothing_of_another_file_is_read(tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file.create_dataset("a/1.png", data=np.frombuffer(b"secret", np.uint8))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("a")
        group["1.png"] = h5py.ExternalLink(str(secret), "a/1.png")
        layout = h5py.VirtualLayout((6,), np.uint8)
        layout[:] = h5py.VirtualSource(str(secret), "a/1.png", (6,))
        group.create_virtual_dataset("2.png", layout)
        group.create_dataset("3.png", (6,), np.uint8, external=[(str(secret), 0, 6)])
        group.create_dataset("4.png", (2**40,), np.uint8, chunks=(2**20,))
        group["5.png"] = h5py.SoftLink("/nowhere")
        group.create_dataset("6.png", data=[1.5, 2.5])
        group.create_group("7.png")
    for image in list_images("h5", tmp_path / "x.h5").images:
        with pytest.raises(BrokenImageError, match=rf"{image.part} can't be read as an image \((?!no )[^\n]+\); write"):
            image.read()
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["a"] = h5py.ExternalLink(str(secret), "a")
    with pytest.raises(UserError, match="'a' is a link to another file"):
        list_images("h5", tmp_path / "y.h5")
