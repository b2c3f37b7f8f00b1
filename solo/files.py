"""Writing files so that a reader, or the next run, never meets half of one."""

import csv
import glob
import io
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from solo.errors import UserError


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
        reason = error.strerror or str(error)
        raise UserError(f"{path} can't be written: {reason}; free the disk or choose another folder") from error
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
