"""A planted collapse and a known tree are diagnosed; with and without labels, of one run and of several."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from solo.analysis.analyze import Options, analyze, findings
from solo.analysis.drawing import draw
from solo.errors import UserError
from solo.eval.classes import centroids, compare_with_labels, emergent_tree
from solo.eval.embedding import effective_rank
from solo.eval.intervals import wilson
from tests.analysis.planted import GROUPS, planted, subject
from tests.eval.voting import knn_accuracy

QUICK = Options(embedding="pca", png=False)


def pixels(row):
    return Image.fromarray(np.full((8, 8), row % 256, np.uint8))


def read(folder):
    return json.loads((folder / "analysis.json").read_text())


def last(found, run=0, space="representation"):
    return found["runs"][run]["snapshots"][-1]["spaces"][space]


def test_a_planted_collapse_and_the_known_tree_are_diagnosed(tmp_path):
    runs = [subject("healthy"), subject("collapsed", collapsed=(4, 5))]
    outcome = analyze(runs, tmp_path, QUICK)
    found = {(one.run, one.topic): one for one in findings(outcome.analysis)}
    bad, good = (found[name, "Closest to collapse"] for name in ("collapsed", "healthy"))
    assert bad.warn and bad.text == "“class 4” and “class 5” have collapsed onto each other."
    assert bad.value == "1.00" and not good.warn and float(good.value) < 0.1
    pair, second = last(read(tmp_path), 1)["pairs"][:2]
    assert (pair["first"], pair["second"], pair["separation"]) == (4, 5, 0) and second["mixing"] < 0.1
    for run in (0, 1):
        tree = last(read(tmp_path), run)["tree_agreement"]
        assert tree["recovered"] == 1
        assert tree["cophenetic"] > 0.98 and tree["p_value"] == 1 / 200
    tree = outcome.analysis.runs[1].last.spaces["backbone"].tree
    assert frozenset({4, 5}) in tree.clades and tree.merges[0, 2] == pytest.approx(0, abs=1e-12)


def test_local_collapse_is_found_where_the_whole_looks_healthy(tmp_path):
    outcome = analyze([subject("run", flat_group=2)], tmp_path, QUICK)
    found = {one.topic: one for one in findings(outcome.analysis)}
    assert "“group 2” is where it is poorest inside" in found["Poorest superclass inside"].text
    assert found["Poorest superclass inside"].warn and "Global collapse" not in found
    profile = {(node["level"], node["node"]): node["ratio"] for node in last(read(tmp_path))["profile"]}
    assert profile[0, 2] < 0.3 < 0.6 < min(profile[0, g] for g in range(GROUPS) if g != 2)
    assert outcome.analysis.views[-1].title == "Inside “group 2”"  # that is where one has to look


def test_global_collapse(tmp_path):
    features = planted()
    features.val.features.copy_(features.val.features[:, :1] * features.val.features[:1])
    run = subject("run").snapshots[0].__class__(lambda: {"backbone": features})
    outcome = analyze([type(subject("run"))("run", (run,))], tmp_path, QUICK)
    assert findings(outcome.analysis)[0].topic == "Global collapse" and findings(outcome.analysis)[0].warn


def test_numbers_are_those_of_the_measures(tmp_path):
    analyze([subject("run", (0.3,))], tmp_path, QUICK)
    table, found = planted(0.3).val, last(read(tmp_path))
    rows, labels = table.features, table.labels
    assert found["effective_rank"] == pytest.approx(effective_rank(rows), rel=1e-5)
    means, _, _ = centroids(rows.numpy(), labels[:, 1].numpy())
    paths = np.stack([np.arange(12) // 3, np.arange(12)], axis=1)
    agreement = compare_with_labels(emergent_tree(means), paths)
    assert found["tree_agreement"]["cophenetic"] == pytest.approx(agreement.cophenetic, rel=1e-5)
    right = 0
    for row in range(len(rows)):  # leave-one-out, an image at a time
        others = [other for other in range(len(rows)) if other != row]
        right += knn_accuracy(rows[others], labels[others], rows[[row]], labels[[row]])[1][0]
    assert found["knn_acc1"]["class"] == pytest.approx(right / len(rows), abs=0.25)


def test_emergence_over_time(tmp_path):
    outcome = analyze([subject("run", (0.0, 0.2, 0.4, 1.0))], tmp_path, QUICK)
    curve = [s["spaces"]["representation"]["knn_acc1"]["group"] for s in read(tmp_path)["runs"][0]["snapshots"]]
    assert curve == sorted(curve) and curve[0] < 40 and curve[-1] == 100
    keys = {figure.key for figure in outcome.figures}
    assert {"knn", "effective-rank", "cosine", "cosine-ratio", "threshold", "tree-drift", "spectrum"} <= keys
    drift = next(figure for figure in outcome.figures if figure.key == "tree-drift")
    like = next(panel for panel in drift.panels if panel.title.startswith("Likeness")).series[0].y
    assert like[-1] == pytest.approx(1) and like[0] < 0.6
    assert [panel.title for panel in drift.panels][-1] == "Changed since the snapshot before"


@pytest.mark.parametrize("labels", [0, 1])
def test_without_labels_or_without_superclasses(tmp_path, labels):
    outcome = analyze([subject("a", (0.5, 1.0), labels=labels), subject("b", labels=labels)], tmp_path, QUICK, pixels)
    labelling, found = outcome.analysis.labelling, read(tmp_path)
    true = planted().val.labels.numpy()
    assert labelling.superlevel == "group" and labelling.given == labels
    # The emergent groups are the planted ones.
    for group in np.unique(labelling.coarse):
        assert len(set(true[labelling.coarse == group, 0])) == 1
    assert last(found)["knn_acc1"]["group"] == 100 and "tree_agreement" not in last(found)
    keys = {figure.key for figure in outcome.figures}
    assert {"knn", "points-all", "points-inside", "tree", "collapse-profile", "confusable", "neighbours"} <= keys
    text = (tmp_path / "report.html").read_text()
    assert ("no labels" in text) == (labels == 0) and "cut" in found["protocol"]["labels"]


def test_every_kind_of_panel_as_png(tmp_path):
    runs = [subject("a", (0.2, 1.0)), subject("b", (0.2, 0.9), collapsed=(0, 1))]
    outcome = analyze(runs, tmp_path, Options(embedding="pca", max_points=100, png=False), pixels)
    shown = {figure.key: figure for figure in outcome.figures}
    assert {"confusable-examples", "confusable"} <= set(shown)
    for key in ("knn", "points-inside", "tree", "collapse-profile", "confusable", "neighbours"):
        draw(shown[key], tmp_path / f"{key}.png", pixels)
        with Image.open(tmp_path / f"{key}.png") as image:
            assert image.width > 500 and len(set(np.asarray(image.convert("L")).ravel().tolist())) > 10


@pytest.mark.thorough
def test_png_files_of_one_run_without_pictures(tmp_path):
    outcome = analyze([subject("a", projector=False, n=120)], tmp_path, Options(embedding="none"))
    assert {file.stem for file in (tmp_path / "figures").iterdir()} == {figure.key for figure in outcome.figures}
    assert not any(figure.key.startswith(("points", "neighbours")) for figure in outcome.figures)


def test_subsampling_is_stated(tmp_path):
    options = Options(embedding="pca", png=False, max_images=200, max_points=50, inside="group 1")
    outcome = analyze([subject("run")], tmp_path, options)
    assert outcome.analysis.views[-1].title == "Inside “group 1”"  # figure 14 of the paper: the one that was asked for
    assert last(read(tmp_path))["images"] == 200
    assert outcome.analysis.protocol["images"].startswith("200 images of 480, drawn at random (max_images, seed 5)")
    clouds = next(figure for figure in outcome.figures if figure.key == "points-all")
    assert (
        sum(len(one.x) for one in clouds.panels[0].series) == 50
        and "50 images, at most 50 drawn at random" in clouds.protocol
    )


def test_runs_that_start_alike_share_that_picture(tmp_path):
    alike = analyze([subject("a", (0.2, 1.0)), subject("b", (0.2, 0.8))], tmp_path, QUICK)
    other = analyze([subject("a", (0.2, 1.0)), subject("b", (0.3, 0.8))], tmp_path, QUICK)
    titles = [[p.title for f in one.figures if f.key == "points-all" for p in f.panels] for one in (alike, other)]
    assert titles[0] == ["Before training, the same for all", "a, after 1 epoch", "b, after 1 epoch"]
    assert titles[1][0] == "a, before training" and len(titles[1]) == 4


def test_bands_of_the_accuracy_are_wider_than_those_of_independent_images(tmp_path):
    outcome = analyze([subject("a", (0.1, 0.2))], tmp_path, QUICK)
    (line,) = next(figure for figure in outcome.figures if figure.key == "knn").panels[1].series
    for low, share, high in zip(line.low, line.y, line.high, strict=True):
        independent = wilson(share / 100, 480)
        assert low < share < high and high - low > 100 * (independent[1] - independent[0])


def test_panels_without_a_number_are_left_out(tmp_path):
    outcome = analyze([subject("a", (0.2, 1.0))], tmp_path, QUICK)  # no cosine of other pairs to divide by
    ratio = next(figure for figure in outcome.figures if figure.key == "cosine-ratio")
    assert [panel.title.split(",")[0] for panel in ratio.panels] == ["Difference", "Difference"]


def test_batch_sizes(tmp_path):
    snapshots = [(subject(f"{size}").snapshots[0], size) for size in (64, 256)]
    runs = [type(subject("x"))(str(size), (type(m)(m.load, None, {"batch_size": size}),)) for m, size in snapshots]
    sweep = next(figure for figure in analyze(runs, tmp_path, QUICK).figures if figure.key == "batch-size")
    assert (
        sweep.panels[-1].series[0].x == [64, 256]
        and sweep.panels[-1].x_ticks == (64, 256)
        and min(sweep.panels[-1].series[0].y) > 99
    )


def test_what_does_not_fit(tmp_path):
    with pytest.raises(UserError, match="a has features of 480 images and b of 240; only models that saw"):
        analyze([subject("a"), subject("b", n=240)], tmp_path, QUICK)
    with pytest.raises(UserError, match="superclass='kind' is no level of the labels; choose group, class"):
        analyze([subject("a")], tmp_path, Options(superclass="kind"))
    with pytest.raises(UserError, match="inside='cars' is no superclass; choose "):
        analyze([subject("a")], tmp_path, Options(inside="cars"))
    with pytest.raises(UserError, match="6 images are too few"):
        analyze([subject("a", n=6)], tmp_path, QUICK)
