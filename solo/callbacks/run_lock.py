"""One program at a time in a run's folder: two would write into the same files in turns."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from pathlib import Path
from typing import IO

from solo.errors import UserError

if sys.platform != "win32":
    import fcntl

NAME = ".lock"
_held: dict[Path, IO[str]] = {}  # by this process, whose locks don't exclude each other


def acquire(folder: Path) -> None:
    """Take the folder until `release`, or until this process ends, however it does; twice = once.

    The lock is the operating system's (POSIX), so that a dead process holds nothing, and workers inherit nothing. Where
    the file system has none, nobody is kept out.

    Raises:
        UserError: another process has it; says which one, where and since when.
    """
    path = folder.resolve() / NAME
    while sys.platform != "win32" and path not in _held:
        stream = open(path, "a+", encoding="utf-8")
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            holder = stream.read(200).strip() or "another process"
            stream.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return
            raise UserError(
                f"{folder} is in use by {holder}; wait until it ends, stop it, or start a run of its own"
            ) from None
        if _is_current(stream, path):
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            stream.flush()
            _held[path] = stream
        else:  # its last holder has just removed it
            stream.close()


def release(folder: Path) -> None:
    """Give the folder back, if this process has it."""
    path = folder.resolve() / NAME
    stream = _held.pop(path, None)
    if stream is not None:
        path.unlink(missing_ok=True)
        stream.close()


def _is_current(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
