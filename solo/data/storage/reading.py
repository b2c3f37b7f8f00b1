"""How a file becomes an image: one decision for folders, tables, shards, HDF5, hubs and `solo inspect` alike.

Pillow holds one or three channels. An image of n, the bands of a satellite, is a uint8 array `(H, W, n)`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import ExifTags, Image, ImageSequence, UnidentifiedImageError
from PIL.Image import Transpose

from solo.data.storage.facts import Problems, ReadingKeys, Stored, is_ignored, is_image_name
from solo.errors import BrokenImageError, printable, reason
from solo.files import regular

File = str | Path | BytesIO | Stored
Values = np.ndarray[Any, Any]
Array = np.ndarray[Any, np.dtype[np.uint8]]
_WHITES = (255, 1023, 4095, 16383, 65535)  # the largest values of 8, 10, 12, 14 and 16 bits
_UPRIGHT = (Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM)
_SIDEWAYS = (Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90)
_TURNS = dict(enumerate((*_UPRIGHT, *_SIDEWAYS), start=2))  # by orientation


@dataclass(frozen=True)
class Head:
    """What a file says of its image before a pixel is decoded."""

    size: tuple[int, int]  # width and height, as it is read
    mode: str  # pillow's (L, RGB, ...), or "n channels" of an array or of several pages
    deep: bool = False  # whether a value has more than 8 bits
    turned: bool = False  # whether its EXIF says that the camera was turned or the picture mirrored
    transparent: bool = False  # whether something of what lies behind it is seen


class ImageReading(ReadingKeys):
    """Reads files as the keys say."""

    @classmethod
    def by(cls, keys: ReadingKeys) -> ImageReading:
        """A reader of files that obeys these keys."""
        return cls(**vars(keys))

    def read(self, source: File, name: str | None = None, at_least: int | None = None) -> Any:
        """Decode a file, or the bytes of one: an RGB image of Pillow, for other channels than 1 and 3 an array.

        Arrays of NumPy are `(H, W)`, `(H, W, n)` or `(n, H, W)`. Of animations the first picture is read; n channels
        are the pages and bands of a file together. Where `at_least` pixels of the shorter side are enough, larger JPEG
        files are decoded at 1/2, 1/4 or 1/8. Raises a `BrokenImageError`, which names it by `name`, default its path:
        missing, truncated, too large, no image, or of other channels.
        """
        pictures = self.channels in (1, 3)
        wanted = (1, 3, 4) if pictures else (self.channels,)
        with _opened(source, name) as file:
            if _is_npy(file):
                planes = _read_npy(file, wanted, self.max_pixels)
            else:
                with _pillow(file, self.max_pixels) as image:
                    if pictures:
                        if at_least is not None and min(image.size) > at_least:
                            scale = at_least / min(image.size)
                            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
                        return self.picture(image, file)
                    pages = [np.asarray(self._shallow(page)) for page in ImageSequence.Iterator(image)]
                planes = np.concatenate([page[..., None] if page.ndim == 2 else page for page in pages], axis=2)
            if (found := planes.shape[2]) not in wanted:
                what = f"{printable(name or source)} has {found} channels"
                what += "" if pictures else f", and data.channels={self.channels}"
                raise BrokenImageError(f"{what}; set data.channels={found}, and as many data.mean and data.std")
            planes = self.eight_bits(planes)
            if not pictures:
                return cast(Array, np.ascontiguousarray(planes))
            return self.flat(Image.fromarray(planes[..., 0] if planes.shape[2] == 1 else planes))

    def head(self, source: File, name: str | None = None) -> Head:
        """What the file says of its image, without decoding it; raises as `read`."""
        with _opened(source, name) as file:
            if _is_npy(file):
                shape, kind = _npy_head(file, self.max_pixels)
                # There are fewer channels than pixels, where it isn't said; grey has no axis for them.
                likely = (1,) if len(shape) == 2 else (min(shape[0], shape[-1]),)
                axes = _image_shape(shape, likely if self.channels in (1, 3) else (self.channels,))
                mode = {1: "L", 3: "RGB"}.get(axes[2], f"{axes[2]} channels")
                return Head((axes[1], axes[0]), mode, kind.itemsize > 1)
            with _pillow(file, self.max_pixels) as image:
                bands = len(image.getbands())
                pages = getattr(image, "n_frames", 1) * bands if image.format == "TIFF" else bands
                turn = _turn_of(image)
                return Head(
                    image.size[::-1] if self.exif and turn in _SIDEWAYS else image.size,
                    f"{pages} channels" if pages > bands else image.mode,
                    _is_deep(image) or _deep_colours(image),
                    turn is not None,
                    image.has_transparency_data,
                )

    def eight_bits(self, values: Values) -> Values:
        """An array of any numbers as uint8; a `ValueError` for values with no place between black and white."""
        if values.size == 0 or values.dtype.kind == "c":
            raise ValueError(f"it holds {'complex numbers' if values.size else 'nothing'}")
        if values.dtype == np.uint8 and (self.range is None or self.range[1] > 255 or self.range == (0, 255)):
            return values
        if values.dtype.kind == "b":
            return values.astype(np.uint8) * np.uint8(255)
        wide = values.astype(np.float64)
        if not np.isfinite(wide).all():
            raise ValueError("it holds values that are infinite or no numbers")
        low, high = self.range or (0, 65535 if values.dtype.kind in "iu" else 1)
        if self.range is None and (wide.min() < low or wide.max() > high):
            what = f"its values go from {wide.min():g} to {wide.max():g}"
            raise ValueError(f"{what}, they have to be in {low} to {high:,}, or give data.range=[BLACK,WHITE]")
        return np.rint((wide.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)

    def picture(self, image: Image.Image, file: BinaryIO | None = None) -> Image.Image:
        """A picture that is open, of that `file` if any, as `read` gives it; a `ValueError` where this can't be."""
        _require_size(*image.size, image.width * image.height)
        turn = _turn_of(image) if self.exif else None  # its EXIF is gone once it is another image
        if self.range is None or not _deep_colours(image):
            image = self._shallow(image)
        elif file is not None and image.format == "PNG":
            image = Image.fromarray(self.eight_bits(_png_values(file)))
        else:
            raise ValueError("of 16 bits a colour only 8 can be read here; store it as PNG or .npy")
        return self.flat(image, turn)

    def flat(self, image: Image.Image, turn: Transpose | None = None) -> Image.Image:
        """RGB, with the background behind what is transparent, turned."""
        if image.has_transparency_data:
            behind = Image.new("RGBA", image.size, (*self.background, 255))
            image = Image.alpha_composite(behind, image.convert("RGBA"))
        return image.convert("RGB") if turn is None else image.convert("RGB").transpose(turn)

    def _stored(self, source: File) -> Values:
        """The numbers of an image as they are stored, in any order."""
        with _opened(source) as file:
            if _is_npy(file):
                return _read_npy(file, (1, 3, 4, self.channels), self.max_pixels)
            with _pillow(file, self.max_pixels) as image:
                if not _deep_colours(image):
                    return np.asarray(image)
                # Of other formats Pillow gives the upper 8 of 16 bits: enough to see how far they go.
                return _png_values(file) if image.format == "PNG" else np.asarray(image).astype(np.uint16) * 257

    def _shallow(self, image: Image.Image) -> Image.Image:
        """The same with 8 bits a value, where Pillow would cut off what is above."""
        narrow = self.range is not None and self.range[1] <= 255 and image.mode in ("L", "RGB")
        return Image.fromarray(self.eight_bits(np.asarray(image))) if _is_deep(image) or narrow else image


