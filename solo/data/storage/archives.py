"""Unpacking archives that nobody has looked at: nothing outside of the folder, no links out of it, not without end."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from unittest.mock import patch

from solo.errors import UserError

MOST_BYTES = 2**40  # of all files of an archive together: twice what is known
MOST_FILES = 20_000_000
_TAR_MODES = {None: "r:", ".gz": "r:gz", ".xz": "r:xz", ".bz2": "r:bz2"}


@contextmanager
def guarded() -> Iterator[None]:
    """Let torchvision's data sets unpack what they have fetched by these functions."""
    from torchvision.datasets import utils

    extractors: dict[str, Callable[..., None]] = {
        ".tar": lambda source, folder, compression: extract_tar(Path(source), Path(folder), compression),
        ".zip": lambda source, folder, compression: extract_zip(Path(source), Path(folder)),
    }
    with patch.dict(utils._ARCHIVE_EXTRACTORS, extractors):
        yield


def extract_tar(source: Path, folder: Path, compression: str | None = None, most: int = MOST_BYTES) -> None:
    """Unpack a tar file.

    Args:
        source: the file.
        folder: where its files go.
        compression: `.gz`, `.xz`, `.bz2`, or None.
        most: bytes that its files may have together.

    Raises:
        UserError: it is damaged, too large, or a member would leave the folder, also by a link; nothing of that member
            is written.
    """
    free = _room(folder, most)
    with _readable(source), tarfile.open(source, _TAR_MODES[compression]) as tar:  # type: ignore[call-overload]
        size = 0
        for count, member in enumerate(tar, start=1):
            size += max(member.size, 0)
            _require_bound(source, size, count, free)
            _require_inside(source, member.name, folder)
            if member.issym() or member.islnk():
                above = PurePosixPath(member.name).parent if member.issym() else PurePosixPath()
                _require_inside(source, str(above / member.linkname), folder, link=member.name)
            elif not (member.isreg() or member.isdir()):
                raise UserError(f"{source}: {member.name!r} is neither file nor folder nor link; get another archive")
            member.mode = (member.mode or 0o644) & 0o755 | 0o600 | (0o100 if member.isdir() else 0)
            member.uid = member.gid = os.getuid() if hasattr(os, "getuid") else 0
            member.uname = member.gname = ""
            tar.extract(member, folder, filter="fully_trusted") if hasattr(tarfile, "data_filter") else tar.extract(
                member, folder
            )


def extract_zip(source: Path, folder: Path, most: int = MOST_BYTES) -> None:
    """Unpack a zip file, whose links become small files.

    Args:
        source: the file.
        folder: where its files go.
        most: bytes that its files may have together.

    Raises:
        UserError: it is damaged, too large, or a member would leave the folder; then nothing is written.
    """
    free = _room(folder, most)
    with _readable(source), zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        _require_bound(source, sum(member.file_size for member in members), len(members), free)
        for member in members:
            _require_inside(source, member.filename, folder)
        archive.extractall(folder)


def _room(folder: Path, most: int) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return min(most, shutil.disk_usage(folder).free)


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{source} is no complete archive ({error}); remove it and fetch it again") from error


def _require_bound(source: Path, size: int, count: int, most: int) -> None:
    if size > most or count > MOST_FILES:
        what = f"{size:,} bytes of at most {most:,} (free on the disk, or allowed)"
        text = what if size > most else f"more than {MOST_FILES:,} files"
        raise UserError(f"{source} is too large to unpack: {text}; free the disk or look at the archive")


def _require_inside(source: Path, name: str, folder: Path, link: str | None = None) -> None:
    """The place of a member, with the links that are there already, is in the folder."""
    root = os.path.realpath(folder)
    place = os.path.realpath(os.path.join(root, name.replace("\\", "/")))
    if place != root and not place.startswith(root + os.sep):
        what = f"the link {link!r} leads to {name!r}" if link else f"{name!r} would be written"
        raise UserError(f"{source}: {what} outside of {folder}; the archive is not what it should be, fetch it again")
