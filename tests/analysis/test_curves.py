"""The curves of a run: which panels, which lines, and a file."""

from __future__ import annotations

import math
import sys

import pytest

from solo.analysis.plots import curves, plot_curves


def rows(n=30, **more):
    return [{"epoch": float(e), "loss": 5 - e / 10, "lr": 0.1, "val_acc1": float(e), **more} for e in range(n)]


def panels(table):
    return {panel.title: panel for panel in curves(table).panels}


def names(table, title):
    return [line.name for line in panels(table)[title].series]


def test_a_png_with_the_panels_that_have_numbers(tmp_path):
    drawn = plot_curves(rows(val_knn_acc1=50.0), tmp_path / "curves.png", "title")
    assert drawn == ["Loss", "Accuracy (%)", "Learning rate"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_threshold_and_negatives_from_the_epoch_they_start():
    table = rows(5)
    for row in table:
        row |= {"hex/threshold": 0.9, "hex/hierarchy_negatives": 12.0 if row["epoch"] > 1 else 0.0}
    table[0]["hex/threshold"] = math.nan
    assert panels(table)["HEX threshold"].series[0].x == [2, 3, 4, 5]
    assert panels(table)["Hierarchy negatives per anchor"].series[0].x == [3, 4, 5]
    assert "Hierarchy negatives per anchor" not in panels(rows(2, **{"hex/hierarchy_negatives": 0.0}))


def test_levels_replace_the_plain_accuracy():
    table = rows(2, **{"val_acc1/coarse": 90.0, "val_acc1/fine": 80.0})
    assert names(table, "Accuracy (%)") == ["linear, coarse", "linear, fine"]


def test_the_methods_loss_stands_beside_the_classifiers():
    table = rows(2, train_class_loss=1.0, val_loss=2.0, train_loss=3.0)
    assert names(table, "Loss") == ["training", "training, classifier", "validation, classifier"]


def test_accuracies_among_the_last_batches_have_a_panel_of_their_own():
    table = rows(2, **{"online/knn_acc1/group": 90.0, "online/knn_acc1/class": 80.0, "val_acc1/class": 85.0})
    assert names(table, "kNN among the last training batches (%)") == ["kNN, group", "kNN, class"]
    assert names(table, "Accuracy (%)") == ["linear, class"]


@pytest.mark.parametrize(("values", "scale"), [((1.0, 30.0), True), ((1.0, 15.0), False), ((-1.0, 30.0), False)])
def test_what_spans_more_than_an_order_of_magnitude_is_logarithmic(values, scale):
    table = [{"epoch": float(epoch), "loss": value} for epoch, value in enumerate(values)]
    assert panels(table)["Loss"].log_y is scale


def test_nothing_to_draw_draws_nothing(tmp_path):
    assert plot_curves([], tmp_path / "c.png") == [] and not (tmp_path / "c.png").exists()


def test_pyplot_is_not_used(tmp_path):
    sys.modules.pop("matplotlib.pyplot", None)
    plot_curves(rows(2), tmp_path / "c.png")
    assert "matplotlib.pyplot" not in sys.modules
