"""One reader for the words of a command line: `key=value`, `+key=value`, `~key`, and with `-m` several values.

A value is what Hydra's grammar makes of it; what that can't read is text, and a key that holds a path or a name takes
everything behind the first `=` as it stands.
"""

import functools
import itertools
import re
import types
import typing
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, Union

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from solo.args.fields import walk
from solo.errors import ConfigError

MOST_JOBS = 1000  # of a sweep; more are a slip
_FORM = re.compile(r"(?P<sign>\+{0,2}|~)(?P<key>[^\s=~+.@][^\s=]*)=(?P<value>.*)", re.DOTALL)


class LineParser(ArgumentParser):
    """A parser of argparse whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong, a `ConfigError`."""
        raise ConfigError(f"command line: {message}; see --help")


class Word(NamedTuple):
    """One word that sets or removes something."""

    line: str  # as it was typed
    key: str  # dotted, or with slashes for a group of files
    value: Any  # plain; `None` if the key is removed
    removes: bool  # whether it takes something out


def read_word(word: str, schema: type | None = None) -> Word:
    """Read a word as it came from the shell; the schema says which keys hold text.

    Raises a `ConfigError` if it isn't of the form `key=value`, or has several values where one is needed.
    """
    form = _FORM.fullmatch(word)
    if form is None:
        if re.fullmatch(r"~[^\s=~+]+", word):
            return Word(word, word[1:], None, True)
        raise ConfigError(f"command line: {word!r} is not key=value; see --help")
    key, value, removes = form["key"], form["value"], form["sign"] == "~"
    holds = _text_keys(schema).get(key) if schema else None
    override = _parsed(word)
    if override is None or override.is_sweep_override():
        if override is not None and holds is None:
            advice = "write a list as key=[a,b], quote a text: 'a,b', and start several runs with -m"
            raise ConfigError(f"command line: {word!r} has several values; {advice}")
        return Word(word, key, literal(value), removes)
    plain = override.value()
    if holds == "only" and not isinstance(override._value, QuotedString) and plain is not None:
        plain = value
    return Word(word, override.key_or_group, plain, removes)


def as_word(key: str, value: Any) -> str:
    """The word that sets a key to a value; `read_word` reads it."""
    if isinstance(value, str):
        plain = _parsed(f"{key}={value}")
        if plain is None or (not plain.is_sweep_override() and plain._value == value and "${" not in value):
            return f"{key}={value}"
    return f"{key}={_as_text(value)}"


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower() if value is not None else "null"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_as_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_as_text(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, (int, float)):
        return repr(value)
    return str(QuotedString(literal(str(value)), Quote.single).with_quotes())


def literal(text: str) -> str:
    """A text in which OmegaConf finds nothing to fill in."""
    return text.replace("${", "\\${")


def _parsed(word: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


@functools.cache
def _text_keys(schema: type) -> dict[str, Literal["only", "also"]]:
    """The keys that may hold a text: only that (or null), or other things as well."""
    keys: dict[str, Literal["only", "also"]] = {}
    for name, found in walk(schema):
        kinds = {found.type}
        if typing.get_origin(found.type) in (Union, types.UnionType):
            kinds = set(typing.get_args(found.type)) - {type(None)}
        if str in kinds:
            keys[name] = "only" if kinds == {str} else "also"
    return keys


class Sweep(NamedTuple):
    """What `--multirun` comes to: the overrides of each run, and what a run has for itself, for messages."""

    jobs: list[list[str]]
    differing: list[list[str]]


def expand(words: Sequence[str]) -> Sweep:
    """Read overrides in Hydra's grammar: `a=1,2`, `a=choice(1,2)`, `a=range(0,10,5)`; the last word varies fastest.

    Raises a `ConfigError` for a word that is none, or nothing or too much to sweep.
    """
    if hydras := [word for word in words if word.lstrip("+~").startswith("hydra")]:
        raise ConfigError(f"command line: {hydras[0]!r} does nothing here: runs go to checkpoint.dir; leave it out")
    choices = [_choices(word) for word in words]
    if not any(len(several) > 1 for several in choices):
        raise ConfigError("--multirun needs a word with several values, such as seed=1,2,3; or leave --multirun out")
    jobs = [list(job) for job in itertools.islice(itertools.product(*choices), MOST_JOBS + 1)]
    if len(jobs) > MOST_JOBS:
        raise ConfigError(f"--multirun: these words make more than {MOST_JOBS} runs; give fewer values")
    return Sweep(jobs, [[word for word, some in zip(job, choices, strict=True) if len(some) > 1] for job in jobs])


def _choices(word: str) -> list[str]:
    """The words of a sweep, with one value each; or the word itself."""
    override = _parsed(word) if _FORM.fullmatch(word) else None
    if override is None or not override.is_sweep_override():
        return [read_word(word).line]
    if not override.is_discrete_sweep() or (override.is_choice_sweep() and "glob(" in word):
        raise ConfigError(f"command line: {word!r} can't be listed; give the values, as in key=1,2,3")
    several = itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1)
    return [f"{word.partition('=')[0]}={one}" for one in several]
