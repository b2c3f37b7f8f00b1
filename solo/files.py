"""Files: written so that nobody ever meets half of one; read though they may be damaged, endless or malicious."""

import csv
import errno
import glob
import io
import json
import os
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from solo.errors import UserError, reason


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; at the end of the block it is on disk and takes the place of `path`.

    A crash leaves either the old file or the new one; of two programs that write it the last one's stays, whole. What a
    killed process left behind is removed after a day. Raises a `UserError`: the folder can't be written or the disk is
    full; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            with suppress(OSError):  # its writer has just renamed it, or it is another user's
                if left.stat().st_mtime < time.time() - 86400:
                    left.unlink()
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        if os.name == "posix":
            flush(path.parent)  # the new name itself
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} can't be written: {reason(error)}; free the disk or choose another folder") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def file_name(text: str) -> str:
    """The text as part of a file's name on every system: `own_method:Alignment` has a colon, which Windows refuses."""
    return re.sub(r'[<>:"|?*\x00-\x1f]', "-", text)


def clean(folder: Path, names: str = "*") -> list[Path]:
    """Remove what killed processes left half written in `folder`, of these `names`, and return it; nobody may write."""
    left = [path for path in folder.glob(f".{names}.tmp") if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return left


def user_cache() -> Path:
    """Where things lie that can be made again, in `XDG_CACHE_HOME` or `~/.cache`; without a home nothing lies there."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(given) if os.path.isabs(given) else Path("~/.cache").expanduser()) / "solo"
    except RuntimeError:
        return Path(os.devnull) / "solo"  # what doesn't find its files there makes them again


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one piece (UTF-8)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def output_file(name: str | Path) -> Path:
    """The path of a file that will be written, made sure of before hours of computing: else a `UserError`."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise UserError(f"{path} can't be written: it is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}; choose another folder") from error


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cell(value: Any, guard: str = "'") -> Any:
    """A value for CSV: a text that spreadsheets would run as a formula gets `guard` in front, `./` if it is a path."""
    return guard + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a CSV file with the union of their columns; what a row doesn't have, or is None, stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def told_apart(paths: Sequence[str]) -> list[str]:
    """The ends of paths, as much of them as tells one from the others."""
    parts = [Path(path).parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


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


def read_facts(file: Path) -> dict[str, Any]:
    """What a JSON file says that is a help, not a need: a mapping, empty where there is none, or a damaged one."""
    with suppress(OSError, ValueError):
        if isinstance(found := parse_json(file.read_bytes()), dict):
            return found
    return {}


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
