"""The label tree: named levels from coarse to fine, and who is whose parent. Pure Python, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Taxonomy:
    """An immutable tree of labels in which every leaf has the same depth; a flat data set has one level.

    Attributes:
        levels: level names, the coarsest first, e.g. `("group", "class")`.
        names: for each level the names of its classes; the position in the tuple is the class index.
        parents: `parents[l][c]` is the index at level `l` of the parent of class `c` of level `l + 1`,
            so that `len(parents) == len(levels) - 1`.

    Raises:
        ValueError: if the three don't describe a tree: lengths differ, a parent doesn't exist, a node has no child.
    """

    levels: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    parents: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse anything that is no tree, so that no other code has to check."""
        if not self.levels or len(set(self.levels)) != len(self.levels):
            raise ValueError(f"levels={self.levels} must be one or more different names")
        if len(self.names) != len(self.levels) or len(self.parents) != len(self.levels) - 1:
            raise ValueError(
                f"{len(self.levels)} levels need {len(self.levels)} tuples of names and {len(self.levels) - 1} of "
                f"parents; got {len(self.names)} and {len(self.parents)}"
            )
        for level, names in zip(self.levels, self.names, strict=True):
            if not names:
                raise ValueError(f"level {level!r} has no class")
        for depth, parents in enumerate(self.parents):
            self._check_links(depth, parents)

    def _check_links(self, depth: int, parents: tuple[int, ...]) -> None:
        upper, lower = self.levels[depth], self.levels[depth + 1]
        if len(parents) != len(self.names[depth + 1]):
            raise ValueError(f"level {lower!r} has {len(self.names[depth + 1])} classes but {len(parents)} parents")
        wrong = [p for p in parents if not 0 <= p < len(self.names[depth])]
        if wrong:
            raise ValueError(f"parents {wrong} of level {lower!r} don't exist; {upper!r} has {len(self.names[depth])}")
        childless = [name for i, name in enumerate(self.names[depth]) if i not in set(parents)]
        if childless:
            raise ValueError(f"classes {childless} of level {upper!r} have no class of level {lower!r} below them")

    @classmethod
    def flat(cls, names: Sequence[str], level: str = "class") -> Taxonomy:
        """One level with these classes."""
        return cls((level,), (tuple(names),))

    @classmethod
    def from_groups(
        cls, names: Sequence[str], groups: Mapping[str, Sequence[str]], levels: tuple[str, str] = ("group", "class")
    ) -> Taxonomy:
        """Two levels: `groups` maps each coarse name to its members; `names` gives the order of the fine classes.

        Raises:
            ValueError: if a name is in no group, in two, or if a group holds a name that is not in `names`.
        """
        parent_of: dict[str, int] = {}
        for index, members in enumerate(groups.values()):
            for member in members:
                if member in parent_of or member not in names:
                    raise ValueError(f"class {member!r} must be in `names` and in one group only")
                parent_of[member] = index
        orphans = [name for name in names if name not in parent_of]
        if orphans:
            raise ValueError(f"classes {orphans} are in no group")
        return cls(levels, (tuple(groups), tuple(names)), (tuple(parent_of[name] for name in names),))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Taxonomy:
        """The inverse of `to_dict`."""
        return cls(
            tuple(data["levels"]),
            tuple(tuple(names) for names in data["names"]),
            tuple(tuple(parents) for parents in data["parents"]),
        )

    def to_dict(self) -> dict[str, list[Any]]:
        """Lists, texts and ints only, so that it can live in JSON and in a weights-only checkpoint."""
        return {
            "levels": list(self.levels),
            "names": [list(names) for names in self.names],
            "parents": [list(parents) for parents in self.parents],
        }

    @property
    def num_levels(self) -> int:
        """How many levels there are, at least 1."""
        return len(self.levels)

    @property
    def num_classes(self) -> int:
        """How many leaves there are, i.e. classes of the finest level."""
        return len(self.names[-1])

    def path(self, leaf: int) -> tuple[int, ...]:
        """The class index at each level on the way to `leaf` (0 to `num_classes - 1`), coarse first.

        Raises:
            IndexError: if there is no such leaf.
        """
        if not 0 <= leaf < self.num_classes:
            raise IndexError(f"leaf {leaf} is not in 0..{self.num_classes - 1}")
        nodes = [leaf]
        for parents in reversed(self.parents):
            nodes.append(parents[nodes[-1]])
        return tuple(reversed(nodes))

    def path_table(self) -> list[tuple[int, ...]]:
        """`path` of every leaf: `num_classes` rows of `num_levels` ints."""
        return [self.path(leaf) for leaf in range(self.num_classes)]
