"""The way of a newcomer, as small as it gets: pretrain, evaluate, look at the files."""

import json
import warnings

import pytest
import torch
import yaml

from solo.errors import UserError
from solo.eval.knn import WeightedKNNClassifier
from solo.run import measure, pretrain


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    with warnings.catch_warnings():
        yield


def folder_of(root, kind):
    (folder,) = (root / kind).iterdir()
    return folder


def test_pretraining_writes_its_files_and_says_what_is_next(pretrain_cfg, tmp_path, capsys):
    pretrain.run(pretrain_cfg())
    pretrained = folder_of(tmp_path, "simclr")
    names = {file.name for file in pretrained.iterdir() if "tfevents" not in file.name}
    ckpt = f"simclr-digits-{pretrained.name}-ep=1.ckpt"
    settings = {"args.json", "config.yaml"}
    assert names == {*settings, "metrics.csv", "summary.json", "curves.png", "last.ckpt", ckpt}
    summary = json.loads((pretrained / "summary.json").read_text())
    for key in ("val_acc1", "val_acc5", "knn_acc1", "threshold", "images_per_second", "data_wait", "peak_memory_mb"):
        assert isinstance(summary[key], float), key
    assert summary["levels"]["digit"]["knn_acc1"] == summary["knn_acc1"]
    assert 0 <= summary["online/knn_acc1/digit"] <= 100
    assert "k=5, euclidean distance" in summary["protocol"]["knn_acc1"]
    assert summary["status"] == "finished" and summary["dataset"] == "digits" and summary["seed"] == 5
    screen = capsys.readouterr().out
    assert "kNN top-1" in screen and "\x1b" not in screen
    assert screen.rstrip().endswith(f"pretrained_feature_extractor={pretrained / 'last.ckpt'}")
    assert "next: solo linear pretrained_feature_extractor=" in screen


@pytest.mark.fault(5, "`val_check_interval=1`, `check_val_every_n_epoch=2`", "the protocol says what the bank held")
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("more", "batches", "said"),
    [
        ({"val_check_interval": 1}, [1, 1, 1, 1, 1, 1], "augmented training views of the epoch since the one before"),
        ({"val_check_interval": 0.5}, [1, 1, 1, 1, 1, 1], "augmented training views of the epoch since the one before"),
        ({"val_check_interval": 3, "check_val_every_n_epoch": None}, [1, 2], "since the one before"),
        ({"check_val_every_n_epoch": 2}, [2], "bank: augmented training views of its epoch; all validation images"),
        ({}, [2, 2, 2], "bank: augmented training views of its epoch; all validation images, last validation"),
    ],
)
def test_the_protocol_says_what_the_bank_holds(pretrain_cfg, tmp_path, monkeypatch, more, batches, said):
    held, compute = [], WeightedKNNClassifier.compute

    def counted(self):
        held.append(sum(map(len, self.train_features)))
        return compute(self)

    monkeypatch.setattr(WeightedKNNClassifier, "compute", counted)
    pretrain.run(pretrain_cfg(max_epochs=3, **more))
    assert held == [2 * 16 * number for number in batches]
    summary = json.loads((folder_of(tmp_path, "simclr") / "summary.json").read_text())
    assert said in summary["protocol"]["knn_acc1"]


def test_the_same_seed_gives_the_same_weights(pretrain_cfg, tmp_path):
    states = []
    for index, seed in enumerate((5, 5, 6)):
        root = tmp_path / str(index)
        pretrain.run(pretrain_cfg(seed=seed, checkpoint={"enabled": True, "dir": str(root)}))
        states.append(torch.load(folder_of(root, "simclr") / "last.ckpt")["state_dict"])
    first, same, other = states
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["backbone.conv1.0.weight"], other["backbone.conv1.0.weight"])


