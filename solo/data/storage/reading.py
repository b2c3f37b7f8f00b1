"""How a file becomes an image: one decision for folders, tables, shards, HDF5, hubs and `solo inspect` alike. No torch.

Pillow holds one or three channels. An image of n, the stains of a microscope or the bands of a satellite, is a uint8
array `(H, W, n)`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from solo.data.storage import opening
from solo.data.storage.facts import ReadingKeys
from solo.data.storage.folders import Problems, is_ignored, is_image_name
from solo.data.storage.opening import File, Values, deep_colours, is_deep, is_npy, opened
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


class _Channels(ValueError):
    """An image of another number of channels: how many, and what else to say."""


@contextmanager
def _named(source: File | Stored, name: str | None = None) -> Iterator[File]:
    """The file, or the bytes of one; whatever is wrong with it becomes a `BrokenImageError` that names it."""
    name = printable(str(name or source))
    try:
        yield BytesIO(source.read()) if isinstance(source, Stored) else source
    except BrokenImageError:  # what holds the file has named it
        raise
    except _Channels as error:
        found, more = error.args
        advice = f"set data.channels={found}, and as many data.mean and data.std"
        raise BrokenImageError(f"{name} has {found} channels{more}; {advice}") from error
    except Exception as error:  # of foreign code on foreign bytes: what plug-ins raise has no common type
        what = reason(error)
        if isinstance(error, UnidentifiedImageError):
            what = "no known image format"
        elif isinstance(error, Image.DecompressionBombError):
            what = "it has more pixels than data.max_pixels allows"
        raise BrokenImageError(f"{name} can't be read as an image ({what}); replace or remove the file") from error


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
        with _named(source, name) as file:
            if self.channels in (1, 3):
                return self._picture(file, at_least)
            if is_npy(file):
                planes = opening.read_npy(file, (self.channels,), self.max_pixels)
            else:
                with opened(file, self.max_pixels) as image:
                    pages = [np.asarray(self._shallow(page)) for page in ImageSequence.Iterator(image)]
                planes = np.concatenate([page[..., None] if page.ndim == 2 else page for page in pages], axis=2)
            if planes.shape[2] != self.channels:
                raise _Channels(planes.shape[2], f", and data.channels={self.channels}")
            return cast(Array, np.ascontiguousarray(self.eight_bits(planes)))

    def head(self, source: File | Stored, name: str | None = None) -> Head:
        """What the file says of its image, without decoding it; raises as `read`."""
        with _named(source, name) as file:
            if is_npy(file):
                with opening.stream_of(file) as stream:
                    shape, kind, _ = opening.npy_head(stream, self.max_pixels)
                # There are fewer channels than pixels, where it isn't said; grey has no axis for them.
                likely = (1,) if len(shape) == 2 else (min(shape[0], shape[-1]),)
                axes = opening.image_shape(shape, likely if self.channels in (1, 3) else (self.channels,))
                mode = {1: "L", 3: "RGB"}.get(axes[2], f"{axes[2]} channels")
                return Head((axes[1], axes[0]), mode, kind.itemsize > 1)
            with opened(file, self.max_pixels) as image:
                bands = len(image.getbands())
                pages = getattr(image, "n_frames", 1) * bands if image.format == "TIFF" else bands
                turn = opening.turn_of(image)
                return Head(
                    image.size[::-1] if self.exif and turn in opening.SIDEWAYS else image.size,
                    f"{pages} channels" if pages > bands else image.mode,
                    is_deep(image) or deep_colours(image),
                    turn is not None,
                    image.has_transparency_data,
                )

    def values(self, source: File | Stored) -> Values:
        """The numbers of an image as they are stored, in any order; raises as `read`."""
        with _named(source) as file:
            if is_npy(file):
                return opening.read_npy(file, (1, 3, 4, self.channels), self.max_pixels)
            with opened(file, self.max_pixels) as image:
                if not deep_colours(image):
                    return np.asarray(image)
                # Of other formats Pillow gives the upper 8 of 16 bits: enough to see how far they go.
                png = image.format == "PNG"
                return opening.png_values(file) if png else np.asarray(image).astype(np.uint16) * 257

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

    def _picture(self, source: File, at_least: int | None) -> Image.Image:
        if is_npy(source):
            array = self.eight_bits(opening.read_npy(source, (1, 3, 4), self.max_pixels))
            if array.shape[2] not in (1, 3, 4):
                raise _Channels(array.shape[2], "")
            return self.flat(Image.fromarray(array[..., 0] if array.shape[2] == 1 else array))
        with opened(source, self.max_pixels) as image:
            if at_least is not None and min(image.size) > at_least:
                scale = at_least / min(image.size)
                image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
            if self.range is None or image.format != "PNG" or not deep_colours(image):
                return self.picture(image)
            turn = opening.turn_of(image) if self.exif else None
            values = self.eight_bits(opening.png_values(source))
            return self.flat(Image.fromarray(values, "LA" if values.shape[2] == 2 else None), turn)

    def picture(self, image: Image.Image) -> Image.Image:
        """A picture that is open, as `read` gives that of a file; a `ValueError` where this can't be."""
        opening.require_size(*image.size, image.width * image.height)
        if self.range is not None and deep_colours(image):
            raise ValueError("of 16 bits a colour only 8 can be read here; store it as PNG or .npy")
        turn = opening.turn_of(image) if self.exif else None  # its EXIF is gone once it is another image
        return self.flat(self._shallow(image), turn)

    def _shallow(self, image: Image.Image) -> Image.Image:
        """The same with 8 bits a value, where Pillow would cut off what is above."""
        narrow = self.range is not None and self.range[1] <= 255 and image.mode in ("L", "RGB")
        return Image.fromarray(self.eight_bits(np.asarray(image))) if is_deep(image) or narrow else image

    def flat(self, image: Image.Image, turn: Image.Transpose | None = None) -> Image.Image:
        """RGB, with the background behind what is transparent, turned."""
        if image.has_transparency_data:
            behind = Image.new("RGBA", image.size, (*self.background, 255))
            image = Image.alpha_composite(behind, image.convert("RGBA"))
        return image.convert("RGB") if turn is None else image.convert("RGB").transpose(turn)


def flat_images(folder: Path, problems: Problems | None = None) -> list[str]:
    """Names of the images directly in a folder, sorted: by their suffix, else by their first bytes.

    `problems` is told of what is left out.
    """

    def has_head(path: str) -> bool:
        try:
            return bool(ImageReading().head(path))
        except BrokenImageError:
            return False

    found, problems = [], problems or Problems()
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_ignored(entry.name) or not os.path.isfile(entry.path):
                problems.leave_out(entry.name, None if os.path.isfile(entry.path) else "folders, pipes and dead links")
            elif is_image_name(entry.name) or has_head(entry.path):
                found.append(entry.name)
            else:
                problems.leave_out(entry.name)
    return sorted(found)


def as_picture(image: Any) -> Image.Image:
    """What people see of an image: the first three channels, or the first one."""
    if isinstance(image, Image.Image):
        return image
    image = np.asarray(image)
    return Image.fromarray(image[..., :3] if image.shape[2] >= 3 else image[..., 0])
