"""Reads YAML from elsewhere within limits, and remembers which line, or which word, gave a key its value."""

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo.args.config import flat
from solo.args.fields import MOST_SHOWN, Problem, short
from solo.errors import ConfigError, reason
from solo.files import regular

# Far more than any recipe has; what is larger is refused before it is built.
MOST_VALUES, DEEPEST, MOST_BYTES = 5_000, 30, 1_000_000
# The environment variables that `${oc.env:NAME}` may name; whoever shares a recipe can read no other.
ENVIRONMENT = ("HOME", "USER", "TMPDIR", "SCRATCH", "SLURM_JOB_ID", "SLURM_TMPDIR")
_NODE = r"\$\{\s*[\w.\[\]/-]+\s*\}"
_VARIABLE = rf"\$\{{\s*oc\.env\s*:\s*(?:{'|'.join(ENVIRONMENT)}|SOLO_\w*)\s*(?:,[^${{}}]*)?\}}"
_ALLOWED = re.compile(f"{_NODE}|{_VARIABLE}")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Part:
    """What a recipe consists of: a file, a row of a table, or what stands for a file that isn't there."""

    defaults: list[Any]  # other parts or their names, as in Hydra's defaults lists; `_self_` are the values
    values: Any  # what it says itself
    lines: list[tuple[str, int, bool]]  # dotted key, line, whether it replaces all that was there; outer keys first
    source: Path  # the file, or the one that isn't there
    package: str = ""  # the section that it fills, where the file says so
    made_of: Sequence[str] = ()  # what it is composed of, where there is no file


def display(path: Path) -> str:
    """Relative to the working directory if it lies below, else absolute."""
    place, here = Path(os.path.abspath(path)), Path.cwd()
    return str(place.relative_to(here) if place.is_relative_to(here) else path)


def refuse_resolvers(values: DictConfig | list[Any], shown: str) -> None:
    """Raise a `ConfigError` for interpolations of more than another value or an allowed environment variable."""
    for key, value in flat(OmegaConf.to_container(values) if isinstance(values, DictConfig) else {"defaults": values}):
        if "${" in _ALLOWED.sub("", str(value)):
            raise ConfigError(
                f"{shown}: {key}: {short(str(value))} is refused: a value may name other values, ${{data.dataset}}, "
                f"and of the environment {', '.join(ENVIRONMENT)} and names that begin with SOLO_, "
                f"${{oc.env:SOLO_DATA}}"
            )


def read_yaml(file: Path) -> Any:
    """The plain values of a YAML file; a `ConfigError`: it is none, not readable, too large, too deep or endless."""
    return _read(file, lambda text: yaml.load(text, Loader=_LOADER))[0]  # noqa: S506 (a safe one)


def read_part(file: Path, row: str | None = None) -> Part | None:
    """A file of settings, or a row of a table of them; `None` where there is none."""
    if not os.path.isfile(file):
        return None
    values, node, package = _recipe_once(file, file.stat().st_mtime_ns)
    if row is not None:
        if row not in read_table(file):
            return None
        values = {} if values[row] is None else values[row]
        if not isinstance(values, dict):
            raise ConfigError(f"{display(file)}: {row} is {values!r}; a table from keys to values is needed here")
        node = next(value for name, value in node.value if name.value == row)  # type: ignore[union-attr]
    defaults = values.get("defaults", []) if isinstance(values, dict) else []
    if not isinstance(defaults, list):
        raise ConfigError(f"{display(file)}: defaults={short(defaults)} is no list; give names of files")
    refuse_resolvers(defaults, display(file))
    if isinstance(values, dict):
        values = {name: value for name, value in values.items() if name not in ("defaults", "hydra")}
    lines = (line for line in lines_of(node) if not re.match(r"(defaults|hydra)(\W|$)", line[0]))
    return Part(defaults, values, list(lines), file, package)


def read_table(file: Path) -> dict[str, Any]:
    """From names to settings; empty if there is no such file, a `ConfigError` if it is no table or can't be read."""
    content = _recipe_once(file, file.stat().st_mtime_ns)[0] if file.is_file() else {}
    if not isinstance(content, dict):
        raise ConfigError(f"{display(file)}: a table from names to settings is needed here")
    return content


@functools.lru_cache(maxsize=256)
def _recipe_once(file: Path, changed: int) -> tuple[Any, yaml.Node | None, str]:
    return _read(file, lambda text: OmegaConf.to_container(OmegaConf.create(text)))


