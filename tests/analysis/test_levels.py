"""The picture of `solo evaluate`: what is drawn, and that nothing measured is no picture."""

from __future__ import annotations

from PIL import Image

from solo.analysis.levels import level_figure, plot_levels

LEVELS = [
    {"level": "group", "classes": 4, "knn_acc1": 96.0, "knn_acc1_ci": [95.0, 97.0], "map_at_r": 60.0, "nmi": 0.5},
    {"level": "class", "classes": 10, "knn_acc1": 80.0, "map_at_r": None, "nmi": -0.01, "nmi_inside": 0.3},
]


def result(levels, classes="all"):
    return {"feature_type": "backbone", "classes": classes, "images": {"val": 1000}, "levels": levels}


def size(file):
    with Image.open(file) as picture:
        return picture.size


def test_a_panel_for_each_kind_and_a_row_for_each_result(tmp_path):
    file = tmp_path / "x.png"
    assert plot_levels([result(LEVELS)], file, "one") == 3
    width, height = size(file)
    assert plot_levels([result(LEVELS), result(LEVELS, "unseen")], file) == 6
    assert size(file)[0] == width and size(file)[1] > 1.5 * height
    knn = level_figure([result(LEVELS)]).panels[0].rows[0]
    assert [mark[:2] for mark in knn.marks] == [("group", 96.0), ("class", 80.0)]
    assert knn.intervals == ((95.0, 97.0), None)
    accuracies = [{"level": "class", "classes": 2, "linear_acc1": 50.0}]
    assert plot_levels([result(accuracies)], file) == 1


def test_nothing_measured(tmp_path):
    assert plot_levels([result([{"level": "class", "classes": 0, "nmi": None}])], tmp_path / "x.png") == 0
    assert plot_levels([], tmp_path / "x.png") == 0 and not list(tmp_path.iterdir())
