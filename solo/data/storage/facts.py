"""What is known of images before one is read: where it lies, the keys that say how, what a sample has shown."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from solo.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

LOOKED_AT = 128  # files of a sample
Item = TypeVar("Item")


@dataclass(frozen=True)
class Stored:
    """An encoded image file without a path of its own: in a tar file, an HDF5 file, a Hugging Face data set."""

    name: str  # for people
    container: str | None  # the file that it lies in; None where that has no single one
    part: str  # which part of it; without a container, a text that changes with the data
    reader: Callable[..., bytes]  # gives the bytes of the image file, as many as there are
    place: tuple[Any, ...]  # what it is called with

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """The bytes of the image file; raises what its reader raises."""
        return self.reader(*self.place)


Source = str | Stored


def identity(source: Source) -> str:
    """A text that changes when what is stored there does, without a look at the image."""
    place, part = (source, "") if isinstance(source, str) else (source.container, source.part)
    if place is None:
        return part
    try:
        stat = os.stat(place)
    except OSError:  # a link to nothing
        return f"{os.path.abspath(place)} missing"
    return f"{os.path.abspath(place)} {stat.st_size} {stat.st_mtime_ns} {part}".rstrip()


@dataclass(frozen=True)
class ReadingKeys:
    """The keys of `data` that say how files are read. The defaults leave 8-bit pictures as they are."""

    channels: int = 3  # 1 or 3: RGB images of Pillow; any other number: arrays
    # the values that are black and white; what lies outside is cut off. Of images with more than 8 bits a value, and of
    # all if white is at most 255. None: 0 to 65,535 in integers, 0 to 1 in floating point, others are refused.
    range: tuple[float, float] | None = None
    # turn pictures as their EXIF says and viewers show them. (What a TIFF file says Pillow always obeys.)
    exif: bool = True
    background: tuple[int, int, int] = (255, 255, 255)  # red, green, blue behind transparent pictures
    max_pixels: int = 178_956_970  # of one image; larger ones are refused, a small file may unpack to any size

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """From a section `data`, a dict or an OmegaConf node; keys that are missing or null are the defaults."""
        given = {key: data.get(key) for key in ("channels", "range", "exif", "background", "max_pixels")}
        options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        for key, count in (("range", 2), ("background", 3)):
            if key in options:
                options[key] = tuple(options[key])
                if len(options[key]) != count:
                    raise UserError(f"data.{key}={list(options[key])} has {len(options[key])} numbers; give {count}")
        black, white = options.get("range") or (0, 1)
        if not (math.isfinite(black) and math.isfinite(white) and black < white):
            raise UserError(f"data.range=[{black:g},{white:g}]: black must be below white, for example [0,4095]")
        return cls(**options)


def spread(items: Sequence[Item]) -> list[Item]:
    """At most `LOOKED_AT` of them, the same ones each time, from everywhere."""
    return list(items[:: max(1, math.ceil(len(items) / LOOKED_AT))])


@dataclass(frozen=True)
class Sample:
    """Some images of a training set."""

    count: int = 0  # how many could be looked at
    side: int = 0  # pixels of the median shorter side; 0 of no image
    turned: int = 0  # how many have an EXIF orientation
    transparent: int = 0  # how many have transparency
    deep: int = 0  # how many have more than 8 bits a value
    range: tuple[float, float] | None = None  # black and white of the deep ones; None: those of their type

    def notes(self, reading: ReadingKeys) -> list[str]:
        """What differs from pictures that need no decision, a line each, where they are read like this."""
        of, lines = f"of a sample of {self.count:,} images", []
        if self.deep and reading.range is not None:
            what = "{:g} is black and {:,.15g} white".format(*reading.range)
            lines.append(f"images with more than 8 bits a value: {what} (data.range)")
        if self.turned and reading.exif:
            lines.append(f"{self.turned:,} {of} are turned as their EXIF says; data.exif=false takes them as stored")
        if self.transparent and reading.channels in (1, 3):
            behind = f"data.background={[*reading.background]}"
            lines.append(f"{self.transparent:,} {of} are transparent; behind them is {behind}")
        return lines
