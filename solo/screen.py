"""Text for a terminal: no control characters out of names that others gave, no crash where nobody reads."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

PIPE_CLOSED = 141  # exit code, that of a program that SIGPIPE ends
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_closed = False


def shown(text: object) -> str:
    r"""A text of somebody else (a key, a path, a class) as it can be printed: `\x1b[2J` instead of a cleared screen."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], str(text))


def say_error(text: str) -> None:
    """A line on the error output."""
    sys.stderr.write(f"{shown(text)}\n")
    sys.stderr.flush()


def reader_is_gone() -> bool:
    """Whether nobody reads the output any more: `solo knn ... | head -1`, a closed terminal."""
    return _closed


@contextlib.contextmanager
def guarded_output() -> Iterator[None]:
    """Inside, what is written to a closed pipe goes nowhere; `reader_is_gone` knows."""
    global _closed
    _closed = False
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Guarded(stream)) for stream in before)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before


class _Guarded:
    """A stream that survives its reader."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)

    def write(self, text: str) -> int:
        """The number of characters, as if they had been written."""
        with _forgiven(self._stream):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """One after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """What is left."""
        with _forgiven(self._stream):
            self._stream.flush()


@contextlib.contextmanager
def _forgiven(stream: TextIO) -> Iterator[None]:
    global _closed
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal has gone
            raise
        _closed = True
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
