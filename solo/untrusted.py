"""Reading what may be damaged, endless or malicious: archives, JSON, settings that somebody else stored."""

import errno
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solo.errors import UserError, reason


def is_zip(file: Path) -> bool:
    """Whether it begins as zip archives do."""
    with file.open("rb") as stream:
        return stream.read(2) == b"PK"


def check_zip(file: Path, stored: bool = False) -> None:
    """Look at each record of a zip archive: whether its checksum is right, and how large it will be.

    `stored`: records are as they are, not compressed, as `torch.save` writes them. Raises a `UserError`: a record is
    damaged, appears twice, or is much larger than a packed array of numbers can be.
    """
    size = file.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            largest = size if stored else 2**26 + 20 * size
            names = {record.filename for record in records}
            with file.open("rb") as stream:
                stream.seek(-22, 2)
                end = stream.read()
            if end[:4] == b"PK\5\6" and int.from_bytes(end[10:12], "little") not in (len(records), 0xFFFF):
                raise UserError("its list of records is damaged")
            if sum(record.file_size for record in records) > largest or len(names) < len(records):
                raise UserError("it says that it holds more than can be in it")
            damaged = archive.testzip()
    except UserError:
        raise
    except Exception as error:  # those of zipfile, zlib, lzma, struct, ...
        raise UserError(reason(error)) from error
    if damaged:
        raise UserError(f"the checksum of {damaged} is wrong")


def regular(file: Path) -> Path:
    """The file itself, else an `OSError`: a pipe or a device never ends, or waits for ever."""
    if not file.is_file():
        file.stat()
        raise OSError(errno.EINVAL, "it is a folder, pipe, socket or device", str(file))
    return file


def parse_json(text: str | bytes) -> Any:
    """`json.loads` whose only error is `ValueError`, also for brackets without end."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def plain_values(value: Any, mapping: bool = False, depth: int = 32) -> Any:
    """A copy of plain values that somebody else stored: numbers, texts, lists and mappings, of a sensible size.

    A `ValueError` for something else, or a text with an interpolation (`${...}`), which could look up a secret.
    """
    if mapping and not isinstance(value, Mapping):
        raise ValueError(f"a mapping is expected, not {type(value).__name__}")
    return _copied(value, depth, [200_000])


def _copied(value: Any, depth: int, room: list[int]) -> Any:
    room[0] -= 1
    if room[0] < 0 or depth < 0:
        raise ValueError("too large or too deep")
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, (str, int, float, bool, type(None)))]:
            raise ValueError(f"a key is a {type(odd[0]).__name__}")
        return {key: _copied(part, depth - 1, room) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(part, depth - 1, room) for part in value]
    if isinstance(value, str) and "${" in value:
        raise ValueError(f"{value[:40]!r} is an interpolation")
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise ValueError(f"{type(value).__name__} is no plain value")
    return value
