"""Saved features: three formats, and files that are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from solo.errors import UserError
from solo.eval.features import ENDINGS, Features, FeatureTable, infer_tree, read_features, write_features
from solo.taxonomy import Taxonomy

TREE = Taxonomy.from_groups(["cat", "dog", "car"], {"animal": ["cat", "dog"], "machine": ["car"]})
PATHS = torch.tensor(TREE.path_table())


def _features(count: int = 6) -> Features:
    generator = torch.Generator().manual_seed(0)
    leaves = torch.arange(count) % 3
    table = FeatureTable(torch.randn(count, 4, generator=generator), PATHS[leaves], tuple(f"{i} ü.png" for i in leaves))
    return Features(
        "a model", "projector", table, table.rows(leaves > 0), TREE.levels, TREE, leaves == 1, ("dog",), {"seed": 5}
    )


@pytest.mark.parametrize("ending", [".npz", ".pt", ".safetensors"])
def test_what_is_written_is_read(tmp_path, ending):
    written, file = _features(), tmp_path / f"some{ending}"
    write_features(file, written)
    read = read_features(file)
    assert (read.name, read.kind, read.levels, read.unseen) == ("a model", "projector", TREE.levels, ("dog",))
    assert read.tree == TREE and read.facts == {"features": str(file), "seed": 5}
    assert read.class_names(0) == ("animal", "machine")
    assert torch.equal(read.queries, written.queries)
    for ours, theirs in ((read.val, written.val), (read.train, written.train)):
        assert torch.equal(ours.features, theirs.features) and torch.equal(ours.labels, theirs.labels)
        assert ours.paths == theirs.paths
    assert len(read.train) == 4


def test_a_plain_file_of_another_library(tmp_path):
    np.savez(tmp_path / "x.npz", features=np.eye(4, dtype=np.float64), labels=np.array([0, 1, 1, -1], np.int32))
    read = read_features(tmp_path / "x.npz")
    assert read.train is None and read.levels == ("class",) and read.val.features.dtype == torch.float32
    assert read.val.labels.tolist() == [[0], [1], [1], [-1]] and read.tree == Taxonomy.flat(["0", "1"])
    np.savez(tmp_path / "y.npz", features=np.eye(4))
    read = read_features(tmp_path / "y.npz")
    assert read.levels == () and read.val.labels.shape == (4, 0) and read.tree is None


def test_columns_that_nest_are_a_tree():
    labels = torch.tensor([[0, 0], [0, 1], [1, 2], [1, -1]])
    tree = infer_tree(labels, ["a", "b"])
    assert tree is not None and tree.parents == ((0, 0, 1),)
    assert infer_tree(torch.tensor([[0, 0], [1, 0]]), ["a", "b"]) is None  # two parents
    assert infer_tree(torch.tensor([[0, 0], [1, 2]]), ["a", "b"]) is None  # class 1 has none
    assert infer_tree(torch.tensor([[-1, 0], [1, 1]]), ["a", "b"]) is None


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"labels": np.arange(3)}, "there is no 'features' or 'val_features' in it, only labels"),
        ({"features": np.ones(3)}, r"shape \(3,\) are no table"),
        ({"features": np.ones((3, 2)), "labels": np.arange(4)}, "don't fit 3 features"),
        ({"features": np.ones((3, 2)), "labels": np.ones(3)}, "give ints, -1 for unknown"),
        ({"features": np.full((3, 2), np.nan), "labels": np.arange(3)}, "3 of 3 features are not finite"),
        ({"features": np.ones((3, 2)), "paths": np.array(["a"])}, "1 paths don't fit 3 features"),
        ({"features": np.ones((3, 2)), "queries": np.array([True])}, "1 queries don't fit 3"),
        ({"features": np.ones((3, 2)), "labels": np.arange(3), "levels": np.array(["a", "b"])}, "2 level names"),
        ({"val_features": np.ones((3, 2)), "train_features": np.ones((3, 4))}, "differ in their numbers"),
        ({"features": np.ones((3, 2)), "labels": np.array(["a", "b", "c"])}, "labels are <U1; give ints"),
        pytest.param(
            {"features": np.ones((3, 2)), "labels": np.array([0, 1, 2**62])},
            "labels hold 4611686018427387904; number the classes from 0, below 1,000,000",
            marks=pytest.mark.fault(5, "label `2**62` in a feature file", "one line, no memory"),
        ),
        (
            {"features": np.ones((3, 2)), "labels": np.array([0, 1, 2**63], np.uint64)},
            "labels hold 9223372036854775808",
        ),
        pytest.param(
            {"features": np.array([{}], dtype=object)},
            "can't be read",
            marks=pytest.mark.fault(5, "Python objects in a `.npz`", "refused in one line, nothing runs"),
        ),
        ({"features": np.ones((3, 2)), "labels": np.arange(3), "tree": np.array("[" * 100_000)}, "nested too deeply"),
        ({"features": np.ones((3, 0))}, "are no table"),
        ({"features": np.ones((3, 2)), "queries": np.arange(3)}, "one bool for each"),
        ({"features": np.ones((3, 2)), "labels": np.array([0, -2, 1])}, "labels hold -2"),
        pytest.param(
            {"features": np.ones((3, 2)) * 1j},
            "features are complex128; give numbers",
            marks=pytest.mark.fault(5, "complex numbers or texts as features; labels below -1", "refused in one line"),
        ),
        pytest.param(
            {"features": np.full((3, 2), 3e38, np.float32)},
            "3 of 3 features are not finite",
            marks=pytest.mark.fault(5, "features whose squares overflow", "refused: all cosines would be 0"),
        ),
        pytest.param(
            {"features": np.full((3, 2), 1e-30, np.float32)},
            "3 of 3 features are shorter than 1e-12",
            marks=pytest.mark.fault(
                6, "features so short that they have no direction", "refused: numbers would be noise"
            ),
        ),
    ],
)
def test_files_that_do_not_fit(tmp_path, arrays, text):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=text) as caught:
        read_features(tmp_path / "x.npz")
    assert str(caught.value).startswith("features=") and "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    for name, text in (
        ("none.npz", "doesn't exist"),
        ("x.txt", "must end in"),
        ("x.pt", "it is damaged"),
    ):
        if name[0] == "x":
            (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(UserError, match=text):
            read_features(tmp_path / name)
    with pytest.raises(UserError, match="must end in"):
        write_features(tmp_path / "x.csv", _features())


@pytest.mark.fault(5, "a `.npz` that unpacks to a thousand times its size", "refused before it is unpacked")
def test_a_zip_bomb(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", features=np.zeros((2**13, 2**11)))
    assert (tmp_path / "x.npz").stat().st_size < 2**19
    with pytest.raises(UserError, match="says that it holds more than can be in it"):
        read_features(tmp_path / "x.npz")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_flipped_bit_is_seen(ending, tmp_path):
    file = tmp_path / f"x{ending}"
    write_features(file, _features())
    content = bytearray(file.read_bytes())
    content[content.index(_features().val.features.numpy().tobytes()) + 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        read_features(file)
