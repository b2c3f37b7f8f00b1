"""Images that lie inside of something larger: a tar file, an HDF5 file, a Hugging Face data set."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stored:
    """An encoded image file without a path of its own."""

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


# A path, or what is read in its own way.
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