@functools.lru_cache(maxsize=16)
def look_at(
    sources: tuple[str | Stored, ...], keys: ReadingKeys, state: str
) -> tuple[int, ReadingKeys, tuple[str, ...]]:
    """Of a sample: pixels of the median shorter side (0 of no image), the keys with black and white, what to say.

    Only heads are read, and the values of those with more than 8 bits; `state` changes with the files.
    """
    reading, heads, ends = ImageReading.by(keys), list[Head](), list[tuple[float, float, bool]]()
    for source in sources:
        with suppress(BrokenImageError):  # named by whoever needs it
            heads.append(reading.head(source))
            if heads[-1].deep:
                values = reading._stored(source)
                ends.append((float(values.min()), float(values.max()), values.dtype.kind == "f"))
    keys = keys if keys.range is not None else dataclasses.replace(keys, range=_range(ends))
    of, notes = f"of a sample of {len(heads):,} images", []
    turned, transparent, deep = (sum(getattr(h, name) for h in heads) for name in ("turned", "transparent", "deep"))
    if deep and keys.range is not None:
        what = "{:g} is black and {:,.15g} white".format(*keys.range)
        notes.append(f"images with more than 8 bits a value: {what} (data.range)")
    if turned and keys.exif:
        notes.append(f"{turned:,} {of} are turned as their EXIF says; data.exif=false takes them as stored")
    if transparent and keys.channels in (1, 3):
        notes.append(f"{transparent:,} {of} are transparent; behind them is data.background={[*keys.background]}")
    return round(median(min(head.size) for head in heads)) if heads else 0, keys, tuple(notes)


