from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from solo.data.storage.reading import ImageReading
from solo.errors import BrokenImageError

RAMP = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (RAMP.astype(np.uint8), "a.png"),
        ((RAMP * 257).astype(np.uint16), "a.png"),
        ((RAMP * 257).astype(np.uint16), "a.tiff"),
        ((RAMP * 257).astype(np.int32), "a.tiff"),
        ((RAMP / 255).astype(np.float32), "a.tiff"),
    ],
)
def test_grey_of_any_depth_keeps_its_values(tmp_path: Path, values: np.ndarray[Any, Any], name: str) -> None:
    Image.fromarray(values).save(tmp_path / name)
    assert np.array_equal(np.asarray(ImageReading().read(tmp_path / name)), np.repeat(RAMP[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "YCbCr" else "a.tiff")
    Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode).save(path)
    image = ImageReading().read(path)
    assert image.mode == "RGB" and image.size == (5, 4)
    assert np.asarray(image).min() >= 254


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 70_000, np.int32), "go from 70000 to 70000, they have to be in 0 to 65,535"),
        (np.array([[-1.0, 2.0]], np.float32), "go from -1 to 2, they have to be in 0 to 1"),
        (np.array([[np.nan, 1.0]], np.float32), "infinite or no numbers"),
    ],
)
def test_values_without_a_known_white_are_refused(tmp_path: Path, values: np.ndarray[Any, Any], message: str) -> None:
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(BrokenImageError, match=message):
        ImageReading().read(tmp_path / "a.tiff")
