"""From one file to pixels: an RGB image of Pillow, or for any other number of channels an array. No torch.

Pillow holds one or three channels. An image of n, the stains of a microscope or the bands of a satellite, is a uint8
array `(H, W, n)`.
"""

from __future__ import annotations

from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from solo.errors import BrokenImageError

Array = np.ndarray[Any, np.dtype[np.uint8]]
_NPY = b"\x93NUMPY"


def read_image(source: str | Path | BytesIO, channels: int, name: str | None = None) -> Any:
    """Decode a file, or the bytes of one: an RGB image of Pillow, for any other number than 1 or 3 an array.

    Raises:
        BrokenImageError: it can't be read, or has another number of channels.
    """
    if channels in (1, 3):
        return read_rgb(source, name)
    return read_planes(source, channels, name)


def read_rgb(source: str | Path | BytesIO, name: str | None = None) -> Image.Image:
    """Decode a file, or the bytes of one.

    Args:
        source: path or bytes.
        name: how messages call it; default: the path.

    Raises:
        BrokenImageError: if it is missing, truncated or no image; names the file.
    """
    try:
        if str(name or source).lower().endswith(".npy"):
            array = scaled(_array(_content(source), (1, 3, 4)))
            if array.shape[2] not in (1, 3, 4):
                raise _Channels(f"has {array.shape[2]} channels", array.shape[2])
            return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
        with Image.open(source) as image:
            return eight_bits(image).convert("RGB")
    # What Pillow raises differs between formats; SyntaxError comes from broken PNG chunks.
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
        raise broken(str(name or source), error) from error


def broken(name: str, error: Exception) -> BrokenImageError:
    """The error that names a file that can't be decoded."""
    if isinstance(error, _Channels):
        return BrokenImageError(f"{name} {error}; set data.channels={error.found}, and as many data.mean and data.std")
    reason = "no known image format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
    return BrokenImageError(f"{name} can't be read as an image ({reason}); replace or remove the file")


class _Channels(ValueError):
    """An image of another number of channels."""

    def __init__(self, text: str, found: int) -> None:
        super().__init__(text)
        self.found = found


def eight_bits(image: Image.Image) -> Image.Image:
    """The same with values up to 255, where Pillow would cut off what is above: white is 65,535 in grey of 16 bits.

    Args:
        image: grey of 16 or 32 bits holds 0 to 65,535, of floating point 0 to 1; everything else stays as it is.

    Raises:
        ValueError: values are outside of that range, so that their white isn't known.
    """
    deep = image.mode == "F" or image.mode.startswith("I")
    return Image.fromarray(scaled(np.asarray(image))) if deep else image


def scaled(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array of any type as uint8: integers from 0 to 65,535 (8 bits: as they are), floating point from 0 to 1.

    Raises:
        ValueError: values are outside of that range, so that their white isn't known.
    """
    if values.dtype == np.uint8:
        return values
    white = 65535 if values.dtype.kind in "iu" else 1
    wide = values.astype(np.float64)
    if not ((wide >= 0) & (wide <= white)).all():
        raise ValueError(f"its values go from {wide.min():g} to {wide.max():g}, they have to be in 0 to {white:,}")
    return np.rint(wide * (255 / white)).astype(np.uint8)


def read_planes(source: str | Path | BytesIO, channels: int, name: str | None = None) -> Array:
    """Decode a file, or the bytes of one.

    Args:
        source: an array of NumPy, `(H, W, n)` or `(n, H, W)`, or an image whose pages and bands are the channels, such
            as a TIFF file of several pages.
        channels: how many there must be.
        name: how messages call it; default: the path.

    Returns:
        uint8 `(H, W, n)`; 16 bits are scaled from 0 to 65,535, floating point from 0 to 1.

    Raises:
        BrokenImageError: it can't be read, or has another number of channels.
    """
    try:
        content = _content(source)
        planes = _array(content, (channels,)) if content.startswith(_NPY) else _pages(content)
        if planes.shape[2] != channels:
            raise _Channels(f"has {planes.shape[2]} channels, and data.channels={channels}", planes.shape[2])
        return cast(Array, np.ascontiguousarray(scaled(planes)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise broken(str(name or source), error) from error


def planes_size(source: str | Path | BytesIO, channels: int) -> tuple[int, int]:
    """Width and height, from the head of the file.

    Raises:
        OSError, ValueError: it isn't one of these files.
    """
    with source if isinstance(source, BytesIO) else open(source, "rb") as file:
        head = file.read(len(_NPY))
        file.seek(0)
        if head != _NPY:
            with Image.open(file) as image:
                return image.size
        height, width, _ = image_shape(npy_head(file)[0], (channels,))
    return width, height


def npy_head(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array in an open .npy file."""
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = reader(file)
    return shape, kind


def _content(source: str | Path | BytesIO) -> bytes:
    return source.getvalue() if isinstance(source, BytesIO) else Path(source).read_bytes()


def _array(content: bytes, channels: Collection[int]) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.load(BytesIO(content), allow_pickle=False)
    shape = image_shape(array.shape, channels)
    return array.transpose(1, 2, 0) if array.ndim == 3 and shape != array.shape else array.reshape(shape)


def image_shape(shape: tuple[int, ...], channels: Collection[int]) -> tuple[int, int, int]:
    """Height, width and channels of an array; these stand first if they don't fit as the last."""
    shape = (*shape, 1) if len(shape) == 2 else shape
    if len(shape) != 3:
        raise ValueError(f"an array of {len(shape)} axes is no image")
    first, middle, last = shape
    return (middle, last, first) if last not in channels and first in channels else (first, middle, last)


def _pages(content: bytes) -> np.ndarray[Any, Any]:
    with Image.open(BytesIO(content)) as image:
        pages = [np.asarray(eight_bits(page)) for page in ImageSequence.Iterator(image)]
    return np.concatenate([page[..., None] if page.ndim == 2 else page for page in pages], axis=2)


def as_picture(image: Any) -> Image.Image:
    """What people see of an image: the first three channels, or the first one."""
    if isinstance(image, Image.Image):
        return image
    image = np.asarray(image)
    return Image.fromarray(image[..., :3] if image.shape[2] >= 3 else image[..., 0])
