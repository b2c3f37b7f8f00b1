from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from solo.data.labels.trees import folder_classes, folder_labels, from_columns, from_parents, from_paths, read_tree
from solo.errors import UserError


def test_paths_of_different_depth() -> None:
    tree = from_paths([("birds", "owls"), ("birds", "eagles"), ("fish",)])
    assert tree.levels == ("level1", "level2")
    assert tree.names == (("birds", "fish"), ("owls", "eagles"))
    assert folder_labels(tree)["fish",] == (1, -1) and folder_labels(tree)["birds", "eagles"] == (0, 1)


def test_a_name_of_two_nodes_becomes_its_path() -> None:
    tree = from_paths([("a", "other"), ("b", "other"), ("b", "x")])
    assert tree.names[1] == ("a/other", "b/other", "x")
    assert folder_labels(tree)["b", "other"] == (1, 1)


def test_number_of_level_names_must_fit() -> None:
    with pytest.raises(UserError, match=r"names 1 levels .* have 2"):
        from_paths([("a", "b")], ["only"])


def test_last_folder_that_is_always_the_same_is_no_level() -> None:
    assert folder_classes([("n1", "images"), ("n2", "images")]) == [("n1",), ("n2",)]
    assert folder_classes([("a", "b"), ("a", "c"), ("d", "e")]) == [("a", "b"), ("a", "c"), ("d", "e")]


ROWS = [("animal", "cat"), ("", "cat"), ("plant", "oak"), ("animal", ""), ("", "")]


def test_columns_fill_in_coarse_labels_and_keep_unknown_ones() -> None:
    tree, labels = from_columns(ROWS, ["kingdom", "kind"])
    assert tree.names == (("animal", "plant"), ("cat", "oak"))
    assert labels == [(0, 0), (0, 0), (1, 1), (0, -1), (-1, -1)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x"), ("b", "x")], r"'x' has two parents .* 'a' \(row 1\) and 'b' \(row 2\)"),
        ([("a", "x"), ("", "y")], "'y' never stands beside"),
        ([("a", ""), ("b", "")], "column fine holds no label"),
    ],
)
def test_columns_that_are_no_tree(rows: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_columns(rows, ["coarse", "fine"])


def test_validation_rows_use_the_training_tree() -> None:
    tree, _ = from_columns(ROWS, ["kingdom", "kind"])
    assert from_columns([("", "oak")], ["kingdom", "kind"], tree)[1] == [(1, 1)]
    with pytest.raises(UserError, match="row 1: kind 'oak' belongs to kingdom 'plant'"):
        from_columns([("animal", "oak")], ["kingdom", "kind"], tree)


def test_parents_refuse_circles_and_two_parents() -> None:
    with pytest.raises(UserError, match="circle: a -> b -> a"):
        from_parents({"a": ["b"], "b": ["a"]}, ["a"])
    with pytest.raises(UserError, match="'a' has two parents"):
        from_parents({"a": ["b", "c"]}, ["a"])
    with pytest.raises(UserError, match="1 of 2 classes are not in the label tree: z"):
        from_parents({"a": ["b"]}, ["a", "z"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tree.csv", "child,parent\ncat,animal\noak,plant\ndog,animal\nanimal,life\nplant,life\n"),
        ("tree.tsv", "parent\tchild\nanimal\tcat\nanimal\tdog\nplant\toak\n"),
        ("tree.json", json.dumps({"cat": "animal", "dog": "animal", "oak": "plant"})),
        ("nested.json", json.dumps({"animal": ["cat", "dog"], "plant": ["oak"]})),
    ],
)
def test_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    tree = read_tree(tmp_path / name, ["cat", "dog", "oak"])
    assert tree.names == (("animal", "plant"), ("cat", "dog", "oak")) and tree.parents == ((0, 0, 1),)


def test_wordnet_files(tmp_path: Path) -> None:
    links = [(1, 2), (2, 3), (3, 4), (3, 5), (2, 6), (9, 4)]  # parent, child; 4 has two parents
    (tmp_path / "wordnet.is_a.txt").write_text("".join(f"n{a:08d} n{b:08d}\n" for a, b in links))
    (tmp_path / "words.txt").write_text("n00000003\tdog, domestic dog\n")
    classes = [f"n{node:08d}" for node in (4, 5, 6)]
    tree = read_tree(tmp_path / "wordnet.is_a.txt", classes)
    assert tree.names == (("dog (n00000003)", "n00000006"), ("n00000004", "n00000005"))
    assert tree.class_names == ("n00000004", "n00000005", "n00000006")


@pytest.mark.fault(
    1, "label trees with circles, chains without end, 100,000 classes, cells of a megabyte", "one line, or the tree"
)
def test_large_and_endless_trees(tmp_path: Path) -> None:
    names = [str(i) for i in range(100_000)]
    tree, labels = from_columns([(str(i % 99), name) for i, name in enumerate(names)], ["coarse", "fine"])
    assert tree.num_classes == 100_000 and labels[7] == (7, 7)
    (tmp_path / "flat.json").write_text(json.dumps({name: str(int(name) % 99 + 200_000) for name in names}))
    assert read_tree(tmp_path / "flat.json", names).num_classes == 100_000
    with pytest.raises(UserError, match="too deep"):
        from_parents({name: [str(int(name) + 1)] for name in names}, ["0"])
    with pytest.raises(UserError, match="100 levels is too deep"):
        from_paths([tuple(names[:100])])
    tracemalloc.start()
    with pytest.raises(UserError, match="400 levels is too deep"):  # at once: the paths of their nodes fill the memory
        from_paths([(name, *names[1:400]) for name in names[:60]])
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()
    os.mkfifo(tmp_path / "pipe.csv")
    for name, content in (("long.csv", "a,b\n" + "x" * 200_000 + ",y\n"), ("pipe.csv", None), ("x.json", "[" * 10**5)):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match="data.taxonomy="):
            read_tree(tmp_path / name, ["a"])
    for odd in ({"names": [["a"]], "levels": [3]}, {"names": [[1]]}, {"names": [["a"], ["b"]], "parents": [[0.5]]}):
        (tmp_path / "odd.json").write_text(
            json.dumps({"levels": ["x", "y"][: len(odd["names"])], "parents": [], **odd})
        )
        with pytest.raises(UserError, match="must be text|don't exist"):
            read_tree(tmp_path / "odd.json", ["a"])
    one = from_parents({"a": ["b"], "b": ["c"]}, ["a"])
    assert one.num_classes == 1 and one.names == (("a",),)


def test_a_missing_or_broken_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.csv").write_text("a,b,c\n")
    for name, message in [("none.csv", "can't be read"), ("bad.json", "no JSON"), ("bad.csv", "expected two columns")]:
        with pytest.raises(UserError, match=message):
            read_tree(tmp_path / name, ["a"])
