"""Text for a terminal: no control characters out of names that others gave, no crash where nobody reads."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar, cast

from solo.errors import printable

Item = TypeVar("Item")
PIPE_CLOSED = 141  # exit code, that of a program that SIGPIPE ends
_closed = False


def shown(text: object) -> str:
    r"""Lines with somebody else's words (keys, paths, classes), as any terminal can show them: `\x1b[2J`, spelt out."""
    return "\n".join(map(printable, str(text).split("\n")))


def say_error(text: str) -> None:
    """A line on the error output."""
    sys.stderr.write(f"{shown(text)}\n")
    sys.stderr.flush()


def progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterable[Item]:
    """The items; a terminal shows how many have been taken."""
    from rich.console import Console
    from rich.progress import track  # takes a while, and most commands show none

    screen = Console(stderr=True)
    return track(items, what, total, console=screen, transient=True, disable=not screen.is_terminal)


def reader_is_gone() -> bool:
    """Whether nobody reads the output any more: `solo knn ... | head -1`, a closed terminal."""
    return _closed


@contextlib.contextmanager
def guarded_output() -> Iterator[None]:
    """Inside, what is written to a closed pipe goes nowhere; `reader_is_gone` knows."""
    global _closed
    _closed = False
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:  # a program may be started without outputs
        sys.stdout, sys.stderr = (cast(TextIO, _Guarded(stream or nowhere)) for stream in before)
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
        with _forgiven(self._stream):
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:  # a terminal or log file of few letters
                self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with _forgiven(self._stream):
            self._stream.flush()


@contextlib.contextmanager
def _forgiven(stream: TextIO) -> Iterator[None]:
    global _closed
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO, errno.ENOSPC):  # EIO: the terminal has gone
            raise
        _closed = True
        if error.errno == errno.ENOSPC and sys.__stderr__ and stream is not sys.__stderr__:
            with contextlib.suppress(OSError):
                os.write(2, b"error: what is said here can't be written: no space left on device\n")
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
