"""Errors that are the user's to solve: one clear line, no traceback."""

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager

# What a machine can run out of, where nobody says with which file -> what helps.
_OF_THE_SYSTEM = {
    errno.ENOENT: "the working directory was removed, change to another one",
    errno.ENOSPC: "free the disk",
    errno.EDQUOT: "free some of your quota",
    errno.EIO: "a disk or a network drive has failed",
    errno.EROFS: "choose a folder that can be written",
    errno.EMFILE: "raise `ulimit -n`, or lower data.num_workers",
    errno.ENFILE: "end other programs",
    errno.ENOMEM: "lower optimizer.batch_size or data.num_workers",
    errno.EAGAIN: "raise `ulimit -u`, or lower data.num_workers",
}


class UserError(ValueError):
    """Something the user gave can't be used; the message says what came, what is allowed and what to do.

    A loader's worker hands an error over with its whole traceback as the message; only the last line is for users.
    """

    def __init__(self, message: str = "") -> None:
        if message.startswith("Caught "):
            message = message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip()
        super().__init__(message)


class ConfigError(UserError):
    """One or more problems in a configuration, all of them in one message, one a line."""


class NonFiniteError(UserError):
    """A loss that is NaN or infinite; `terms`: name -> value of what makes up the loss."""

    def __init__(self, message: str, terms: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.terms = terms or {}


class BrokenImageError(UserError):
    """An image that can't be decoded."""


def no_access(error: OSError) -> str:
    """The line for a file or folder that the user may not read or write."""
    return f"{error.filename} can't be opened: {error.strerror}; change its permissions or choose another folder"


def refusal(error: OSError) -> str | None:
    """The line for what the operating system refuses; None if that is nobody's fault but ours."""
    if isinstance(error, PermissionError):
        return no_access(error)
    if error.errno == errno.ENAMETOOLONG and error.filename is not None:
        return f"{str(error.filename)[:60]}... is too long for the name of a file"
    if error.filename is not None:
        return f"{error.filename} can't be used: {error.strerror}; choose another file or folder"
    if error.errno == errno.ENOENT and "temporary directory" in str(error):
        return "no folder for temporary files can be written to; set TMPDIR to one"
    helps = _OF_THE_SYSTEM.get(error.errno or 0)
    return f"the system refuses: {error.strerror}; {helps}" if helps else None


def reason(error: BaseException) -> str:
    """What somebody else's error says, on one line; its type where it says nothing."""
    said = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
    return printable(" ".join(said.split())[:300]) or type(error).__name__


@contextmanager
def explained(what: str, cure: str, *kinds: type[Exception]) -> Iterator[None]:
    """Make a `UserError`, `what (reason); cure`, of errors of these kinds, by default all; our own stay as they are."""
    kinds = kinds or (Exception,)
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        raise UserError(f"{what} ({reason(error)}); {cure}") from error


def printable(text: object) -> str:
    """A name on one line, as any terminal can show it: line breaks, escapes, bytes that are no text spelled out."""
    return "".join(char if char.isprintable() else _escaped(char) for char in str(text))


def some(names: Collection[str], most: int = 5) -> str:
    """The first of these names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(name[:60] for name in list(names)[:most]) + more


def _escaped(char: str) -> str:
    code = ord(char)
    # File names may be any bytes; Python keeps those that are no UTF-8 as these code points.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else char.encode("unicode_escape").decode()
