"""Probabilities that are judged, average precision, and the rulers of other packages where they are installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from solo.eval import predictions
from solo.eval.features import Features, FeatureTable
from solo.eval.linear import fit_linear
from solo.eval.predictions import (
    average_precision,
    calibration_error,
    hierarchy_scores,
    hops,
    judge,
    mean_average_precision,
    mean_per_class,
)
from solo.eval.retrieval import retrieve, retrieve_graded
from solo.eval.suite import Protocol, evaluate
from solo.taxonomy import Taxonomy

RNG = np.random.default_rng(0)
EVEN = Taxonomy(("top", "group", "leaf"), (("a", "b"), tuple("cde"), tuple("ghijk")), ((0, 0, 1), (0, 1, 0, 2, 2)))
RAGGED = Taxonomy(("group", "leaf"), (("a", "b", "c"), ("d", "e", "f")), ((0, 0, 2),))  # b is a class itself


def _table(tree: Taxonomy, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    leaf = torch.randint(0, tree.num_classes, (count,), generator=generator)
    labels = torch.tensor(tree.path_table())[leaf]
    return torch.eye(8)[leaf] + 0.6 * torch.randn(count, 8, generator=generator), labels, leaf.numpy()


@pytest.mark.parametrize("tree", [EVEN, RAGGED], ids=["even", "ragged"])
def test_probabilities_are_judged_as_a_loop_does(tree: Taxonomy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "ELEMENTS", 100)
    x, labels, leaf = _table(tree, 60, 0)
    truth = torch.cat([labels, torch.from_numpy(leaf)[:, None]], dim=1) if tree.is_ragged else labels
    counts = [*map(len, tree.names), *([tree.num_classes] if tree.is_ragged else [])]
    model = fit_linear(x, truth, counts)
    asked = leaf.copy()
    asked[:5] = -1
    found = judge(model, x, asked, tree)
    for row in range(60):
        parts = torch.split(model.scores(x[row : row + 1])[0].double(), counts)
        own = [[math.exp(v) / sum(map(math.exp, part.tolist())) for v in part.tolist()] for part in parts]
        assert found.confidence[row] == pytest.approx([max(part) for part in own], abs=1e-6)
        assert found.first[row] == pytest.approx([part[1] for part in own], abs=1e-6)
        for level, names in enumerate(tree.names):
            sums = [0.0] * len(names)
            for place, path in enumerate(tree.path_table()):
                if path[level] >= 0:
                    sums[path[level]] += own[-1][place]
            assert found.summed[row, level] == int(np.argmax(sums))
            assert found.summed_confidence[row, level] == pytest.approx(max(sums), abs=1e-6)
        risks = [sum(p * tree.lca_height(k, j) for j, p in enumerate(own[-1])) for k in range(tree.num_classes)]
        assert risks[found.careful[row]] == pytest.approx(min(risks), abs=1e-6)
    assert np.isnan(found.hops[:5]).all()
    scores = torch.split(model.scores(x), counts, dim=1)[-1].numpy()
    assert found.hops[5:] == pytest.approx(hops(tree, leaf[5:], scores[5:]))


def test_classes_that_nobody_has_come_last() -> None:
    x, labels, leaf = _table(EVEN, 40, 1)
    few = labels[:, 2] < 3
    model = fit_linear(x[few], labels[few], (2, 2, 3))
    found = judge(model, x[few], leaf[few.numpy()], EVEN)
    scores = np.full((int(few.sum()), 5), -np.inf)
    scores[:, :3] = torch.split(model.scores(x[few]), [2, 2, 3], dim=1)[2].numpy()
    assert found.hops == pytest.approx(hops(EVEN, leaf[few.numpy()], scores))
    assert set(found.summed[:, 0].tolist()) == {0.0}


def _steps(scores: list[float], right: list[bool], points: int | None) -> float:
    """Precision and recall at every threshold."""
    curve = []
    for threshold in sorted(set(scores), reverse=True):
        taken = [hit for score, hit in zip(scores, right, strict=True) if score >= threshold]
        curve.append((sum(taken) / sum(right), sum(taken) / len(taken)))
    if points is None:
        return sum((r - before) * p for (r, p), before in zip(curve, [0.0, *(r for r, _ in curve)], strict=False))
    return sum(max(p for r, p in curve if r >= at / (points - 1) - 1e-9) for at in range(points)) / points


@pytest.mark.parametrize("points", [None, 11])
def test_average_precision_against_a_loop_and_scikit_learn(points: int | None) -> None:
    for digits in (1, 6):  # with and without ties
        scores, right = RNG.uniform(size=50).round(digits), RNG.uniform(size=50) < 0.3
        assert average_precision(scores, right, points) == pytest.approx(
            _steps(scores.tolist(), right.tolist(), points)
        )
        if points is None:
            assert average_precision(scores, right) == pytest.approx(average_precision_score(right, scores))
    assert average_precision(np.arange(4.0), np.array([0, 0, 1, 1], dtype=bool), points) == 1
    assert math.isnan(average_precision(np.ones(3), np.zeros(3, dtype=bool), points))
    assert math.isnan(average_precision(np.empty(0), np.empty(0, dtype=bool), points))


def test_mean_average_precision_leaves_out_unknown_and_absent_labels() -> None:
    labels = RNG.integers(-1, 2, (40, 4))
    labels[:, 3] = 0
    scores = RNG.uniform(size=(40, 4))
    each = [average_precision_score(y[y >= 0], s[y >= 0]) for s, y in zip(scores.T[:3], labels.T[:3], strict=True)]
    assert mean_average_precision(scores, labels) == pytest.approx(np.mean(each))
    assert math.isnan(mean_average_precision(scores, np.full((40, 4), -1)))


def test_columns_of_yes_and_no_are_several_labels_at_once() -> None:
    labels = torch.from_numpy(RNG.integers(0, 2, (80, 4)))
    x = labels.float() + 0.8 * torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    labels[::7, 2] = -1  # VOC's difficult ones
    tables = FeatureTable(x[:40], labels[:40]), FeatureTable(x[40:], labels[40:])
    features = Features("some", "backbone", *tables, levels=("cat", "dog", "car", "bus"))
    (found,) = evaluate(features, Protocol(("linear", "hierarchy")), torch.device("cpu"))
    model = fit_linear(x[40:], labels[40:], (2, 2, 2, 2))
    margin = model.scores(x[:40])[:, 1::2] - model.scores(x[:40])[:, 0::2]
    expected = mean_average_precision(margin.numpy(), labels[:40].numpy())
    assert found["several"]["map"] == pytest.approx(100 * expected, abs=0.01)
    low, high = found["several"]["map_ci"]
    assert low < found["several"]["map"] < high and "hierarchy" not in found


def test_the_suite_gives_each_ruler_with_its_interval() -> None:
    x, labels, leaf = _table(EVEN, 150, 2)
    tables = FeatureTable(x[:75], labels[:75]), FeatureTable(x[75:], labels[75:])
    features = Features("some", "backbone", *tables, levels=EVEN.levels, tree=EVEN)
    (found,) = evaluate(features, Protocol(("linear", "knn", "retrieval", "hierarchy")), torch.device("cpu"))
    model = fit_linear(x[75:], labels[75:], (2, 3, 5))
    judged = judge(model, x[:75], leaf[:75], EVEN)
    for level, (row, best) in enumerate(zip(found["levels"], model.ranking(x[:75]), strict=True)):
        truth, right = labels[:75, level].numpy(), (best[:, 0] == labels[:75, level]).numpy()
        assert row["linear_mean_per_class"] == pytest.approx(100 * mean_per_class(right, truth), abs=1e-3)
        assert row["linear_ece"] == pytest.approx(100 * calibration_error(judged.confidence[:, level], right), abs=1e-3)
        summed = judged.summed[:, level] == truth
        expected = calibration_error(judged.summed_confidence[:, level], summed)
        assert row["linear_ece_summed"] == pytest.approx(100 * expected, abs=1e-3)
        assert row["knn_mean_per_class_ci"][0] <= row["knn_mean_per_class"] <= row["knn_mean_per_class_ci"][1]
    assert found["levels"][2]["linear_ece_summed"] == found["levels"][2]["linear_ece"]  # nothing to add up
    graded, parts = retrieve_graded(x[:75], labels[:75]), found["hierarchy"]
    for name, values in graded.values.items():
        assert parts["retrieval"][name] == pytest.approx(100 * values.mean().item(), abs=1e-3)
        assert parts["retrieval"][f"{name}_ci"][0] < parts["retrieval"][name] < parts["retrieval"][f"{name}_ci"][1]
    assert parts["linear"]["hops"] == pytest.approx(100 * judged.hops.mean(), abs=1e-3)
    assert parts["linear"]["hops_ci"][0] < parts["linear"]["hops"] < parts["linear"]["hops_ci"][1]


def test_torchmetrics_gives_the_same() -> None:
    metrics = pytest.importorskip("torchmetrics.functional")
    scores, labels = torch.rand(60, 4), torch.randint(0, 2, (60, 4))
    ours = mean_average_precision(scores.numpy(), labels.numpy())
    assert ours == pytest.approx(
        float(metrics.classification.multilabel_average_precision(scores, labels, 4)), abs=1e-5
    )
    logits, truth = torch.randn(60, 5), torch.randint(0, 5, (60,))
    confidence, best = logits.softmax(dim=1).max(dim=1)
    theirs = metrics.classification.multiclass_calibration_error(logits.softmax(dim=1), truth, 5, n_bins=15)
    assert calibration_error(confidence.numpy(), (best == truth).numpy()) == pytest.approx(float(theirs), abs=1e-5)
    theirs = metrics.classification.multiclass_accuracy(best, truth, 5, average="macro")
    assert mean_per_class((best == truth).numpy(), truth.numpy()) == pytest.approx(float(theirs), abs=1e-5)
    x, paths, _ = _table(EVEN, 30, 3)
    unit = torch.nn.functional.normalize(x, dim=1)
    found = retrieve_graded(x, paths, queries=torch.tensor([0]))
    gains = 2.0 ** (paths[1:] == paths[0]).cumprod(dim=1).sum(dim=1) - 1
    theirs = metrics.retrieval.retrieval_normalized_dcg(unit[1:] @ unit[0], gains.long())
    assert found.values["ndcg"][0] == pytest.approx(float(theirs), abs=1e-5)


def test_hiclass_gives_the_same_precision_and_recall() -> None:
    metrics = pytest.importorskip("hiclass.metrics")
    truth, guess = RNG.integers(0, 5, (2, 50))
    names = np.array([[f"{level}-{node}" for level, node in enumerate(path)] for path in EVEN.path_table()])
    found = hierarchy_scores(EVEN, truth, guess)
    for name in ("precision", "recall", "f1"):
        assert getattr(found, name) == pytest.approx(getattr(metrics, name)(names[truth], names[guess]))


def test_pytorch_metric_learning_gives_the_same_retrieval() -> None:
    module = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    search = pytest.importorskip("pytorch_metric_learning.utils.inference").CustomKNN
    distance = pytest.importorskip("pytorch_metric_learning.distances").LpDistance
    x, labels, leaf = _table(EVEN, 60, 4)
    calculator = module.AccuracyCalculator(
        ("precision_at_1", "r_precision", "mean_average_precision_at_r"), k="max_bin_count", knn_func=search(distance())
    )
    theirs = calculator.get_accuracy(torch.nn.functional.normalize(x, dim=1), torch.from_numpy(leaf))
    ours = retrieve(x, labels)[2]
    assert ours.values["top1"].double().mean().item() == pytest.approx(theirs["precision_at_1"])
    assert ours.values["r_precision"].mean().item() == pytest.approx(theirs["r_precision"], abs=1e-6)
    assert ours.values["map_at_r"].mean().item() == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-6)
