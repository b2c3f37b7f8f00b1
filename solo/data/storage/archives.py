"""Unpacking archives that nobody has looked at: nothing outside of the folder, no links at all, not without end."""

import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from solo.errors import UserError, explained

MOST_BYTES = 2**40  # of all files of an archive together: twice what is known
MOST_FILES = 20_000_000
_OF_NAMES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, b"L", b"K")  # the last two are GNU's
_OF_PYTHON = (EOFError, ValueError, RuntimeError, OverflowError)
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, *_OF_PYTHON)


@contextmanager
def guarded() -> Iterator[None]:
    """Let torchvision's data sets unpack what they have fetched by these functions."""
    from unittest.mock import patch  # takes a while

    from torchvision.datasets import utils

    ours = {
        ".tar": lambda source, folder, compression: extract_tar(Path(source), Path(folder)),
        ".zip": lambda source, folder, compression: extract_zip(Path(source), Path(folder)),
    }
    with patch.dict(utils._ARCHIVE_EXTRACTORS, ours):
        yield


class StrictInfo(tarfile.TarInfo):
    """A header that `tarfile` takes for the end of the archive, because it is cut off or damaged, is an error."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        """Read a header; a `tarfile.ReadError` if it is none, or says that an absurd size follows."""
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it is cut off or damaged: {error}") from error
        if info.size < 0 or (info.type in _OF_NAMES and info.size > 2**20):
            raise tarfile.ReadError(f"a header says that {info.size} bytes follow")
        return info


def extract_tar(source: Path, folder: Path, most: int = MOST_BYTES) -> None:
    """Unpack the files and folders of a tar file of at most so many bytes; anything else in it is refused."""
    with _room(source, folder, most) as free, tarfile.open(source, tarinfo=StrictInfo) as tar:
        size = 0
        for count, member in enumerate(tar, start=1):
            size += max(member.size, 0)
            _require_bound(source, size, count, free)
            place = _require_inside(source, member.name, folder)
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.unlink(missing_ok=True)
                with place.open("xb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)  # type: ignore[arg-type]
                place.chmod(0o755 if member.mode & 0o100 else 0o644)
            else:
                what = f"{member.name!r} is neither file nor folder, and no link is ever made"
                raise UserError(f"{source}: {what}; if you trust it, unpack it by other means")


def extract_zip(source: Path, folder: Path, most: int = MOST_BYTES) -> None:
    """Unpack a zip file, whose links become small files; what is damaged, too large or leaves the folder is refused."""
    with _room(source, folder, most) as free, zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        _require_bound(source, sum(member.file_size for member in members), len(members), free)
        for member in members:
            _require_inside(source, member.filename, folder)
        archive.extractall(folder)


@contextmanager
def _room(source: Path, folder: Path, most: int) -> Iterator[int]:
    """How many bytes may be written into the folder; an archive that is damaged becomes a `UserError`."""
    folder.mkdir(parents=True, exist_ok=True)
    with explained(f"{source} is no complete archive", "remove it and fetch it again", *_DAMAGED):
        yield min(most, shutil.disk_usage(folder).free)


def _require_bound(source: Path, size: int, count: int, most: int) -> None:
    if size > most or count > MOST_FILES:
        bytes_ = f"{size:,} bytes of at most {most:,} (free on the disk, or allowed)"
        text = bytes_ if size > most else f"more than {MOST_FILES:,} files"
        raise UserError(f"{source} is too large to unpack: {text}; free the disk or look at the archive")


def _require_inside(source: Path, name: str, folder: Path) -> Path:
    """The place of a member, with the links that are there already: in the folder."""
    root = os.path.realpath(folder)
    place = os.path.realpath(os.path.join(root, name.replace("\\", "/")))
    if place != root and not place.startswith(root + os.sep):
        what = f"{name!r} would be written outside of {folder}"
        raise UserError(f"{source}: {what}; the archive is not what it should be, fetch it again")
    return Path(place)
