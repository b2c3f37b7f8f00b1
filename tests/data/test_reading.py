"""How files become images, whoever reads them; and what a folder of own images may hold."""

from __future__ import annotations

import os
import socket
import struct
import tarfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from solo.cli import main
from solo.data.cache import KeptImages, cached
from solo.data.catalogue.registry import check_path, get_spec, resolve_spec
from solo.data.sources.images import load
from solo.data.storage.facts import is_image_name
from solo.data.storage.reading import ImageReading
from solo.data.views.batched import BatchAugment
from solo.data.views.pipelines import Normalize
from solo.errors import BrokenImageError, UserError, printable

RAMP = np.linspace(0, 1, 16 * 12).reshape(16, 12)
BYTES = np.rint(RAMP * 255).astype(np.uint8)


def png16(values: np.ndarray[Any, Any]) -> bytes:
    """A PNG file of 16 bits a channel, which Pillow writes for grey only."""
    height, width = values.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values.size // (height * width)]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff16(values: np.ndarray[Any, Any]) -> bytes:
    """The same as TIFF, not compressed."""
    height, width, colours = values.shape
    pixels = values.astype("<u2").tobytes()
    tags = {256: width, 257: height, 259: 1, 262: 2, 273: 8, 277: colours, 278: height, 279: len(pixels), 284: 1}
    bits = 8 + len(pixels) + 2 + 12 * (len(tags) + 1) + 4
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    entries.insert(2, struct.pack("<HHII", 258, 3, colours, bits))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory + struct.pack("<HHH", 16, 16, 16)


def write(path: Path, image: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    elif path.suffix == ".npy":
        np.save(path, image)
    else:
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    return path


def grey(image: Any) -> np.ndarray[Any, Any]:
    return np.asarray(image)[..., 0].astype(int)


DEEP: dict[str, tuple[str, Any, list[float] | None]] = {
    "12 bits in a PNG": ("a.png", (RAMP * 4095).astype(np.uint16), [0, 4095]),
    "12 bits a colour": ("a.png", png16(np.repeat((RAMP * 4095).astype(np.uint16)[..., None], 3, 2)), [0, 4095]),
    "16 bits a colour": ("a.png", png16(np.repeat((RAMP * 65535).astype(np.uint16)[..., None], 3, 2)), None),
    "16 bits a colour in a TIFF": ("a.tif", tiff16(np.repeat((RAMP * 65535).astype(np.uint16)[..., None], 3, 2)), None),
    "10 bits in a TIFF": ("a.tiff", (RAMP * 1023).astype(np.uint16), [0, 1023]),
    "12 bits in int32": ("a.tif", (RAMP * 4095).astype(np.int32), [0, 4095]),
    "17 bits in int32": ("a.tif", (RAMP * 70_000).astype(np.int32), [0, 70_000]),
    "float to 4095": ("a.npy", RAMP * 4095, [0, 4095]),
    "float to 255": ("a.npy", (RAMP * 255).astype(np.float32), [0, 255]),
    "float -1 to 1": ("a.npy", RAMP * 2 - 1, [-1, 1]),
    "CT": ("a.npy", np.rint(RAMP * 4000 - 1000).astype(np.int16), [-1000, 3000]),
    "16 bits": ("a.png", (RAMP * 65535).astype(np.uint16), None),
    "float to 1": ("a.npy", RAMP, None),
    "8 bits": ("a.png", BYTES, None),
}


@pytest.mark.fault(
    2,
    "10, 12 or 14 bits in 16, floating point to 255 or 4,095, CT below zero",
    "black and white are found in a sample, said, stored; as bright as with 8 bits",
)
@pytest.mark.parametrize("kind", DEEP)
def test_black_and_white_are_found_in_the_training_images(tmp_path: Path, kind: str) -> None:
    name, image, want = DEEP[kind]
    for part in ("a", "b"):
        write(tmp_path / part / name, image)
    spec = resolve_spec({"dataset": "custom", "train_path": str(tmp_path)})
    assert (spec.reading.range and list(spec.reading.range)) == want
    assert any("is white" in note or " white" in note for note in spec.notes) == (want is not None)
    for data in (load(spec, "train", tmp_path), load(spec, "val", tmp_path)):
        picture: Any = data[0][0]
        assert abs(grey(picture) - np.rint(RAMP * 255)).max() <= 1, "the same picture as with 8 bits"


@pytest.mark.fault(2, "12 bits a colour in a TIFF, of which Pillow reads 8", "refused, with a way")
def test_deep_colours_that_pillow_cuts_off_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "a.tif", tiff16(np.repeat((RAMP * 4095).astype(np.uint16)[..., None], 3, 2)))
    spec = resolve_spec({"dataset": "custom", "train_path": str(tmp_path)})
    assert spec.reading.range == (0, 4095)
    with pytest.raises(BrokenImageError, match="of 16 bits a colour only 8 can be read here; store it as PNG or .npy"):
        ImageReading.by(spec.reading).read(path)


