"""Image folders as one HDF5 file: `<class>/<image name>` is a 1-D uint8 array, the bytes of an encoded image file.

One large file instead of a million small ones, for network file systems. No torch; h5py is imported when used.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from solo.data.storage.folders import class_folders, is_image_name
from solo.data.storage.stored import Stored
from solo.errors import BrokenImageError, UserError, reason
from solo.files import replacing, write_text
from solo.untrusted import parse_json

_GZIP_LEVEL = 9
_LARGEST = 2**30  # bytes of an image file
_SIGNATURE = b"\x89HDF\r\n\x1a\n"

Index = dict[str, list[str]]


def is_h5(path: str | Path) -> bool:
    """Whether `path` is a file that begins as HDF5 files do."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def open_h5(path: Path, mode: str = "r") -> Any:
    """The file as h5py's `File`. Raises a `UserError`: h5py is not installed, or the file is missing or damaged."""
    try:
        import h5py
    except ImportError as error:
        raise UserError('reading and writing HDF5 files needs h5py; pip install "solo-hex[h5]"') from error
    try:
        return h5py.File(path, mode)
    except OSError as error:
        what = "can't be read as HDF5" if mode == "r" else "can't be written"
        raise UserError(f"{path} {what} ({reason(error)}); check data.train_path and data.val_path") from error


def read_index(path: Path) -> Index:
    """Class -> names of its images, both sorted.

    It is kept beside the file: listing a million names takes a minute, and each process needs it. Raises a `UserError`:
    the file can't be read or has another layout.
    """
    cache = path.with_name(path.name + ".index.json")
    state = path.stat() if path.is_file() else None
    key = [state.st_size, state.st_mtime_ns] if state else []
    try:
        stored = parse_json(cache.read_bytes())
        if stored["file"] == [*key, _checksum(stored["index"])]:
            return dict(stored["index"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none yet, or a damaged one
    index = _list_images(path)
    try:
        write_text(cache, json.dumps({"file": [*key, _checksum(index)], "index": index}))
    except UserError:
        pass  # a read-only folder: the next run lists the file again
    return index


def _checksum(index: Index) -> int:
    return zlib.crc32(json.dumps(index).encode())


def _list_images(path: Path) -> Index:
    with open_h5(path) as file:
        try:
            items = {_text(name): item for name, item in sorted(file.items(), key=lambda item: _text(item[0]))}
            away = [name for name, item in items.items() if item is None or item.file.filename != file.filename]
            groups = {name: item for name, item in items.items() if hasattr(item, "keys")}
            index = {name: sorted(map(_text, group)) for name, group in groups.items()}
        except (OSError, KeyError, RuntimeError, AttributeError, TypeError) as error:
            raise UserError(f"{path} is damaged ({reason(error)}); write it again") from error
        strange = sorted(set(items) - set(groups))
        empty = [name for name, images in index.items() if not images]
    if away:
        raise UserError(f"{path}: {away[0]!r} is a link to another file; write the images into one file")
    if strange or empty or not index:
        found = f"the array {strange[0]!r}" if strange else f"the empty group {empty[0]!r}" if empty else "nothing"
        what = f"{path} holds {found}; expected one group per class with encoded images inside"
        raise UserError(f"{what}, as scripts/utils/convert_imgfolder_to_h5.py writes them")
    return index


def _text(name: str | bytes) -> str:
    """A name, as Python holds names of files that are no UTF-8."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


class OpenH5:
    """A file that is opened by each process for itself: a handle from before a fork reads other processes' bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: Any = None
        self._owner = -1

    def get(self) -> Any:
        """The handle of this process, opened when it is first asked for."""
        if self._owner != os.getpid():
            self._handle, self._owner = open_h5(self.path), os.getpid()
        return self._handle

    def read(self, part: str) -> bytes:
        """The bytes of an image file."""
        try:
            handle = self.get()
            item = handle[part.encode("utf-8", "surrogateescape")]
            if item.file.filename != handle.filename or item.is_virtual or item.external:
                raise ValueError("it leads to another file")
            if item.dtype != "uint8" or item.ndim != 1 or item.size > _LARGEST:
                raise ValueError(f"it holds {item.dtype} of shape {item.shape}")
            return bytes(item[()].tobytes())
        except (OSError, KeyError, ValueError, AttributeError, TypeError, RuntimeError, MemoryError) as error:
            if isinstance(error, UserError):
                raise
            what = f"{self.path}: {part} can't be read as an image ({reason(error)})"
            raise BrokenImageError(f"{what}; write the file again") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_handle": None, "_owner": -1}


def h5_image(file: OpenH5, part: str) -> Stored:
    """One image; reading it raises a BrokenImageError if it isn't there, lies in another file, or is no file."""
    return Stored(f"{file.path}: {part}", str(file.path), part, OpenH5.read, (file, part))


def h5_images(path: Path) -> list[Stored]:
    """All images of a file, class by class."""
    path = path.expanduser()
    file = OpenH5(path)
    return [h5_image(file, f"{name}/{image}") for name, images in read_index(path).items() for image in images]


def write_h5(folder: Path, path: Path) -> int:
    """Store a folder with one sub-folder per class, and return how many images it has; files stay encoded.

    Images at any depth belong to their first folder; deeper folders become part of the name, joined by `__`. Raises a
    `UserError` where there are no class folders, one has no images, or `path` exists or can't be written.
    """
    import numpy as np

    if path.exists():
        raise UserError(f"{path} exists already; remove it or choose another name")
    names = class_folders(folder) if folder.is_dir() else []
    if not names:
        raise UserError(f"{folder} has no class folders; expected one folder per class with images inside")
    count = 0
    with replacing(path) as temporary, open_h5(temporary, "w") as file:
        for name in names:
            images = sorted(p for p in (folder / name).rglob("*") if p.is_file() and is_image_name(p.name))
            if not images:
                raise UserError(f"{folder / name} holds no images; put some there or remove it")
            group = file.create_group(name)
            for image in images:
                data = np.frombuffer(image.read_bytes(), np.uint8)
                key = "__".join(image.relative_to(folder / name).parts)
                group.create_dataset(key, data=data, compression="gzip", compression_opts=_GZIP_LEVEL)
            count += len(images)
    return count
