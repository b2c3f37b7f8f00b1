from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from solo.errors import UserError
from solo.taxonomy import Taxonomy

LIFE = Taxonomy(
    levels=("kingdom", "family", "species"),
    names=(("animals", "plants"), ("cats", "dogs", "oaks"), ("lion", "tiger", "wolf", "red oak")),
    parents=((0, 0, 1), (0, 0, 1, 2)),
)


def test_path_goes_from_coarse_to_fine() -> None:
    assert LIFE.path(2) == (0, 1, 2)
    assert LIFE.path_table() == [(0, 0, 0), (0, 0, 1), (0, 1, 2), (1, 2, 3)]
    assert (LIFE.num_levels, LIFE.num_classes) == (3, 4)


@pytest.mark.parametrize("leaf", [-1, 4])
def test_path_refuses_a_leaf_that_is_not_there(leaf: int) -> None:
    with pytest.raises(IndexError, match=r"0\.\.3"):
        LIFE.path(leaf)


def test_flat_has_one_level() -> None:
    flat = Taxonomy.flat(["a", "b"])
    assert flat.levels == ("class",)
    assert flat.path_table() == [(0,), (1,)]


def test_from_groups_keeps_the_order_of_the_fine_classes() -> None:
    tree = Taxonomy.from_groups(("shoe", "shirt", "sandal"), {"tops": ("shirt",), "shoes": ("shoe", "sandal")})
    assert tree.names[0] == ("tops", "shoes")
    assert tree.parents == ((1, 0, 1),)


@pytest.mark.parametrize("groups", [{"g": ("a",)}, {"g": ("a", "b"), "h": ("b",)}, {"g": ("a", "b", "c")}])
def test_from_groups_refuses_what_is_no_partition(groups: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match="group"):
        Taxonomy.from_groups(("a", "b"), groups)


def test_dict_round_trip_through_json() -> None:
    assert Taxonomy.from_dict(json.loads(json.dumps(LIFE.to_dict()))) == LIFE


@pytest.mark.parametrize(
    ("levels", "names", "parents", "message"),
    [
        ((), (), (), "one or more"),
        (("a", "a"), (("x",), ("y",)), ((0,),), "different names"),
        (("a", "b"), (("x",), ("y",)), (), "tuples of names"),
        (("a",), ((),), (), "no class"),
        (("a", "b"), (("x",), ("y", "z")), ((0,),), "1 parents"),
        (("a", "b"), (("x",), ("y", "z")), ((0, 1),), "don't exist"),
        (("a", "b"), (("x",), ("y", "y")), ((0, 0),), "'y' twice"),
    ],
)
def test_refuses_what_is_no_tree(levels: tuple, names: tuple, parents: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Taxonomy(levels, names, parents)


# Zoo is ragged: "fish" ends at the first level, "owl" and "eagle" at the second.
ZOO = Taxonomy(
    ("kind", "family", "species"),
    (("mammals", "birds", "fish"), ("cats", "owl", "eagle"), ("lion", "tiger")),
    ((0, 1, 1), (0, 0)),
)


def test_ragged_classes_are_numbered_from_the_finest_level() -> None:
    assert ZOO.is_ragged and not LIFE.is_ragged
    assert ZOO.class_names == ("lion", "tiger", "owl", "eagle", "fish")
    assert ZOO.path_table() == [(0, 0, 0), (0, 0, 1), (1, 1, -1), (1, 2, -1), (2, -1, -1)]
    assert Taxonomy.from_dict(json.loads(json.dumps(ZOO.to_dict()))) == ZOO


@pytest.mark.parametrize("odd", [{}, [], None, {**ZOO.to_dict(), "names": 3}, {**ZOO.to_dict(), "parents": [1]}])
def test_what_is_no_tree_is_refused(odd: Any) -> None:
    with pytest.raises(UserError, match="this is no label tree; give what `to_dict` writes"):
        Taxonomy.from_dict(odd)


def test_the_last_known_label_says_whether_a_class_is_known() -> None:
    assert [ZOO.leaf_of(path) for path in ZOO.path_table()] == [0, 1, 2, 3, 4]
    assert [ZOO.leaf_of(labels) for labels in [(0, -1, -1), (1, -1, -1), (-1, -1, -1)]] == [-1, -1, -1]
    assert ZOO.leaves_under(0, 1) == (2, 3) and ZOO.leaves_under(0, 2) == (4,)


def random_tree(seed: int) -> Taxonomy:
    source = random.Random(seed)
    sizes = [source.randint(2, 4)]
    parents = []
    for _ in range(source.randint(1, 3)):
        count = source.randint(1, 8)
        parents.append(tuple(source.randrange(sizes[-1]) for _ in range(count)))
        sizes.append(count)
    names = tuple(tuple(f"{level}.{node}" for node in range(count)) for level, count in enumerate(sizes))
    return Taxonomy(tuple(f"level{level}" for level in range(len(sizes))), names, tuple(parents))


@pytest.mark.parametrize("seed", range(20))
def test_distances_agree_with_loops(seed: int) -> None:
    tree = random_tree(seed)
    paths = [[node for node in path if node >= 0] for path in tree.path_table()]
    rows = np.arange(tree.num_classes)
    shared, edges = tree.lca_depth(rows[:, None], rows), tree.distance(rows[:, None], rows)
    heights = tree.lca_height(rows[:, None], rows)
    assert tree.lca_depth((0, 1), [1, 0]).tolist() == 2 * [shared[0, 1]]  # whatever NumPy takes for an array
    for a, first in enumerate(paths):
        for b, second in enumerate(paths):
            depth = 0
            while depth < min(len(first), len(second)) and first[: depth + 1] == second[: depth + 1]:
                depth += 1
            below = [len(path) - depth for path in paths if path[:depth] == first[:depth]]
            assert shared[a, b] == depth
            assert edges[a, b] == len(first) + len(second) - 2 * depth
            assert heights[a, b] == max(below)
    assert sorted(leaf for node in range(len(tree.names[0])) for leaf in tree.leaves_under(0, node)) == rows.tolist()


def test_classes_without_images_are_named() -> None:
    ZOO.check_counts([1, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="2 of 5 classes have no image: tiger, fish"):
        ZOO.check_counts([3, 0, 1, 1, 0])


def test_render_counts_and_shortens() -> None:
    text = ZOO.render([5, 1, 2, 3, 4], max_children=2)
    assert text.splitlines() == [
        "kind (3), family (3), species (2): 5 classes",
        "├── mammals (6)",
        "│   └── cats (6)",
        "│       ├── lion (5)",
        "│       └── tiger (1)",
        "├── birds (5)",
        "│   ├── owl (2)",
        "│   └── eagle (3)",
        "└── and 1 more",
    ]
