"""LiDAR of a checkpoint: its views are those of the recipe, the number that of the formula in float64."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from solo import cli
from solo.data.catalogue.registry import get_spec
from solo.data.sources.images import load
from solo.data.views.pipelines import build_transform_pipeline
from solo.eval.features import draw, write_features
from solo.methods import METHODS
from solo.run import pretrain
from solo.run.analyze import AugmentedViews
from tests.analysis.planted import planted


@pytest.fixture
def run(pretrain_cfg, tmp_path):
    files = {"enabled": True, "dir": str(tmp_path)}
    pretrain.run(pretrain_cfg(max_epochs=1, knn_eval={"enabled": False}, checkpoint=files, online={"enabled": False}))
    (folder,) = (tmp_path / "simclr").iterdir()
    return folder


def analyze(folder, *words):
    code = cli.main(["analyze", *words, f"output={folder}", "embedding=none", "png=false"])
    return code or json.loads((folder / "analysis.json").read_text())


def test_views_are_reproducible_and_leave_random_alone():
    images = [("image 0",), ("image 1",), ("image 2",)]
    pipelines = [lambda image: (image, "a", random.random()), lambda image: (image, "b", random.random())]
    views = AugmentedViews(images, [2, 0], pipelines, count=3, seed=5)
    random.seed(0)
    first = [views[index] for index in range(len(views))]
    after = random.random()
    random.seed(0)
    assert after == random.random()  # nothing was drawn from it
    assert [views[index] for index in reversed(range(6))] == first[::-1]
    assert [(view[:2], place) for view, place in first] == [
        (("image 2", "a"), 0),
        (("image 2", "b"), 0),
        (("image 2", "a"), 0),
        (("image 0", "a"), 1),
        (("image 0", "b"), 1),
        (("image 0", "a"), 1),
    ]
    drawn = {view[2] for view, _ in first}
    assert len(drawn) == 6 and drawn.isdisjoint(v[2] for v, _ in AugmentedViews(images, [2, 0], pipelines, 3, 6))


def test_lidar_is_the_formula_of_the_runs_own_views(run, tmp_path):
    words = (f"checkpoint={run}", "epochs=1", "accelerator=cpu", "data.num_workers=0")
    found = analyze(tmp_path / "out", *words, "lidar_images=30", "lidar_views=4", "cache=false")
    spaces = found["runs"][0]["snapshots"][-1]["spaces"]
    assert "30 of the images, drawn at random, 4 views of each" in found["protocol"]["LiDAR"]
    saved = torch.load(run / "last.ckpt")
    cfg = saved["solo"]["cfg"]
    method = METHODS["simclr"](OmegaConf.create(cfg)).eval()
    method.load_state_dict(saved["state_dict"])
    images = load(get_spec("digits"), "val", None, False, None)
    data = cfg["data"]
    pipeline = build_transform_pipeline(
        "digits", cfg["augmentations"][0], mean=data["mean"], std=data["std"], channels=data["channels"]
    )
    rows = draw(360, 30, 5).tolist()
    views = []
    for row in rows:
        for view in range(4):
            random.seed(f"5 {row} {view}")
            views.append(pipeline(images[row][0]))
    with torch.no_grad():
        out = method(torch.stack(views))
    for space, key in (("representation", "feats"), ("projection", "z")):
        expected = lidar_in_float64(out[key].double().numpy().reshape(30, 4, -1))
        assert spaces[space]["lidar"] == pytest.approx(expected, rel=1e-3) and 1 < expected < 29


def lidar_in_float64(z, delta=1e-4, epsilon=1e-7):
    """Thilak et al., equations 2 to 4, image by image."""
    n, q, width = z.shape
    between, within = np.zeros((width, width)), delta * np.eye(width)
    for image in z:
        away = image.mean(axis=0) - z.mean(axis=(0, 1))
        between += np.outer(away, away) / (n - 1)
        for view in image:
            within += np.outer(view - image.mean(axis=0), view - image.mean(axis=0)) / (n * (q - 1))
    values, vectors = np.linalg.eigh(within)
    root = vectors / np.sqrt(values) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ between @ root).clip(0)
    shares = eigenvalues / eigenvalues.sum() + epsilon
    return np.exp(-(shares * np.log(shares)).sum())


def test_it_says_why_it_is_not_measured(run, tmp_path):
    write_features(tmp_path / "saved.npz", planted())
    source = (f"checkpoint={run}", "epochs=1", "accelerator=cpu", "data.num_workers=0")
    for name, words in (("a", (f"features={tmp_path / 'saved.npz'}",)), ("b", (*source, "lidar_images=0"))):
        found = analyze(tmp_path / name, *words)
        assert found["protocol"]["LiDAR"].startswith("LiDAR is not measured: it compares several augmented views")
        assert found["runs"][0]["snapshots"][0]["spaces"]["representation"]["lidar"] is None
        page = (tmp_path / name / "report.html").read_text()
        assert "LiDAR is not measured" in page and 'id="lidar"' not in page


def test_one_image_has_nobody_to_differ_from(run, tmp_path, capsys):
    assert analyze(tmp_path / "out", f"checkpoint={run}", "lidar_images=1", "accelerator=cpu") == 1
    assert "lidar_images=1 is too few to compare; give at least 2, or 0" in capsys.readouterr().err
