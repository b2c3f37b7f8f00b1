"""Opening image files of Pillow and NumPy: nothing that waits for ever, lies about its length, or unpacks without end.

No torch, but for the rare files that Pillow can't read.
"""

import os
import stat
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

Values = np.ndarray[Any, Any]
File = str | Path | BytesIO
_NPY = b"\x93NUMPY"
_ORIENTATION = 0x0112  # of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {turn for orientation, turn in _TURNS.items() if orientation >= 5}


@contextmanager
def opened(source: File, most: int) -> Iterator[Image.Image]:
    """An image file with its head read, of at most so many pixels."""
    require_file(source)
    # Pillow has one limit for the whole process, warns above it and refuses twice as much. It is never lowered.
    if Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < most:
        Image.MAX_IMAGE_PIXELS = most
    # What it has to say of damaged EXIF and large images would be printed amid the training.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with Image.open(source) as image:
        require_size(*image.size, most)
        if image.format in ("EPS", "WMF"):  # Ghostscript, or Windows, would run what is in it
            raise ValueError("PostScript and Windows metafiles are programs; store it as PNG")
        if image.format == "TIFF":  # Pillow leaves black what no strip covers
            tiles: Any = getattr(image, "tile", ())
            held = sum((x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), *_ in tiles)
            if held < image.width * image.height:
                raise ValueError(f"it has {image.width} x {image.height} pixels, of which {held:,} are in the file")
        yield image


def require_file(source: File) -> None:
    """Pipes wait for ever for someone who writes, and devices never end."""
    if isinstance(source, BytesIO):
        return
    state = os.stat(source)
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("it is a folder, pipe, socket or device")
    if state.st_size == 0:
        raise ValueError("it is empty (0 bytes)")


def require_size(width: int, height: int, most: int) -> None:
    """Refuse images without a pixel, and such that would unpack to more than `most`."""
    if width < 1 or height < 1:
        raise ValueError(f"it has {width} x {height} pixels")
    if width * height > most:
        what = f"it has {width} x {height} = {width * height:,} pixels, more than data.max_pixels={most}"
        raise ValueError(f"{what}; raise that if the file is to be trusted")


def is_deep(image: Image.Image) -> bool:
    """Grey of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def deep_colours(image: Image.Image) -> bool:
    """Whether Pillow keeps 8 of 16 bits a colour."""
    tiles: Any = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    rawmode = args[0] if isinstance(args, tuple) and args else args
    return isinstance(rawmode, str) and ";16" in rawmode and not is_deep(image)


def png_values(source: File) -> Values:
    """uint16 `(H, W, C)` of a PNG file with 16 bits a colour."""
    import torch  # such files only
    from torchvision.io import decode_png

    content = bytearray(source.getvalue() if isinstance(source, BytesIO) else Path(source).read_bytes())
    return cast(Values, decode_png(torch.frombuffer(content, dtype=torch.uint8)).movedim(0, 2).numpy())


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """How the picture has to be turned; None where it stands, or where its EXIF is damaged and says nothing."""
    if image.format == "TIFF":  # Pillow turns these itself
        return None
    if image.format == "PNG" and not {"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"} & set(image.info):
        return None  # Pillow would look behind the pixels, and decode them
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as above: EXIF is a small file system of its own, written by anyone
        return None


@contextmanager
def stream_of(source: File) -> Iterator[Any]:
    """The bytes of a file, from its beginning."""
    require_file(source)
    if isinstance(source, BytesIO):
        source.seek(0)
        yield source
    else:
        with open(source, "rb") as file:
            yield file


def is_npy(source: File) -> bool:
    """Whether it is an array of NumPy: a file by its name, bytes by their beginning."""
    if isinstance(source, BytesIO):
        return source.getvalue().startswith(_NPY)
    return str(source).lower().endswith(".npy")


def read_npy(source: File, channels: Collection[int], most: int) -> Values:
    """An array as `(H, W, n)`; the channels stand first or last, whichever fits."""
    with stream_of(source) as file:
        shape, kind, fortran = npy_head(file, most)
        flat = np.frombuffer(bytearray(file.read()), kind, int(np.prod(shape)))
    array = flat.reshape(shape, order="F" if fortran else "C")
    found = image_shape(shape, channels)
    return array.transpose(1, 2, 0) if array.ndim == 3 and found != shape else array.reshape(found)


def npy_head(file: Any, most: int) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and order of the array in an open .npy file as long as it says, of numbers; else a `ValueError`."""
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = reader(file)
    start = file.tell()
    there = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    if kind.kind not in "biuf":
        raise ValueError(f"an array of type {kind} is no image")
    image_shape(shape, ())
    declared = int(np.prod([int(n) for n in shape], dtype=object)) * kind.itemsize
    if declared > there:
        raise ValueError(f"its head declares {declared:,} bytes of pixels, and {there:,} are there")
    if min(shape) < 1:
        raise ValueError(f"an array of shape {shape} has no pixels")
    height, width = sorted(shape)[-2:]
    require_size(width, height, most)
    return shape, kind, fortran


def image_shape(shape: tuple[int, ...], channels: Collection[int]) -> tuple[int, int, int]:
    """Height, width and channels of an array; these stand first if they don't fit as the last."""
    shape = (*shape, 1) if len(shape) == 2 else shape
    if len(shape) != 3:
        raise ValueError(f"an array of {len(shape)} axes is no image")
    first, middle, last = shape
    return (middle, last, first) if last not in channels and first in channels else (first, middle, last)
