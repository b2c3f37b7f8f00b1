"""Which line of which file, or which word of the command line, gave a key its value."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from solo.args.check import MOST_SHOWN, Problem
from solo.args.harmless import Part, display

COMMAND_LINE = "command line"


class Origins(dict[str, str]):
    """Key (`a.b[0].c`) -> place; add the sources in the order in which they replace each other.

    That of `""` is the whole config's; `spelled` has the keys that the user wrote otherwise.
    """

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
