from __future__ import annotations

import json

import pytest

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
        (("a", "b"), (("x", "w"), ("y",)), ((0,),), "no class of level"),
    ],
)
def test_refuses_what_is_no_tree(levels: tuple, names: tuple, parents: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Taxonomy(levels, names, parents)
