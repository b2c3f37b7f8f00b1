"""How a file becomes an image: one decision for folders, tables, shards, HDF5, hubs and `solo inspect` alike. No torch.

Pillow holds one or three channels. An image of n, the stains of a microscope or the bands of a satellite, is a uint8
array `(H, W, n)`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from solo.data.storage.facts import ReadingKeys
from solo.data.storage.folders import Problems, is_ignored, is_image_name
from solo.data.storage.opening import (
    SIDEWAYS,
    File,
    Values,
    deep_colours,
    image_shape,
    is_deep,
    is_npy,
    npy_head,
    opened,
    png_values,
    read_npy,
    stream_of,
    turn_of,
)
from solo.data.storage.stored import Stored
from solo.errors import BrokenImageError, printable, reason

Array = np.ndarray[Any, np.dtype[np.uint8]]


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

    def read(self, source: File | Stored, name: str | None = None, at_least: int | None = None) -> Any:
        """Decode a file, or the bytes of one: an RGB image of Pillow, for other channels than 1 and 3 an array.

        Arrays of NumPy are `(H, W)`, `(H, W, n)` or `(n, H, W)`. Of animations the first picture is read. n channels
        are the pages and bands of a file together, such as a TIFF file of several pages. Messages call it `name`, by
        default the path or the image's own. Where `at_least` pixels of the shorter side are enough, larger JPEG files
        are decoded at 1/2, 1/4 or 1/8. Raises a `BrokenImageError`, which names it: missing, truncated, too large, no
        image, or of other channels.
        """
        try:
            file = _file(source)
            if self.channels in (1, 3):
                return self._picture(file, at_least)
            planes = read_npy(file, (self.channels,), self.max_pixels) if is_npy(file) else self._pages(file)
            if planes.shape[2] != self.channels:
                text = f"has {planes.shape[2]} channels, and data.channels={self.channels}"
                raise _Channels(text, planes.shape[2])
            return cast(Array, np.ascontiguousarray(self.eight_bits(planes)))
        except BrokenImageError:  # what holds the file has named it
            raise
        except Exception as error:  # of foreign code on foreign bytes: what plug-ins raise has no common type
            raise broken(str(name or source), error) from error

    def head(self, source: File | Stored, name: str | None = None) -> Head:
        """What the file says of its image, without decoding it; raises as `read`."""
        try:
            return self._head(_file(source))
        except Exception as error:  # as in `read`
            raise broken(str(name or source), error) from error

    def _head(self, file: File) -> Head:
        if is_npy(file):
            with stream_of(file) as stream:
                shape, kind, _ = npy_head(stream, self.max_pixels)
            # There are fewer channels than pixels, where it isn't said; grey has no axis for them.
            likely = (1,) if len(shape) == 2 else (min(shape[0], shape[-1]),)
            height, width, found = image_shape(shape, likely if self.channels in (1, 3) else (self.channels,))
            return Head((width, height), {1: "L", 3: "RGB"}.get(found, f"{found} channels"), kind.itemsize > 1)
        with opened(file, self.max_pixels) as image:
            bands = len(image.getbands())
            pages = getattr(image, "n_frames", 1) * bands if image.format == "TIFF" else bands
            turn = turn_of(image)
            return Head(
                image.size[::-1] if self.exif and turn in SIDEWAYS else image.size,
                f"{pages} channels" if pages > bands else image.mode,
                is_deep(image) or deep_colours(image),
                turn is not None,
                image.has_transparency_data,
            )

    def values(self, source: File | Stored) -> Values:
        """The numbers of an image as they are stored, in any order; raises as `read`."""
        try:
            file = _file(source)
            if is_npy(file):
                return read_npy(file, (1, 3, 4, self.channels), self.max_pixels)
            with opened(file, self.max_pixels) as image:
                if not deep_colours(image):
                    return np.asarray(image)
                # Of other formats Pillow gives the upper 8 of 16 bits: enough to see how far they go.
                return png_values(file) if image.format == "PNG" else np.asarray(image).astype(np.uint16) * 257
        except Exception as error:  # as in `read`
            raise broken(str(source), error) from error

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
            raise ValueError(
                f"its values go from {wide.min():g} to {wide.max():g}, they have to be in {low} to {high:,}, or give "
                "data.range=[BLACK,WHITE]"
            )
        return np.rint((wide.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)

    def _picture(self, source: File, at_least: int | None) -> Image.Image:
        if is_npy(source):
            array = self.eight_bits(read_npy(source, (1, 3, 4), self.max_pixels))
            if array.shape[2] not in (1, 3, 4):
                raise _Channels(f"has {array.shape[2]} channels", array.shape[2])
            return self._flat(Image.fromarray(array[..., 0] if array.shape[2] == 1 else array))
        with opened(source, self.max_pixels) as image:
            turn = turn_of(image) if self.exif else None  # its EXIF is gone once it is another image
            if at_least is not None and min(image.size) > at_least:
                scale = at_least / min(image.size)
                image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
            if self.range is not None and deep_colours(image):
                if image.format != "PNG":
                    raise ValueError("of 16 bits a colour only 8 can be read here; store it as PNG or .npy")
                values = self.eight_bits(png_values(source))
                picture = Image.fromarray(values, "LA" if values.shape[2] == 2 else None)
            else:
                picture = self._shallow(image)
            picture = self._flat(picture)
            return picture if turn is None else picture.transpose(turn)

    def _shallow(self, image: Image.Image) -> Image.Image:
        """The same with 8 bits a value, where Pillow would cut off what is above."""
        if is_deep(image):
            return Image.fromarray(self.eight_bits(np.asarray(image)))
        if self.range is not None and self.range[1] <= 255 and image.mode in ("L", "RGB"):
            return Image.fromarray(self.eight_bits(np.asarray(image)))
        return image

    def _flat(self, image: Image.Image) -> Image.Image:
        """RGB, with the background behind what is transparent."""
        if not image.has_transparency_data:
            return image.convert("RGB")
        behind = Image.new("RGBA", image.size, (*self.background, 255))
        return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")

    def _pages(self, source: File) -> Values:
        with opened(source, self.max_pixels) as image:
            pages = [np.asarray(self._shallow(page)) for page in ImageSequence.Iterator(image)]
        return np.concatenate([page[..., None] if page.ndim == 2 else page for page in pages], axis=2)


def broken(name: str, error: Exception) -> BrokenImageError:
    """The error that names a file that can't be decoded."""
    name = printable(name)
    if isinstance(error, _Channels):
        return BrokenImageError(f"{name} {error}; set data.channels={error.found}, and as many data.mean and data.std")
    return BrokenImageError(f"{name} can't be read as an image ({why(error)}); replace or remove the file")


