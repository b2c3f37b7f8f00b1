"""`solo analyze` from the command line: a run as a time series, files of features, published models, wrong words."""

from __future__ import annotations

import json

import pytest
import torch
from omegaconf import OmegaConf

from solo import cli
from solo.args.eval_schema import AnalyzeCfg
from solo.args.parse import parse
from solo.eval.features import write_features
from solo.methods import METHODS
from solo.run import pretrain
from solo.run.analyze import runs
from tests.analysis.planted import planted

QUICK = ("embedding=none", "png=false", "lidar_images=0")


@pytest.fixture
def run(pretrain_cfg, tmp_path):
    files = {"enabled": True, "dir": str(tmp_path), "keep_prev": True}
    pretrain.run(
        pretrain_cfg(max_epochs=3, knn_eval={"enabled": False}, checkpoint=files, tensorboard={"enabled": False})
    )
    (folder,) = (tmp_path / "simclr").iterdir()
    return folder


def analyze(folder, *words):
    code = cli.main(["analyze", *words, f"output={folder}", *QUICK])
    return code or json.loads((folder / "analysis.json").read_text())


def test_a_run_is_a_time_series_from_its_first_weights_on(run, tmp_path, capsys):
    source = (f"checkpoint={run}", "accelerator=cpu", "data.num_workers=0")
    found = analyze(tmp_path / "out", *source, "epochs=2")
    (series,) = found["runs"]
    assert [snapshot["epoch"] for snapshot in series["snapshots"]] == [0, 1, 3]
    assert all(set(snapshot["spaces"]) == {"representation", "projection"} for snapshot in series["snapshots"])
    assert series["name"] == "simclr-digits" and found["labels"]["given"] == ["digit"]
    assert series["snapshots"][1]["facts"]["objective"] == "simclr, HEX adaptive"
    said = capsys.readouterr().out
    assert "report: " in said and "opens without a network" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "360 images, each once, without augmentation." in page and page.count("data:image/png") > 40
    alone = analyze(tmp_path / "alone", *source, "epochs=1")
    (snapshot,) = alone["runs"][0]["snapshots"]
    assert snapshot["spaces"]["representation"] == series["snapshots"][-1]["spaces"]["representation"]


def test_the_start_is_the_network_that_the_run_began_with(run, tmp_path, monkeypatch):
    values = {"pretrained_feature_extractor": [str(run)], "data": {"dataset": "digits"}}
    cfg = parse({**values, "epochs": 9, "lidar_images": 0}, AnalyzeCfg).config
    loaded = []
    monkeypatch.setattr(
        "solo.run.analyze.load_features", lambda cfg, *a: [loaded.append(cfg.pretrained_feature_extractor)]
    )
    (found,) = runs(cfg, torch.device("cpu"), tmp_path / "scratch")
    assert [one.epoch for one in found.snapshots] == [0, 1, 2, 3]
    found.snapshots[0].load()
    saved = torch.load(run / "last.ckpt")["solo"]["cfg"]
    torch.manual_seed(saved["seed"])
    first = METHODS["simclr"](OmegaConf.create(saved)).state_dict()
    start = torch.load(loaded[0])["state_dict"]
    assert all(torch.equal(start[name], value) for name, value in first.items())


def test_files_of_features_are_compared_or_a_series(tmp_path):
    files = []
    for strength in (0.2, 1.0):
        files.append(tmp_path / f"at{strength}.npz")
        write_features(files[-1], planted(strength))
    words = f"features=[{files[0]},{files[1]}]"
    found = analyze(tmp_path / "two", words, "names=[weak,strong]")
    accuracy = [r["snapshots"][0]["spaces"]["representation"]["knn_acc1"]["class"] for r in found["runs"]]
    assert [r["name"] for r in found["runs"]] == ["weak", "strong"] and accuracy[0] < 70 < 99 < accuracy[1]
    assert found["title"] == "weak · strong on saved features"
    (series,) = analyze(tmp_path / "series", words, "series=true")["runs"]
    assert [snapshot["epoch"] for snapshot in series["snapshots"]] == [1, 2]


def test_models_without_labels(tmp_path, run):
    words = ("model=[timm/resnet18,timm/resnet10t]", "pretrained=false", "data.dataset=digits", "data.num_workers=0")
    found = analyze(tmp_path / "out", *words, "data.image_size=16", "max_images=60", "accelerator=cpu")
    assert [r["name"] for r in found["runs"]] == ["timm/resnet18", "timm/resnet10t"]
    assert found["runs"][0]["snapshots"][0]["spaces"]["representation"]["images"] == 60


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["features=nowhere.npz"], 1, "features=nowhere.npz doesn't exist"),
        (["checkpoint=[nowhere,else]"], 2, "pretrained_feature_extractor='nowhere' does not exist"),
        (["k=3"], 2, "pretrained_feature_extractor is missing; give checkpoint=PATH"),
        (["features=nowhere.npz", "embedding=mds"], 2, "embedding='mds' is unknown"),
        (["features=nowhere.npz", "names=[a,b]"], 1, "names=['a', 'b'] don't fit 1 runs"),
    ],
)
def test_wrong_words(tmp_path, monkeypatch, capsys, words, code, text):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["analyze", *words]) == code
    assert text in capsys.readouterr().err