@pytest.mark.parametrize("form", ["webdataset", "h5", "table"])
def test_other_sources_are_looked_at_as_well(tmp_path: Path, form: str) -> None:
    image = write(tmp_path / "folder" / "a" / "1.png", (RAMP * 4095).astype(np.uint16))
    path = tmp_path / {"webdataset": "a.tar", "h5": "a.h5", "table": "a.csv"}[form]
    if form == "h5":
        h5py = pytest.importorskip("h5py")
        content = np.frombuffer(image.read_bytes(), np.uint8)
        with h5py.File(path, "w") as file:
            file.create_dataset("a/1.png", data=content)
    elif form == "table":
        path.write_text(f"path,label\n{image},a\n")
    else:
        (tmp_path / "1.cls").write_text("0")
        with tarfile.open(path, "w") as tar:
            tar.add(image, "1.png")
            tar.add(tmp_path / "1.cls", "1.cls")
    spec = resolve_spec({"dataset": "custom", "format": form, "train_path": str(path)})
    data: Any = load(spec, "train", path, data_format=form)
    assert spec.reading.range == (0, 4095) and spec.side > 0 and grey(data[0][0]).max() == 255
    assert main(["inspect", str(path)]) == 0


@pytest.mark.fault(2, "`data.range` of a window", "what lies outside is black or white")
def test_a_given_range_is_a_window(tmp_path: Path) -> None:
    path = write(tmp_path / "a" / "a.npy", np.array([[-500.0, 0.0, 50.0, 100.0, 900.0]]))
    spec = resolve_spec({"dataset": "custom", "train_path": str(tmp_path), "range": [0, 100]})
    data: Any = load(spec, "train", tmp_path)
    assert grey(data[0][0]).tolist() == [[0, 0, 127, 255, 255]]
    assert grey(
        ImageReading(range=(0, 15)).read(write(tmp_path / "b.png", np.array([[0, 15]], np.uint8)))
    ).tolist() == [[0, 255]], "of 8 bits, too, where white is one of their values"
    with pytest.raises(BrokenImageError, match=r"go from -500 to 900, .*data.range=\[BLACK,WHITE\]"):
        ImageReading().read(path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"range": [5, 5]}, "black must be below white"),
        ({"range": [0, float("inf")]}, "black must be below white"),
        ({"range": [4095]}, "give 2"),
        ({"background": [255]}, "give 3"),
    ],
)
def test_keys_that_say_nothing_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageReading.of(keys)