def _range(ends: Sequence[tuple[float, float, bool]]) -> tuple[float, float] | None:
    """Black and white: the fewest bits that hold all values, up to 16; the values' own ends beyond, and below zero."""
    # Floating point from 0 to 1 is what it should be; beside integers these decide.
    finite = (end for end in ends if np.isfinite(end[:2]).all())
    known = [(low, high, real) for low, high, real in finite if not (real and low >= 0 and high <= 1)]
    if not known:
        return None
    low, high = min(low for low, *_ in known), max(high for _, high, _ in known)
    if low < 0:
        return (-1.0, 1.0) if low >= -1 and high <= 1 else (low, max(high, low + 1))
    white = next((white for white in _WHITES if high <= white), high)
    return None if white == 65535 and not any(real for *_, real in known) else (0.0, float(white))


def flat_images(folder: Path, problems: Problems | None = None) -> list[str]:
    """Sorted names of the images directly in a folder, by their suffix or first bytes; `problems` is told of others."""
    found, problems = [], problems or Problems()
    for name in sorted(os.listdir(folder)):
        try:
            if not os.path.isfile(folder / name):
                problems.leave_out(name, "folders, pipes and dead links")
            elif is_ignored(name):
                problems.leave_out(name)
            elif is_image_name(name) or ImageReading().head(folder / name):
                found.append(name)
        except BrokenImageError:
            problems.leave_out(name)
    return found


def as_picture(image: Any) -> Image.Image:
    """What people see of an image: the first three channels, or the first one."""
    if isinstance(image, Image.Image):
        return image
    image = np.asarray(image)
    return Image.fromarray(image[..., :3] if image.shape[2] >= 3 else image[..., 0])


@contextmanager
def _opened(source: File, name: str | None = None) -> Iterator[BinaryIO]:
    """The bytes of an image file; whatever is wrong with it becomes a `BrokenImageError` that names it."""
    name = printable(name or source)
    try:
        if not isinstance(source, (str, Path)):
            yield BytesIO(source.getvalue() if isinstance(source, BytesIO) else source.read())
            return
        if regular(Path(source)).stat().st_size == 0:  # a pipe waits for ever for someone who writes
            raise ValueError("it is empty (0 bytes)")
        with open(source, "rb") as file:
            yield file
    except BrokenImageError:  # what holds the file has named it
        raise
    except Exception as error:  # of foreign code on foreign bytes: what plug-ins raise has no common type
        what = reason(error)
        if isinstance(error, UnidentifiedImageError):
            what = "no known image format"
        elif isinstance(error, Image.DecompressionBombError):
            what = "it has more pixels than data.max_pixels allows"
        raise BrokenImageError(f"{name} can't be read as an image ({what}); replace or remove the file") from error


