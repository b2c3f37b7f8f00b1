"""A parser of command-line words whose complaint is one line."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import NoReturn

from solo.errors import ConfigError


class LineParser(ArgumentParser):
    """argparse's, but it raises instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"command line: {message}; see --help")
