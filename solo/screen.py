"""Text for a terminal: no control characters out of names that others gave, no crash where nobody reads."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import Any, TextIO

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


def guard_output() -> None:
    """From here on, what is written to a closed pipe goes nowhere; `reader_is_gone` knows. Twice = once."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Guarded):
            setattr(sys, name, _Guarded(stream))


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
def _forgiven(stream: TextIO) -> Any:
    global _closed
    try:
        yield
    except UnicodeEncodeError:
        raise
    except (BrokenPipeError, OSError) as error:
        if not isinstance(error, BrokenPipeError) and error.errno != 5:  # EIO: the terminal has gone
            raise
        _closed = True
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