@contextmanager
def _pillow(file: BinaryIO, most: int) -> Iterator[Image.Image]:
    """An image file with its head read, of at most so many pixels."""
    # Pillow has one limit for the whole process, warns above it and refuses twice as much. It is never lowered.
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < most:
        Image.MAX_IMAGE_PIXELS = most
    # What it has to say of damaged EXIF and large images would be printed amid the training.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with Image.open(file) as image:
        _require_size(*image.size, most)
        if image.format in ("EPS", "WMF"):  # Ghostscript, or Windows, would run what is in it
            raise ValueError("PostScript and Windows metafiles are programs; store it as PNG")
        if image.format == "TIFF":  # Pillow leaves black what no strip covers
            tiles: Any = getattr(image, "tile", ())
            held = sum((x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), *_ in tiles)
            if held < image.width * image.height:
                raise ValueError(f"it has {image.width} x {image.height} pixels, of which {held:,} are in the file")
        yield image


def _require_size(width: int, height: int, most: int) -> None:
    """Refuse images without a pixel, and such that would unpack to more than `most`."""
    if width < 1 or height < 1:
        raise ValueError(f"it has {width} x {height} pixels")
    if width * height > most:
        what = f"it has {width} x {height} = {width * height:,} pixels, more than data.max_pixels={most}"
        raise ValueError(f"{what}; raise that if the file is to be trusted")


def _is_deep(image: Image.Image) -> bool:
    """Grey of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def _deep_colours(image: Image.Image) -> bool:
    """Whether Pillow keeps 8 of 16 bits a colour."""
    tiles: Any = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    rawmode = args[0] if isinstance(args, tuple) and args else args
    return isinstance(rawmode, str) and ";16" in rawmode and not _is_deep(image)


def _png_values(file: BinaryIO) -> Values:
    """uint16 `(H, W, C)` of a PNG file with 16 bits a colour."""
    import torch  # such files only
    from torchvision.io import decode_png

    file.seek(0)
    content = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    return cast(Values, decode_png(content).movedim(0, 2).numpy())


def _turn_of(image: Image.Image) -> Transpose | None:
    """How the picture has to be turned; None where it stands, or where its EXIF is damaged and says nothing."""
    if image.format == "TIFF":  # Pillow turns these itself
        return None
    if image.format == "PNG" and not {"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"} & set(image.info):
        return None  # Pillow would look behind the pixels, and decode them
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as above: EXIF is a small file system of its own, written by anyone
        return None


def _is_npy(file: BinaryIO) -> bool:
    """Whether it is an array of NumPy: a file by its name, bytes by their beginning."""
    if isinstance(file, BytesIO):
        return file.getvalue().startswith(b"\x93NUMPY")
    return str(file.name).lower().endswith(".npy")


def _read_npy(file: BinaryIO, channels: Collection[int], most: int) -> Values:
    """An array as `(H, W, n)`; the channels stand first or last, whichever fits."""
    shape, _ = _npy_head(file, most)
    file.seek(0)
    array: Values = np.load(file, allow_pickle=False)
    found = _image_shape(shape, channels)
    return array.transpose(1, 2, 0) if array.ndim == 3 and found != shape else array.reshape(found)


def _npy_head(file: BinaryIO, most: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array of numbers, in a file as long as it says."""
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = reader(file)
    start = file.tell()
    there = file.seek(0, os.SEEK_END) - start
    if kind.kind not in "biuf":
        raise ValueError(f"an array of type {kind} is no image")
    _image_shape(shape, ())
    declared = int(np.prod([int(n) for n in shape], dtype=object)) * kind.itemsize
    if declared > there:
        raise ValueError(f"its head declares {declared:,} bytes of pixels, and {there:,} are there")
    if min(shape) < 1:
        raise ValueError(f"an array of shape {shape} has no pixels")
    height, width = sorted(shape)[-2:]
    _require_size(width, height, most)
    return shape, kind


def _image_shape(shape: tuple[int, ...], channels: Collection[int]) -> tuple[int, int, int]:
    """Height, width and channels of an array; these stand first if they don't fit as the last."""
    shape = (*shape, 1) if len(shape) == 2 else shape
    if len(shape) != 3:
        raise ValueError(f"an array of {len(shape)} axes is no image")
    first, middle, last = shape
    return (middle, last, first) if last not in channels and first in channels else (first, middle, last)
