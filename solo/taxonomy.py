"""The label tree: named levels from coarse to fine, and who is whose parent. Pure Python, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from solo.errors import UserError, some

if TYPE_CHECKING:
    import numpy as np

UNKNOWN = -1
MOST_LEVELS = 64


@dataclass(frozen=True)
class Taxonomy:
    """An immutable tree of labels; a flat data set has one level.

    A *node* is a label of one level, a *class* (leaf) is a node without children, at whatever level its branch ends.
    Classes are numbered from the finest level up: first the last level's nodes in their order, then the childless
    nodes of the level before, and so on. In a tree of even depth a class is therefore its index at the last level.

    Labels of an image are one int a level, coarse first, -1 where its branch has ended or nobody knows; the two are
    told apart by the last known node, which is a class or is not. What is no tree is a `UserError` (a `ValueError`).
    """

    levels: tuple[str, ...]  # level names, the coarsest first, e.g. `("group", "class")`.
    names: tuple[tuple[str, ...], ...]  # of the nodes of each level; the position in the tuple is the node's index
    # `parents[l][c]` is the index at level `l` of the parent of node `c` of level `l + 1`; one less than levels
    parents: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse anything that is no tree, so that no other code has to check."""
        if not self.levels or len(set(self.levels)) != len(self.levels):
            raise UserError(f"levels={self.levels!s:.200} must be one or more different names")
        if self.num_levels > MOST_LEVELS:
            raise UserError(f"a label tree of {self.num_levels} levels is too deep; at most {MOST_LEVELS} can be used")
        if len(self.names) != len(self.levels) or len(self.parents) != len(self.levels) - 1:
            raise UserError(
                f"{len(self.levels)} levels need {len(self.levels)} tuples of names and {len(self.levels) - 1} of "
                f"parents; got {len(self.names)} and {len(self.parents)}"
            )
        for level, names in zip(self.levels, self.names, strict=True):
            if not names:
                raise UserError(f"level {level!r} has no class")
            if odd := [name for name in (level, *names) if not isinstance(name, str)]:
                raise UserError(f"level {level!r}: names must be text, not {odd[0]!r:.60}")
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise UserError(f"level {level!r} has the name {twice[0]!r} twice; give each of its nodes its own name")
        for depth, (parents, names) in enumerate(zip(self.parents, self.names[1:], strict=True)):
            upper, lower, most = self.levels[depth], self.levels[depth + 1], len(self.names[depth])
            if len(parents) != len(names):
                raise UserError(f"level {lower!r} has {len(names)} classes but {len(parents)} parents")
            if wrong := [parent for parent in parents if type(parent) is not int or not 0 <= parent < most]:
                raise UserError(f"parents {wrong[:5]!s:.200} of level {lower!r} don't exist; {upper!r} has {most}")

    @classmethod
    def flat(cls, names: Sequence[str], level: str = "class") -> Taxonomy:
        """One level with these classes."""
        return cls((level,), (tuple(names),))

    @classmethod
    def from_groups(
        cls, names: Sequence[str], groups: Mapping[str, Sequence[str]], levels: tuple[str, str] = ("group", "class")
    ) -> Taxonomy:
        """Two levels: `groups` maps each coarse name to its members; `names` gives the order of the fine classes.

        A `UserError` if a name is in no group, in two, if a group is empty or holds a name that is not in `names`.
        """
        parent_of, known = dict[str, int](), set(names)
        for index, (group, members) in enumerate(groups.items()):
            if not members:
                raise UserError(f"group {group!r} has no class")
            for member in members:
                if member in parent_of or member not in known:
                    raise UserError(f"class {member!r} must be in `names` and in one group only")
                parent_of[member] = index
        if orphans := [name for name in names if name not in parent_of]:
            raise UserError(f"classes {orphans[:5]} are in no group")
        return cls(levels, (tuple(groups), tuple(names)), (tuple(parent_of[name] for name in names),))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Taxonomy:
        """The tree that `to_dict` has written; a `UserError` of anything else."""
        try:
            return cls(tuple(data["levels"]), tuple(map(tuple, data["names"])), tuple(map(tuple, data["parents"])))
        except (KeyError, TypeError) as error:
            text = "this is no label tree; give what `to_dict` writes, its levels, names and parents"
            raise UserError(text) from error

    def to_dict(self) -> dict[str, list[Any]]:
        """Lists, texts and ints only, so that it can live in JSON and in a weights-only checkpoint."""
        names, parents = ([list(part) for part in parts] for parts in (self.names, self.parents))
        return {"levels": list(self.levels), "names": names, "parents": parents}

    @property
    def num_levels(self) -> int:
        """How many levels there are, at least 1."""
        return len(self.levels)

    @cached_property
    def children(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """`children[l][n]`: indices at level `l + 1` of the children of node `n` of level `l`."""
        found: list[list[list[int]]] = [[[] for _ in names] for names in self.names]
        for level, parents in enumerate(self.parents):
            for node, parent in enumerate(parents):
                found[level][parent].append(node)
        return tuple(tuple(tuple(nodes) for nodes in level) for level in found)

    @cached_property
    def leaves(self) -> tuple[tuple[int, int], ...]:
        """`(level, node)` of every class, in the order of the classes."""
        levels = range(self.num_levels - 1, -1, -1)
        return tuple((level, node) for level in levels for node, own in enumerate(self.children[level]) if not own)

    @cached_property
    def _class_of(self) -> dict[tuple[int, int], int]:
        return {place: leaf for leaf, place in enumerate(self.leaves)}

    @property
    def num_classes(self) -> int:
        """How many classes there are, at all levels together."""
        return len(self.leaves)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in their order."""
        return tuple(self.names[level][node] for level, node in self.leaves)

    @property
    def is_ragged(self) -> bool:
        """Whether some classes end above the finest level."""
        return self.num_classes != len(self.names[-1])

    def path(self, leaf: int) -> tuple[int, ...]:
        """The node at each level on the way to class `leaf`, coarse first, -1 below its end; else an `IndexError`."""
        if not 0 <= leaf < self.num_classes:
            raise IndexError(f"leaf {leaf} is not in 0..{self.num_classes - 1}")
        return self.node_path(*self.leaves[leaf])

    def node_path(self, level: int, node: int) -> tuple[int, ...]:
        """The node at each level on the way to any node, coarse first, -1 below it."""
        nodes = [node]
        for parents in reversed(self.parents[:level]):
            nodes.append(parents[nodes[-1]])
        return (*reversed(nodes), *[UNKNOWN] * (self.num_levels - 1 - level))

    def path_table(self) -> list[tuple[int, ...]]:
        """`path` of every class: `num_classes` rows of `num_levels` ints."""
        return [self.path(leaf) for leaf in range(self.num_classes)]

    def leaf_of(self, labels: Sequence[int]) -> int:
        """The class of an image with these labels (one a level, -1 unknown), -1 if its last known node is none."""
        level = max((lvl for lvl, label in enumerate(labels) if label >= 0), default=-1)
        return self._class_of.get((level, labels[level]), UNKNOWN) if level >= 0 else UNKNOWN

    def leaves_under(self, level: int, node: int) -> tuple[int, ...]:
        """The classes at or below a node."""
        below = self.children[level][node]
        if not below:
            return (self._class_of[level, node],)
        return tuple(leaf for child in below for leaf in self.leaves_under(level + 1, child))

    def check_counts(self, counts: Sequence[int]) -> None:
        """Refuse, by a `UserError`, classes without images, of which there are `counts`."""
        if empty := [self.class_names[leaf] for leaf, count in enumerate(counts) if count == 0]:
            what = f"{len(empty)} of {self.num_classes} classes have no image: {some(empty)}"
            raise UserError(f"{what}; take them out of the label tree, or add images")

    @cached_property
    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Paths (C, levels), depths (C,) of the classes; heights[d, n] of node n at level d - 1, row 0 is the root."""
        import numpy as np

        paths = np.array(self.path_table())
        depths = np.array([level + 1 for level, _ in self.leaves])
        heights = np.zeros((self.num_levels + 1, max(map(len, self.names))), dtype=np.int64)
        heights[0, 0] = depths.max()
        for level in range(self.num_levels):
            known = paths[:, level] >= 0
            np.maximum.at(heights[level + 1], paths[known, level], depths[known] - level - 1)
        return paths, depths, heights

    def depths(self) -> np.ndarray:
        """(C,) how many levels each class has a label at, 1 to `num_levels`."""
        return self.tables[1].copy()

    def lca_depth(self, a: Any, b: Any) -> np.ndarray:
        """Depth of the lowest common ancestor: how many levels two classes share, 0 (only the root) to `num_levels`.

        Classes are arrays of any shape that broadcast: `lca_depth(r[:, None], r)`, r all classes, is the matrix.
        """
        import numpy as np

        a, b = np.asarray(a), np.asarray(b)
        # A level at a time keeps the matrix of many classes small.
        shared: Any = sum((column[a] == column[b]) & (column[a] >= 0) for column in self.tables[0].T)
        return shared  # type: ignore[no-any-return]

    def distance(self, a: Any, b: Any) -> np.ndarray:
        """Number of edges between two classes in the tree; arguments as of `lca_depth`."""
        depths = self.tables[1]
        return depths[a] + depths[b] - 2 * self.lca_depth(a, b)  # type: ignore[no-any-return]

    def lca_height(self, a: Any, b: Any) -> np.ndarray:
        """Severity of taking `a` for `b`: height of their lowest common ancestor over its deepest class, 0 if a == b.

        Arguments as of `lca_depth`. Bertinetto et al. (CVPR 2020), section 3: https://arxiv.org/abs/1912.09393.
        """
        (paths, _, heights), shared = self.tables, self.lca_depth(a, b)
        return heights[shared, paths[a, shared - 1] * (shared > 0)]  # type: ignore[no-any-return]

    def render(self, counts: Sequence[int] | None = None, max_children: int = 8) -> str:
        """The tree as text, a node a line, with the classes' `counts` added up; many children are cut short."""
        head = ", ".join(f"{level} ({len(names)})" for level, names in zip(self.levels, self.names, strict=True))
        lines = [f"{head}: {self.num_classes} classes"]

        def draw(level: int, nodes: Sequence[int], indent: str) -> None:
            for node in nodes[:max_children]:
                last = node == nodes[-1]
                below = self.leaves_under(level, node)
                number = "" if counts is None else f" ({sum(counts[leaf] for leaf in below):,})"
                lines.append(f"{indent}{'└── ' if last else '├── '}{self.names[level][node]}{number}")
                draw(level + 1, self.children[level][node], indent + ("    " if last else "│   "))
            if len(nodes) > max_children:
                lines.append(f"{indent}└── and {len(nodes) - max_children:,} more")

        draw(0, range(len(self.names[0])), "")
        return "\n".join(lines)