@pytest.mark.fault(2, "each of the eight EXIF orientations", "turned as viewers show it; `data.exif=false` as stored")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_turns_pictures(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = Image.fromarray(np.kron(np.array([[0, 90, 255], [40, 150, 200]], np.uint8), np.ones((8, 8), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    stored.convert("RGB").save(path, exif=exif, lossless=True, quality=100)
    turns = {1: "", 2: "h", 3: "hv", 4: "v", 5: "t", 6: "th", 7: "thv", 8: "tv"}[orientation]
    want = np.asarray(stored).astype(int)
    for turn in turns:
        want = want.T if turn == "t" else want[:, ::-1] if turn == "h" else want[::-1]
    reading = ImageReading()
    assert abs(grey(reading.read(path)) - want).max() <= 3
    assert reading.head(path).size == want.shape[::-1], "the cache's"
    assert abs(grey(ImageReading(exif=False).read(path)) - np.asarray(stored).astype(int)).max() <= 3


@pytest.mark.fault(2, "damaged EXIF", "the picture is read as stored")
def test_damaged_exif_says_nothing(tmp_path: Path) -> None:
    for content in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        Image.fromarray(BYTES).save(tmp_path / "a.jpg", exif=content)
        assert ImageReading().read(tmp_path / "a.jpg").size == (12, 16)


def see_through(mode: str) -> Image.Image:
    """Red hidden under nothing on the left, grey of 51 on the right."""
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:, :2] = (200, 0, 0, 0)
    rgba[:, 2:] = (51, 51, 51, 255)
    image = Image.fromarray(rgba)
    return image.quantize() if mode == "P" else image.convert(mode)


@pytest.mark.fault(
    2, "transparent PNG, GIF, WebP, palettes, grey with alpha", "on `data.background`, never the hidden colours"
)
@pytest.mark.parametrize(
    ("mode", "suffix"), [("RGBA", ".png"), ("LA", ".png"), ("P", ".png"), ("P", ".gif"), ("RGBA", ".webp")]
)
def test_transparent_pictures_lie_on_the_background(tmp_path: Path, mode: str, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    see_through("RGBA" if suffix == ".gif" else mode).save(path := tmp_path / f"a{suffix}", **options)
    for background in ((255, 255, 255), (0, 128, 10)):
        found = np.asarray(ImageReading(background=background).read(path))
        assert found[0, 0].tolist() == list(background) and abs(found[0, 3].astype(int) - 51).max() <= 1


def test_images_without_exif_and_alpha_are_what_pillow_reads(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (16, 12, 3)).astype(np.uint8)
    for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr"):
        image = Image.fromarray(colours).convert(mode)
        image.save(path := tmp_path / f"a{'.tiff' if mode in ('CMYK', 'YCbCr') else '.png'}")
        with Image.open(path) as opened:
            assert np.array_equal(np.asarray(ImageReading().read(path)), np.asarray(opened.convert("RGB")))


def head_only(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue()


BROKEN: dict[str, tuple[str, Any, str]] = {
    "declares 2.7 TiB": ("a.npy", head_only((600_000, 600_000)), r"declares 2,880,000,000,000 bytes.* and 0 are there"),
    "cut off": ("a.npy", head_only((4, 4)) + b"12345678", "declares 128 bytes of pixels, and 8 are there"),
    "huge in few bytes": ("a.npy", head_only((2**40, 0)), "has no pixels"),
    "head only": ("a.npy", b"\x93NUMPY\x01\0", "can't be read as an image"),
    "text": ("a.npy", np.array([["a", "b"]]), "is no image"),
    "objects": ("a.npy", np.array([{}], dtype=object), "is no image"),
    "complex": ("a.npy", np.zeros((2, 2), complex), "is no image"),
    "infinite": ("a.npy", np.array([[np.inf, 0.0]]), "infinite"),
    "empty": ("a.png", b"", r"it is empty \(0 bytes\)"),
    "truncated": ("a.jpg", b"", "truncated"),
    "no image": ("a.gif", b"GIF87a", "can't be read as an image"),
    "four axes": ("a.npy", np.zeros((3, 3, 3, 3)), "4 axes"),
}


@pytest.mark.fault(
    2,
    "`.npy` that declares 2.7 TiB, is cut off, holds objects or `inf`; empty and truncated files",
    "named in one line, or skipped",
)
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named_or_skipped(tmp_path: Path, kind: str) -> None:
    name, content, message = BROKEN[kind]
    if kind == "truncated":
        stream = BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(stream, "JPEG")
        content = stream.getvalue()[:900]
    path = write(tmp_path / "a" / f"1{Path(name).suffix}", content)
    write(tmp_path / "a" / "2.png", BYTES)
    with pytest.raises(BrokenImageError, match=message) as caught:
        ImageReading().read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    spec = resolve_spec({"dataset": "custom", "train_path": str(tmp_path), "on_error": "skip"})
    data: Any = load(spec, "train", tmp_path)
    assert [data[i][1] for i in range(2)] == [-1, 0] and len(data.skipped()) == 1


@pytest.mark.fault(
    2, "a TIFF of 400 bytes that says it is 60,000 pixels high", "refused by its head, nothing is made up"
)
def test_strips_hold_what_the_head_says(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    Image.new("RGB", (9, 9), "red").save(file)
    assert ImageReading(channels=3).read(file).size == (9, 9)
    head = bytearray(file.read_bytes())
    at = head.index(struct.pack("<HHII", 257, 4, 1, 9))  # ImageLength
    struct.pack_into("<I", head, at + 8, 60_000)
    file.write_bytes(head)
    with pytest.raises(BrokenImageError, match="9 x 60000 pixels, of which 81 are in the file"):
        ImageReading(channels=3).read(file)


@pytest.mark.fault(2, "a picture of too many pixels", "refused by its head; `data.max_pixels`")
def test_the_number_of_pixels_is_a_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    assert ImageReading(max_pixels=2000).read(path).size == (50, 40)
    for source in (path, write(tmp_path / "a.npy", np.zeros((40, 50), np.uint8))):
        with pytest.raises(BrokenImageError, match="50 x 40 = 2,000 pixels, more than data.max_pixels=1999"):
            ImageReading(max_pixels=1999).read(source)
        with pytest.raises(BrokenImageError, match="data.max_pixels"):
            ImageReading(max_pixels=1999).head(source)


@pytest.mark.fault(2, "a pipe instead of an image", "refused, nothing waits")
def test_pipes_sockets_and_folders_never_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", tmp_path):
        with pytest.raises(BrokenImageError, match="pipe, socket or device"):
            ImageReading().read(path)


@pytest.mark.fault(5, "a PostScript program named like an image", "refused, nothing runs")
def test_an_image_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path, "EPS")
    for read in (ImageReading().read, ImageReading().head):
        with pytest.raises(BrokenImageError, match="PostScript and Windows metafiles are programs; store it as PNG"):
            read(path)


@pytest.mark.fault(2, "`.gif`, `.jfif`, `.avif`, `.jp2`, ... beside PNG", "read")
@pytest.mark.parametrize("suffix", [".gif", ".jfif", ".JPE", ".avif", ".jp2", ".tga", ".qoi", ".ico", ".pcx", ".npy"])
def test_what_pillow_reads_is_an_image(suffix: str) -> None:
    assert is_image_name(f"a{suffix}")
    assert not any(map(is_image_name, ("a.txt", "a.mpg", "a.eps", "a.h5", "a.heicx", "png", "Thumbs.db")))


def test_animations_are_their_first_picture(tmp_path: Path) -> None:
    first, second = (Image.new("L", (6, 5), value) for value in (10, 200))
    first.save(path := tmp_path / "a.gif", save_all=True, append_images=[second])
    assert grey(ImageReading().read(path)).max() <= 11


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    """Two classes of two images, and what else lies in folders."""
    root = tmp_path / "root"
    for name in ("cat", "dog"):
        for i in (1, 2):
            write(root / name / f"{i}.{'gif' if i == 2 else 'png'}", BYTES)
    for name in ("@eaDir", "__MACOSX", "lost+found", ".ipynb_checkpoints", "cat/@eaDir"):
        write(root / name / "x.png", BYTES)
    for name in ("cat/notes.txt", "dog/Thumbs.db", "dog/a.heic", "dog/.hidden.png"):
        (root / name).write_text("x")
    os.mkfifo(root / "dog" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "dog" / "s.png"))
    (root / "cat" / "self.png").symlink_to(root / "cat" / "self.png")
    return root


@pytest.mark.fault(2, "`@eaDir`, `__MACOSX`, texts, sockets, dead links among images", "left out, counted by suffix")
def test_what_is_no_image_is_left_out_and_counted(untidy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (untidy / "loop").symlink_to(untidy / "loop")
    with pytest.raises(UserError, match=r"self.png is a link to a file that isn't there"):
        resolve_spec({"dataset": "custom", "train_path": str(untidy)})
    (untidy / "cat" / "self.png").unlink()
    spec = resolve_spec({"dataset": "custom", "train_path": str(untidy), "on_error": "skip"})
    data: Any = load(spec, "train", untidy)
    assert spec.taxonomy and spec.taxonomy.class_names == ("cat", "dog") and len(data) == 4
    (line,) = [note for note in spec.notes if note.startswith("left out")]
    for text in ("@eaDir (2)", "__MACOSX (1)", "lost+found (1)", ".txt (1)", ".db (1)", ".heic (1)", "devices (2)"):
        assert text in line
    assert main(["inspect", str(untidy)]) == 0
    assert line in capsys.readouterr().out
    check_path(spec, str(untidy))  # a link to itself beside the classes is no error


@pytest.mark.fault(
    2, "names that are no UTF-8, hold line breaks or terminal escapes", "read; shown escaped, on one line"
)
def test_names_of_any_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (b"\xff\xfe", b"a\nb", b"c\x1b[31m"):
        write(tmp_path / "root" / os.fsdecode(name) / "1.png", BYTES)
        (tmp_path / "root" / os.fsdecode(name) / os.fsdecode(b"\xfa.png")).write_bytes(b"")
    keys = {"dataset": "custom", "train_path": str(tmp_path / "root"), "on_error": "skip"}
    data: Any = load(resolve_spec(keys), "train", tmp_path / "root")
    augment = BatchAugment([{"num_crops": 1, "crop_size": 8, "rrc": RRC}], [0.5] * 3, [0.5] * 3)
    images = cached(data, augment, folder=str(tmp_path / "cache"))
    assert isinstance(images, KeptImages) and len(images.fetch(range(6))) == 6
    assert main(["inspect", str(tmp_path / "root")]) == 0
    out = capsys.readouterr().out
    assert out.encode().decode() and "\x1b[31m" not in out and r"\xfa.png" in out and r"a\nb" in out
    assert printable(os.fsdecode(b"\xff\n\x1b")) == r"\xff\n\x1b" and printable("größe 图") == "größe 图"


RRC = {"enabled": True, "crop_min_scale": 0.5, "crop_max_scale": 1.0}


@pytest.mark.fault(2, "folders of unequal depth", "a ragged tree, or a line that says how to get it")
@pytest.mark.parametrize(
    ("folders", "classes", "note"),
    [
        (["cat/tabby", "car", "dog/hound/beagle"], 3, ""),
        (["cat", "dog"], 2, ""),
        (["cat/images", "dog/images"], 2, ""),
        (["cat", "dog/images"], 2, ""),
        (["cat", "cat/more", "dog"], 2, "data.levels=folders makes a label tree"),
    ],
)
def test_unequal_depth(tmp_path: Path, folders: list[str], classes: int, note: str) -> None:
    for name in folders:
        write(tmp_path / name / "1.png", BYTES)
    spec = resolve_spec({"dataset": "custom", "train_path": str(tmp_path)})
    assert spec.taxonomy and spec.taxonomy.num_classes == classes and len(load(spec, "train", tmp_path)) == len(folders)  # type: ignore[arg-type]
    assert spec.taxonomy.num_levels == (3 if "car" in folders else 1) and note in "".join(spec.notes)
    assert bool(spec.notes) == bool(note)


@pytest.mark.fault(2, "the folder above `train` and `val`", "used")
def test_the_folder_above_the_splits_is_used(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("val", 1)):
        for name in ("a", "b"):
            for i in range(count):
                write(tmp_path / split / name / f"{i}.png", BYTES)
    spec = resolve_spec({"dataset": "custom", "train_path": str(tmp_path)})
    assert spec.taxonomy and spec.taxonomy.class_names == ("a", "b") and "train is trained on" in spec.notes[0]
    assert [len(load(spec, split, tmp_path)) for split in ("train", "val")] == [4, 2]  # type: ignore[arg-type, misc]
    assert [len(load(get_spec("custom"), split, tmp_path)) for split in ("train", "val")] == [4, 2]  # type: ignore[arg-type, misc]


def nested(root: Path, folders: list[str]) -> dict[str, Any]:
    for name in folders:
        write(root / name / "1.png", BYTES)
    return {"dataset": "custom", "train_path": str(root)}


def as_table(root: Path, folders: list[str]) -> dict[str, Any]:
    write(root / "1.png", BYTES)
    rows = ["path,level1,level2", *(f"1.png,{name.replace('/', ',')}" for name in folders)]
    (root / "t.csv").write_text("\n".join(rows))
    columns = ["level1", "level2"]
    return {"dataset": "custom", "format": "table", "train_path": str(root / "t.csv"), "label_columns": columns}


@pytest.mark.fault(
    2, "validation classes that training lacks", "all listed at once; `data.unknown_classes=drop` or `label`"
)
@pytest.mark.parametrize("make", [nested, as_table])
def test_validation_classes_that_training_lacks(
    tmp_path: Path, make: Callable[[Path, list[str]], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    keys = make(tmp_path / "train", ["cat/a", "cat/b", "dog/c"])
    val = make(tmp_path / "val", ["cat/a", "cat/new", "bird/owl"])["train_path"]

    def labels(**more: Any) -> list[list[int]]:
        data: Any = load(resolve_spec({**keys, **more}), "val", val, levels=True, data_format=keys.get("format"))
        return [data[i][1].tolist() for i in range(len(data))]

    with pytest.raises(UserError, match=r"2 classes of 2 images .*(cat/new|new).*data.unknown_classes=drop"):
        labels()
    assert labels(unknown_classes="drop") == [[0, 0]] and "2 classes of 2 images" in caplog.text
    assert sorted(labels(unknown_classes="label")) == [[-1, -1], [0, -1], [0, 0]]


@pytest.mark.fault(2, "one file under two classes in a table", "said")
def test_a_file_with_two_labels_is_said(tmp_path: Path) -> None:
    write(tmp_path / "1.png", BYTES)
    (tmp_path / "t.csv").write_text("path,label\n1.png,cat\n1.png,cat\n1.png,dog\n")
    spec = resolve_spec({"dataset": "custom", "format": "table", "train_path": str(tmp_path / "t.csv")})
    assert "1.png: cat in row 1 and dog in row 3" in spec.notes[0] and "can't be learned" in spec.notes[0]
    (tmp_path / "t.csv").write_text("path,label\n1.png,cat\n1.png,cat\n")
    spec = resolve_spec({"dataset": "custom", "format": "table", "train_path": str(tmp_path / "t.csv")})
    assert spec.notes == ("rows that repeat the file and the labels of an earlier one, and count again: 1",)


@pytest.mark.fault(2, "mean and std of images in [0, 255]", "refused: divide by 255?")
@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([123.7, 116.3, 103.5], [0.2, 0.2, 0.2], "mean=.*divide by 255"),
        ([0.5, 0.5, 0.5], [58.4, 57.1, 57.4], "std=.*divide by 255"),
        ([-0.5, 0.5, 0.5], [0.2, 0.2, 0.2], "give 0 to 1"),
        ([0.5, 0.5, 0.5], [0.0009, 0.2, 0.2], "give 0.002 to 1"),
    ],
)
def test_impossible_statistics_are_refused(mean: list[float], std: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Normalize(mean, std, 3)
    Normalize([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], 3)  # values as they are
