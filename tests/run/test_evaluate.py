"""`solo evaluate` on a file of features: what it writes and shows, for all, seen and unseen classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from solo import cli
from solo.eval.classes import agreement
from solo.eval.features import Features, FeatureTable, write_features
from solo.eval.linear import fit_linear
from solo.eval.predictions import hierarchy_scores
from solo.eval.retrieval import retrieve
from solo.taxonomy import Taxonomy
from tests.eval.voting import knn_accuracy

TREE = Taxonomy.from_groups(["cat", "dog", "car", "bus"], {"animal": ["cat", "dog"], "machine": ["car", "bus"]})


def table(count: int, seed: int) -> FeatureTable:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(TREE.path_table())[torch.randint(0, 4, (count,), generator=generator)]
    centres = torch.eye(6)[:2][labels[:, 0]] * 1.5 + torch.eye(6)[2:][labels[:, 1]]
    labels[::9, 1] = -1
    return FeatureTable(centres + 0.7 * torch.randn(count, 6, generator=generator), labels)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.safetensors"
    write_features(path, Features("a model", "backbone", table(90, 0), table(120, 1), TREE.levels, TREE))
    return path


def run(tmp_path, *words):
    before = set((tmp_path / "evaluate").glob("*"))
    assert cli.main(["evaluate", *words, f"checkpoint.dir={tmp_path}"]) == 0
    (folder,) = set((tmp_path / "evaluate").glob("*")) - before
    return json.loads((folder / "evaluate.json").read_text())


@pytest.mark.fault(5, "a folder that can't be written, or a file in its place", "refused before anything is computed")
@pytest.mark.parametrize("words", [["evaluate"], ["knn"], ["umap"], ["analyze"], ["analyze", "output=FILE/report"]])
def test_where_nothing_can_be_written_nothing_is_computed(file, tmp_path, capsys, monkeypatch, words):
    for module in ("measure", "analyze"):
        monkeypatch.setattr(f"solo.run.{module}.load_features", lambda *_: pytest.fail("computed"))
    (tmp_path / "taken").write_text("a file")
    named = [word.replace("FILE", str(tmp_path / "taken")) for word in words]
    assert cli.main([*named, f"features={file}", f"checkpoint.dir={tmp_path / 'taken'}"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "can't be written" in said[0]


def test_a_collapse_is_said(tmp_path, capsys):
    write_features(tmp_path / "x.npz", Features("x", "backbone", FeatureTable(torch.ones(20, 3), table(20, 0).labels)))
    run(tmp_path, f"features={tmp_path / 'x.npz'}", "intervals=false")
    assert "all images have the same features" in capsys.readouterr().out


def test_every_number_is_that_of_its_measure(file, tmp_path, capsys):
    found = run(tmp_path, f"features={file}", "k=7", "top_k=[1,3]", "intervals=true")
    (result,) = found["results"]
    val, train = table(90, 0), table(120, 1)
    assert result["images"] == {"val": 90, "train": 120}
    group, leaf = result["levels"]
    assert (group["level"], group["unknown"], leaf["images"], leaf["unknown"]) == ("group", 0, 80, 10)
    ranked = retrieve(val.features, val.labels, top_k=(1, 3))
    voted = knn_accuracy(train.features, train.labels, val.features, val.labels, k=7)
    for level, row in enumerate((group, leaf)):
        assert [row["knn_acc1"], row["knn_acc5"]] == pytest.approx(voted[level], abs=1e-3)
        assert row["map_at_r"] == pytest.approx(100 * ranked[level].values["map_at_r"].mean().item(), abs=1e-3)
        assert row["retrieval_top3"] == pytest.approx(100 * ranked[level].values["top3"].mean().item(), abs=1e-3)
        low, high = row["map_at_r_ci"]
        assert low < row["map_at_r"] < high < low + 20
        expected = agreement(val.features.numpy(), val.labels[:, level].numpy(), seed=5)
        assert [row["nmi"], row["ami"]] == pytest.approx([expected.nmi, expected.ami], abs=1e-3)
    assert group["map_at_r"] > 60 > leaf["map_at_r"] and leaf["groups_inside"] == 2 and "nmi_inside" not in group
    model = fit_linear(train.features, train.labels, (2, 4), l2=1e-4)
    for level, best in enumerate(model.ranking(val.features)):
        truth = val.labels[:, level]
        right = (best[:, 0] == truth)[truth >= 0].double().mean().item()
        assert result["levels"][level]["linear_acc1"] == pytest.approx(100 * right, abs=1e-3)
        assert result["hierarchy"]["linear"]["images"] == 80
    mistakes = hierarchy_scores(TREE, val.labels[:, 1].numpy(), best[:, 0].numpy())
    assert result["hierarchy"]["linear"]["severity"] == pytest.approx(mistakes.severity, abs=1e-3)
    assert 50 < result["hierarchy"]["knn"]["consistency"] <= 100
    # the classes' means are apart along the groups first
    assert result["hierarchy"]["tree"]["cophenetic"] > 0.8 and result["hierarchy"]["tree"]["recovered"] == 1
    assert set(found["protocol"]) >= {"linear", "hierarchy", "knn", "retrieval", "clustering", "unknown labels", "_ci"}
    assert found["source"]["features"] == str(file)
    screen = capsys.readouterr().out
    (folder,) = (tmp_path / "evaluate").iterdir()
    assert {"evaluate.json", "config.yaml"} <= {path.name for path in folder.iterdir()} and "hierarchical F1" in screen
    assert "MAP@R, %" in screen and "class (4)" in screen and f"{leaf['map_at_r']:.2f}" in screen


def test_unseen_classes_are_measured_apart(file, tmp_path):
    found = run(tmp_path, f"features={file}", "data.unseen_classes=[dog,bus]", "intervals=false")
    everything, seen, unseen = found["results"]
    assert [part["classes"] for part in found["results"]] == ["all", "seen", "unseen"]
    assert seen["images"]["val"] + unseen["images"]["val"] == 80
    assert [row["classes"] for row in unseen["levels"]] == [2, 2]
    val = table(90, 0)
    rows = val.rows((val.labels[:, 1] == 1) | (val.labels[:, 1] == 3))
    (_, leaf) = retrieve(rows.features, rows.labels)
    assert unseen["levels"][1]["map_at_r"] == pytest.approx(100 * leaf.values["map_at_r"].mean().item(), abs=1e-3)
    assert "map_at_r_ci" not in unseen["levels"][1]
    drawn = run(tmp_path, f"features={file}", "data.unseen_classes=1", "intervals=false", "measures=[knn]")
    assert drawn["results"][2]["levels"][1]["classes"] == 1


def test_a_ragged_tree(tmp_path):
    """Birds have no finer level: their class is the group, and predictions of it are compared with all classes."""
    tree = Taxonomy(("group", "class"), (("bird", "pet"), ("cat", "dog")), ((1, 1),))
    leaves = torch.arange(90) % 3  # cat, dog, bird
    labels = torch.tensor([tree.path(leaf) for leaf in range(3)])[leaves]
    features = torch.eye(3)[leaves] + 0.05 * torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
    features[0] = torch.eye(3)[2]  # a cat like a bird
    both = FeatureTable(features, labels)
    write_features(
        tmp_path / "x.npz", Features("m", "backbone", both, both.rows(torch.arange(90) > 2), ("group", "class"), tree)
    )
    (result,) = run(tmp_path, f"features={tmp_path / 'x.npz'}", "measures=[knn,hierarchy]")["results"]
    found = result["hierarchy"]["knn"]
    assert (found["images"], found["mistakes"], found["severity"]) == (90, 1, 2.0)
    assert found["precision"] > found["recall"]  # the bird has one ancestor, the cat two
    assert [row["unknown"] for row in result["levels"]] == [0, 30]


def test_queries_and_gallery(tmp_path):
    val, queries = table(90, 0), torch.arange(90) % 3 == 0
    np.savez(tmp_path / "x.npz", features=val.features, labels=val.labels, queries=queries)
    (result,) = run(tmp_path, f"features={tmp_path / 'x.npz'}", "measures=[retrieval]", "max_queries=20")["results"]
    assert result["images"] == {"val": 90, "train": 0, "queries": 30, "gallery": 60}
    assert result["levels"][0]["queries"] == 20
    (result,) = run(tmp_path, f"features={tmp_path / 'x.npz'}", "measures=[retrieval,knn]")["results"]
    (_, leaf) = retrieve(val.features, val.labels, queries=queries.nonzero()[:, 0], is_gallery=~queries)
    assert result["levels"][1]["map_at_r"] == pytest.approx(100 * leaf.values["map_at_r"].mean().item(), abs=1e-3)
    assert result["levels"][1]["queries_unknown"] == 10 and result["levels"][0]["knn_acc1"] > 50


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["data.unseen_classes=[whale]"], "'whale' is no class"),
        (["data.unseen_classes=4"], "leaves none of 4 classes"),
        (["measures=[nmi]"], "is unknown"),
        (["feature_type=[backbone,projector]"], "are of the backbone only, not of backbone and projector"),
    ],
)
def test_wrong_settings(file, capsys, words, text):
    assert cli.main(["evaluate", f"features={file}", *words]) in (1, 2)
    assert text in capsys.readouterr().err


def test_features_without_labels(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", features=np.eye(3))
    assert cli.main(["evaluate", f"features={tmp_path / 'x.npz'}"]) == 1
    assert "x has no labels to measure features by" in capsys.readouterr().err
    np.savez(tmp_path / "x.npz", features=np.ones((1, 3)), labels=np.zeros(1, int))
    assert cli.main(["evaluate", f"features={tmp_path / 'x.npz'}"]) == 1
    assert "x has one image to measure" in capsys.readouterr().err


def test_labels_that_are_all_unknown(tmp_path):
    np.savez(tmp_path / "x.npz", features=np.eye(6), labels=np.array([[0, -1]] * 3 + [[1, -1]] * 3))
    (result,) = run(tmp_path, f"features={tmp_path / 'x.npz'}")["results"]
    row = result["levels"][1]
    assert (row["images"], row["unknown"], row["queries_unknown"]) == (0, 6, 6)
    assert row["map_at_r"] is row["knn_acc1"] is row["nmi"] is None and "hierarchy" not in result
