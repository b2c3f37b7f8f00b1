"""Errors that are the user's to solve: one clear line, no traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave can't be used; the message says what came, what is allowed and what to do."""


class ConfigError(UserError):
    """One or more problems in a configuration, all of them in one message, one a line."""
