"""Which line of which file, or which word of the command line, gave a key its value."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from solo.args.check import MOST_SHOWN, Problem

COMMAND_LINE = "command line"


class Origins(dict[str, str]):
    """Key (`a.b[0].c`) -> place; add the sources in the order in which they replace each other.

    That of `""` is the whole config's; `spelled` has the keys that the user wrote otherwise.
    """

    spelled: Mapping[str, str] = MappingProxyType({})

    def add_file(self, path: Path, package: str = "") -> None:
        """All keys of a YAML file, which Hydra puts below `package`."""
        for key, line, replaces in lines_of(path, package=package):
            if not re.match(r"(defaults|hydra)(\W|$)", key):
                self._put(key, f"{display(path)}:{line}", replaces)

    def add_places(self, places: Mapping[str, str]) -> None:
        """Values whose places are known."""
        for key, place in places.items():
            self._put(key, place, replaces="[" not in key)

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
        key = self.spelled.get(problem.key, problem.key)
        place = self.of(key) or self.get("")
        return f"{place}: {key}{problem.text}" if place else f"{key}{problem.text}"

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


def display(path: Path) -> str:
    """Relative to the working directory if it lies below, else absolute."""
    here = os.path.relpath(path)
    return str(path) if here.startswith("..") else here


def lines_of(path: Path, entry: str | None = None, package: str = "") -> Iterator[tuple[str, int, bool]]:
    """(key, line, replaces what was there) of a YAML file, or of one `entry` at its top; outer keys first."""
    with path.open(encoding="utf-8") as file:
        node = yaml.compose(file, Loader=yaml.SafeLoader)
    if entry is not None and isinstance(node, yaml.MappingNode):
        node = next((value for name, value in node.value if name.value == entry), None)
    yield from _lines(node, package) if node else ()


def _lines(node: yaml.Node, key: str) -> Iterator[tuple[str, int, bool]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.tag.endswith(":merge"):
                yield from _lines(value, key)
            else:
                inner = f"{key}.{name.value}" if key else str(name.value)
                yield inner, name.start_mark.line + 1, not isinstance(value, yaml.MappingNode)
                yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield f"{key}[{i}]", value.start_mark.line + 1, False
            yield from _lines(value, f"{key}[{i}]")