def why(error: Exception) -> str:
    """What is wrong with a file, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "no known image format"
    if isinstance(error, Image.DecompressionBombError):
        return "it has more pixels than data.max_pixels allows"
    return reason(error)


class _Channels(ValueError):
    """An image of another number of channels."""

    def __init__(self, text: str, found: int) -> None:
        super().__init__(text)
        self.found = found


def _file(source: File | Stored) -> File:
    return BytesIO(source.read()) if isinstance(source, Stored) else source


def flat_images(folder: Path, problems: Problems | None = None) -> list[str]:
    """Names of the images directly in a folder, sorted: by their suffix, else by their first bytes.

    `problems` is told of what is left out.
    """
    found, problems = [], problems or Problems()
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_ignored(entry.name) or not os.path.isfile(entry.path):
                problems.leave_out(entry.name, None if os.path.isfile(entry.path) else "folders, pipes and dead links")
            elif is_image_name(entry.name) or _is_image(entry.path):
                found.append(entry.name)
            else:
                problems.leave_out(entry.name)
    return sorted(found)


def _is_image(path: str) -> bool:
    try:
        ImageReading().head(path)
        return True
    except BrokenImageError:
        return False


def as_picture(image: Any) -> Image.Image:
    """What people see of an image: the first three channels, or the first one."""
    if isinstance(image, Image.Image):
        return image
    image = np.asarray(image)
    return Image.fromarray(image[..., :3] if image.shape[2] >= 3 else image[..., 0])
