"""One program at a time in a run's folder: two would write into the same files in turns."""

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from solo.errors import UserError

if sys.platform != "win32":
    import fcntl

NAME = ".lock"
_held: dict[Path, int] = {}  # by this process, whose locks don't exclude each other


def acquire(folder: Path) -> None:
    """Take the folder until `release`, or until this process ends, however it does; twice = once.

    The lock is the operating system's (POSIX), so that a dead process holds nothing, and workers inherit nothing. Where
    the file system has none, nobody is kept out.

    Raises:
        UserError: another process has it; says which one, where and since when. Or the folder can't be written.
    """
    path = folder.resolve() / NAME
    while sys.platform != "win32" and path not in _held:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"{folder} can't be written: {error.strerror}; choose another folder") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
            os.close(file)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return
            raise UserError(
                f"{folder} is in use by {holder}; wait until it ends, stop it, or start a new run"
            ) from None
        try:
            is_current = os.path.samestat(os.fstat(file), os.stat(path))
        except FileNotFoundError:  # its last holder has just removed it
            is_current = False
        if is_current:
            os.ftruncate(file, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}, since {since}".encode())
            _held[path] = file
        else:
            os.close(file)


def release(folder: Path) -> None:
    """Give the folder back, if this process has it."""
    path = folder.resolve() / NAME
    file = _held.pop(path, None)
    if file is not None:
        path.unlink(missing_ok=True)
        os.close(file)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """`acquire` a folder for a block; who had it before keeps it."""
    before = folder.resolve() / NAME in _held
    acquire(folder)
    try:
        yield
    finally:
        if not before:
            release(folder)