def _read(file: Path, load: Callable[[str], Any]) -> tuple[Any, yaml.Node | None, str]:
    """Values, lines, and the section that its header names."""
    shown = display(file)
    try:
        size = regular(file).stat().st_size
        if size > MOST_BYTES:
            raise ConfigError(f"{shown}: {size:,} bytes are too many for a recipe; at most {MOST_BYTES:,} are read")
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_LOADER)
        if node is not None:
            _count(node, shown, {}, [])
        if node is not None and node.tag.rpartition(":")[2] not in ("map", "seq", "null"):
            raise ConfigError(f"{shown}: it is no recipe; give lines of the form key: value")
        header = re.search(r"\A(?:#.*\n)*# *@package +(\S+)", text)
        return load(text), node, header[1] if header else ""
    except ConfigError:
        raise
    except (yaml.MarkedYAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{shown}:{mark.line + 1}" if mark else shown
        if "nesting depth" in str(error) or isinstance(error, RecursionError):  # libyaml's own limit, which looks ahead
            raise _too_deep(place) from error
        if tag := re.search(r"'tag:yaml.org,2002:(python/[^']*)'", str(error.problem)):
            advice = "files can't make Python objects or run code; give plain values"
            raise ConfigError(f"{place}: the tag !!{tag[1]} is refused: {advice}") from error
        raise ConfigError(f"{place}: this is no YAML: {error.problem}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{shown} can't be read; give keys that are texts and values that are plain") from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{shown} can't be read: {reason(error)}") from error
    except ValueError as error:  # a date that there isn't, or Python's limit of digits
        raise ConfigError(f"{shown}: a value can't be read ({reason(error)})") from error


def _too_deep(place: str) -> ConfigError:
    return ConfigError(f"{place}: values lie more than {DEEPEST} levels deep; no key is that deep")


def _count(node: yaml.Node, shown: str, counted: dict[int, int], around: list[int]) -> int:
    """Count values as if every alias were written out, without doing so."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    place = f"{shown}:{node.start_mark.line + 1}"
    if id(node) in around:
        raise ConfigError(f"{place}: this value refers to itself; write it out")
    if len(around) == DEEPEST:
        raise _too_deep(place)
    if id(node) not in counted:
        inner = node.value if isinstance(node, yaml.SequenceNode) else [value for _, value in node.value]
        size = 1 + sum(_count(value, shown, counted, [*around, id(node)]) for value in inner)
        if size > MOST_VALUES:
            raise ConfigError(f"{shown}: more than {MOST_VALUES:,} values are no recipe; take out most of them")
        counted[id(node)] = size
    return counted[id(node)]


def lines_of(node: yaml.Node | None, key: str = "") -> Iterator[tuple[str, int, bool]]:
    """(dotted key, line, whether it replaces all that was there) of everything in a YAML node; outer keys first."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.tag.endswith(":merge"):
                yield from lines_of(value, key)
            else:
                inner = f"{key}.{name.value}" if key else str(name.value)
                yield inner, name.start_mark.line + 1, not isinstance(value, yaml.MappingNode)
                yield from lines_of(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield f"{key}[{i}]", value.start_mark.line + 1, False
            yield from lines_of(value, f"{key}[{i}]")


COMMAND_LINE = "command line"


class Origins(dict[str, str]):
    """Key (`a.b[0].c`) -> place, `""` -> that of the whole config; `spelled`: keys that the user wrote otherwise."""

    spelled: Mapping[str, str] = MappingProxyType({})
    notes: Sequence[str] = ()  # of what a recipe is composed, where there is no file

    def add_part(self, part: Part, section: str) -> None:
        """The keys of a part of a recipe, which fills a section."""
        for key, line, replaces in part.lines:
            place = f"{part.source.stem}, composed" if part.made_of else f"{display(part.source)}:{line}"
            self._put(f"{section}.{key}".lstrip(".").replace(".[", "["), place, replaces)

    def add_override(self, key: str, value: Any) -> None:
        """A `key=value` of the command line; list positions may be written `a.0.b`."""
        key = re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", key)
        if isinstance(value, dict):
            for name, inner in value.items():
                self.add_override(f"{key}.{name}", inner)
        else:
            self._put(key, COMMAND_LINE, replaces=True)

    def place(self, key: str) -> str:
        """Of a key, else of the nearest section around it; empty if nobody wrote either."""
        while key and key not in self:
            key = re.sub(r"(^|\.)[^.\[]+$|\[\d+\]$", "", key)
        return self[key] if key else ""

    def of(self, key: str) -> str | None:
        """The place of a key as written, else of something in it, else of the nearest section around it."""
        inside = (place for name, place in self.items() if key and name.startswith(f"{key}."))
        return self.get(key) or next(inside, None) or self.place(key) or None if key else None

    def line(self, problem: Problem) -> str:
        """A problem where it was written."""
        written, text = problem
        key = self.spelled.get(written, written)
        place = self.of(key) or self.get("")
        return f"{place}: {key}{text}" if place else f"{key}{text}"

    def text(self, problems: Sequence[Problem]) -> str:
        """All of them, a line each; of very many the first ones."""
        lines = [self.line(problem) for problem in dict.fromkeys(problems[:MOST_SHOWN])]
        left = len(problems) - MOST_SHOWN
        return "\n".join([*lines, *([f"and {left:,} more problems"] if left > 0 else [])])

    def remove(self, key: str) -> None:
        """Forget a key and what is in it."""
        for inner in [name for name in self if name == key or name.startswith((f"{key}.", f"{key}["))]:
            del self[inner]

    def _put(self, key: str, place: str, replaces: bool) -> None:
        if replaces:  # mappings are merged, lists and values replace what was there
            self.remove(key)
        self[key] = place
