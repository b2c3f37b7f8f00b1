from solo.analysis.curves import _panels, _spread_out, plot_curves


def rows(n=30, **more):
    return [{"epoch": float(e), "loss": 5 - e / 10, "lr": 0.1, "val_acc1": float(e), **more} for e in range(n)]


def test_a_png_with_the_panels_that_have_numbers(tmp_path):
    names = plot_curves(rows(val_knn_acc1=50.0), tmp_path / "curves.png", "title")
    assert names == ["Loss", "Accuracy (%)", "Learning rate"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_threshold_and_negatives_from_the_epoch_they_start(tmp_path):
    table = rows(5)
    for row in table[2:]:
        row |= {"hex/threshold": 0.9, "hex/hierarchy_negatives": 12.0}
    table[0]["hex/threshold"] = float("nan")
    assert "HEX threshold and hierarchy negatives" in plot_curves(table, tmp_path / "c.png")


def test_levels_replace_the_plain_accuracy():
    table = rows(2, **{"val_acc1/coarse": 90.0, "val_acc1/fine": 80.0})
    assert _panels(table)["Accuracy (%)"] == ["val_acc1/coarse", "val_acc1/fine"]


def test_hex_that_never_worked_has_no_panel():
    assert _panels(rows(2, **{"hex/hierarchy_negatives": 0.0}))["HEX threshold and hierarchy negatives"] == []


def test_nothing_to_draw_draws_nothing(tmp_path):
    assert plot_curves([], tmp_path / "c.png") == [] and not (tmp_path / "c.png").exists()


def test_memory_is_given_back_and_pyplot_is_not_used(tmp_path):
    import sys

    sys.modules.pop("matplotlib.pyplot", None)
    plot_curves(rows(2), tmp_path / "c.png")
    assert "matplotlib.pyplot" not in sys.modules


def test_accuracies_among_the_last_batches_have_a_panel_of_their_own():
    panels = _panels(rows(2, **{"online/knn_acc1/group": 90.0, "online/knn_acc1/class": 80.0, "val_acc1/class": 85.0}))
    assert panels["kNN among the last training batches (%)"] == ["online/knn_acc1/group", "online/knn_acc1/class"]
    assert panels["Accuracy (%)"] == ["val_acc1/class"]


def test_what_spans_more_than_an_order_of_magnitude_is_logarithmic():
    from matplotlib.figure import Figure

    for values, scale in (((1.0, 30.0), "log"), ((1.0, 15.0), "linear"), ((-1.0, 30.0), "linear")):
        axes = Figure().add_subplot()
        axes.plot([1, 2], values)
        _spread_out(axes)
        assert axes.get_yscale() == scale