@pytest.mark.parametrize("cached", [True, False])
def test_linear_evaluation_takes_what_it_needs_from_the_checkpoint(pretrained, linear_cfg, tmp_path, cached):
    measure.linear(linear_cfg(pretrained, data={"dataset": "digits", "num_workers": 0, "cache_features": cached}))
    folder = folder_of(tmp_path, "linear")
    summary = json.loads((folder / "summary.json").read_text())
    assert 0 <= summary["val_acc1"] <= summary["val_acc5"] <= 100 and summary["backbone"] == "test_resnet"
    assert summary["levels"] == {"digit": {"val_acc1": summary["val_acc1"]}}
    assert ("cached features" in summary["protocol"]["val_acc1"]) == cached
    cfg = yaml.safe_load((folder / "config.yaml").read_text())
    assert cfg["data"]["mean"] == [0.3098] and cfg["data"]["image_size"] == 16 and cfg["pretrain_method"] == "simclr"
    before, after = (torch.load(run / "last.ckpt")["state_dict"] for run in (pretrained, folder))
    frozen = [key for key in before if key.startswith("backbone.")]
    assert frozen and all(torch.equal(before[key], after[key]) for key in frozen)


def test_another_backbone_is_one_clear_error(pretrained, linear_cfg):
    with pytest.raises(
        UserError, match=r"trained with 'test_resnet'.*doesn't fit backbone.name='resnet10'.*missing.*unexpected"
    ) as error:
        measure.linear(linear_cfg(pretrained, backbone={"name": "resnet10"}))
    assert "\n" not in str(error.value)


def test_without_checkpoints_the_numbers_are_still_kept(pretrain_cfg, tmp_path, capsys):
    pretrain.run(pretrain_cfg(checkpoint={"enabled": False, "dir": str(tmp_path)}, max_epochs=1))
    names = {file.name for file in folder_of(tmp_path, "simclr").iterdir()}
    assert not any(name.endswith(".ckpt") for name in names) and {"summary.json", "metrics.csv"} <= names
    assert "next:" not in capsys.readouterr().out


def test_a_run_is_continued_in_its_own_folder(pretrain_cfg, tmp_path, pretrained):
    pretrain.run(pretrain_cfg(max_epochs=3, resume_from_checkpoint=str(pretrained), resume_allow=["max_epochs"]))
    assert folder_of(tmp_path, "simclr") == pretrained
    assert json.loads((pretrained / "summary.json").read_text())["epochs"] == 3
    assert len((pretrained / "metrics.csv").read_text().splitlines()) == 4


def test_continuing_a_finished_run_changes_nothing(pretrain_cfg, pretrained):
    rows, summary = (pretrained / "metrics.csv").read_text(), json.loads((pretrained / "summary.json").read_text())
    pretrain.run(pretrain_cfg(resume_from_checkpoint=str(pretrained)))
    assert (pretrained / "metrics.csv").read_text() == rows
    again = json.loads((pretrained / "summary.json").read_text())
    numbers = {key: value for key, value in summary.items() if isinstance(value, (int, float))}
    assert {key: again[key] for key in numbers} == pytest.approx(numbers, abs=1e-3)
    assert again["status"] == "finished" and again["levels"].keys() == summary["levels"].keys()


def test_a_grid_chooses_rate_and_decay_on_training_images(pretrained, linear_cfg, capsys):
    data = {"dataset": "digits", "num_workers": 0, "cache_features": True}
    optimizer = {"name": "sgd", "batch_size": 64, "lr": 0.1}
    measure.linear(linear_cfg(pretrained, grid=True, data=data, optimizer=optimizer, max_epochs=1))
    said = " ".join(capsys.readouterr().out.split())
    assert "grid of 24: optimizer.lr=" in said and "the best on a tenth of the training images" in said
    with pytest.raises(UserError, match="grid=True compares settings"):
        linear_cfg(pretrained, grid=True, data={"dataset": "digits"}, optimizer=optimizer)


def test_finetuning_and_cached_features_exclude_each_other(linear_cfg, pretrained):
    with pytest.raises(UserError, match="cache_features"):
        measure.linear(linear_cfg(pretrained, finetune=True, data={"dataset": "digits", "cache_features": True}))
