"""What a trained network is asked about: files, pictures, arrays and tensors, as one image after the other."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from solo.data.storage.folders import Problems, image_folders
from solo.data.storage.reading import ImageReading
from solo.errors import UserError


def image_files(place: str | Path, problems: Problems | None = None) -> list[Path]:
    """The images below a folder, sorted, at least one, or one image; `problems` decides about folders not readable."""
    path, problems = Path(place).expanduser(), problems or Problems()
    if not path.exists():
        raise UserError(f"{place} doesn't exist; give an image, or a folder of images")
    if not path.is_dir():
        return [path]
    found = [path.joinpath(*parts, name) for parts, names in image_folders(path, problems) for name in names]
    if not found:
        raise UserError(
            "; ".join([f"{path} holds no images, neither directly nor in its folders", *problems.found[:1]])
        )
    return found


def each_image(images: Any, channels: int) -> Iterator[Any]:
    """The images one by one of whatever `PretrainedModel.embed` takes; a `UserError` for what holds none."""
    if isinstance(images, (str, Path)):
        images = image_files(images)
    elif isinstance(images, Image.Image) or _is_one(images, channels):
        images = [images]
    elif not isinstance(images, Iterable):
        raise UserError(f"a {type(images).__name__} holds no images; give PIL images, arrays, tensors or paths")
    yield from images


def _is_one(images: Any, channels: int) -> bool:
    """Whether a tensor or an array is one image and not a stack of them."""
    if isinstance(images, Tensor):
        return images.ndim < 4
    is_array = isinstance(images, np.ndarray)
    return is_array and (images.ndim < 3 or (images.ndim == 3 and images.shape[2] in (1, 3, 4, channels)))


def as_image(image: Any, reading: ImageReading) -> Any:
    """What a network's transform takes, of a path, array or picture: a `PIL.Image`, or an array of more channels."""
    if isinstance(image, (str, Path)):
        return reading.read(Path(image).expanduser())
    if not isinstance(image, (np.ndarray, Image.Image)):
        raise UserError(f"a {type(image).__name__} is no image; give PIL images, arrays, tensors or paths")
    pictures = reading.channels in (1, 3)
    try:
        if isinstance(image, Image.Image):
            return reading.picture(image) if pictures else image
        if image.ndim not in (2, 3):
            raise ValueError(f"its shape is {image.shape}, not (H, W) or (H, W, C)")
        image = reading.eight_bits(image)
        plane = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
        return reading.flat(Image.fromarray(plane)) if pictures else image
    except (ValueError, TypeError, OSError) as error:
        what = "an array" if isinstance(image, np.ndarray) else "a picture"
        raise UserError(f"{what} can't be read as an image: {error}") from error
