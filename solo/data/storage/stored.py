"""Images that lie inside of something larger: a tar file, an HDF5 file, a Hugging Face data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Stored(Protocol):
    """An encoded image file without a path of its own; `str` names it for people."""

    @property
    def container(self) -> str | None:
        """The file that it lies in; None where that has no single one."""
        ...

    @property
    def part(self) -> str:
        """Which part of it; without a container, a text that changes with the data."""
        ...

    def read(self) -> bytes:
        """The bytes of the image file, as many as there are."""
        ...


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


def readable_somewhere(source: Source) -> bool:
    """Whether there is something to read: no file of that name is there where images are numbers, for instance."""
    return not isinstance(source, str) or Path(source).is_file()
