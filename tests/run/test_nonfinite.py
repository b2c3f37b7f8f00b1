"""A loss that is not finite stops the run; the error names where it began, and the folder replays it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from solo.callbacks.recorder import read_rows
from solo.callbacks.watchers import find_culprit
from solo.checkpoint import load_checkpoint
from solo.errors import NonFiniteError
from solo.methods import METHODS, SimCLR
from solo.run import pretrain


class _Root(nn.Module):
    """A layer that is fine until its input is negative."""

    def __init__(self, armed):
        super().__init__()
        self.armed = armed

    def forward(self, x):
        return (x - 1e3 * self.armed()).sqrt() if self.armed() else x


class BadLayer(SimCLR):
    def build(self, kw):
        super().build(kw)
        self.projector.append(_Root(lambda: self.global_step >= 3))


class BadEarly(SimCLR):
    """Its NaN reaches the running statistics of every batch normalisation."""

    def build(self, kw):
        super().build(kw)
        self.backbone.conv1 = nn.Sequential(_Root(lambda: self.global_step >= 3), self.backbone.conv1)


class BadTerm(SimCLR):
    def ssl_loss(self, out, step):
        return super().ssl_loss(out, step) + self.extra_term(out["z"][0])

    def extra_term(self, z):
        return (-z.square().mean()).log() if self.global_step >= 3 else z.mean() * 0


class BadWeights(SimCLR):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self.global_step == 3:
            self.projector[0].weight.data[0, 0] = float("nan")


class OwnStep(SimCLR):
    """A method in solo-learn's form, which doesn't look at its loss."""

    def training_step(self, batch, batch_idx):
        out = self.view_outputs(batch)
        return (out["z"][0].sum() * float("inf")) if self.global_step >= 3 else out["loss"]


def _run(method, pretrain_cfg, tmp_path, monkeypatch, **more):
    monkeypatch.setitem(METHODS, "simclr", method)
    with pytest.raises(NonFiniteError) as error:
        pretrain.run(pretrain_cfg(max_epochs=3, **more))
    (folder,) = (tmp_path / "simclr").iterdir()
    return str(error.value), folder / "replay"


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (BadLayer, "the first nan is made in module projector.3 (_Root)"),
        (BadEarly, "the first nan is made in module backbone.conv1.0 (_Root)"),
        (BadTerm, "the first nan is made in the loss"),
        (BadWeights, "the weights were broken before this step: projector.0.weight"),
        (OwnStep, "the first inf is made in the loss"),
    ],
)
def test_the_place_is_named_and_the_step_is_kept(method, words, pretrain_cfg, tmp_path, monkeypatch):
    text, folder = _run(method, pretrain_cfg, tmp_path, monkeypatch)
    assert words in text and "epoch 1, step 3" in text and str(folder) in text and "\n" not in text
    if method is BadTerm:
        assert "train_nce_loss=nan" in text
    finding = json.loads((folder / "finding.json").read_text())
    assert finding["text"] in text and finding["global_step"] == 3
    state, batch = load_checkpoint(folder / "state.ckpt"), torch.load(folder / "batch.pt", weights_only=True)
    assert state["global_step"] == 3 and state["solo"]["cfg"]["method"] == "simclr" and state["optimizer_states"]
    ids, views, targets = batch
    assert len(ids) == len(targets) == 16 and [view.shape for view in views] == [(16, 1, 16, 16)] * 2
    summary = json.loads((folder.parent / "summary.json").read_text())
    assert summary["status"] == "failed" and (folder.parent / "last.ckpt").is_file()


def test_the_kept_step_fails_again(pretrain_cfg, tmp_path, monkeypatch):
    _, folder = _run(BadWeights, pretrain_cfg, tmp_path, monkeypatch)
    model = SimCLR(pretrain_cfg())
    model.load_state_dict(load_checkpoint(folder / "state.ckpt")["state_dict"])
    finding = find_culprit(model, lambda: model(torch.load(folder / "batch.pt", weights_only=True)[1][0]))
    assert finding.parameters == ("projector.0.weight",)


def test_without_it_the_error_is_the_plain_one(pretrain_cfg, tmp_path, monkeypatch):
    text, folder = _run(BadTerm, pretrain_cfg, tmp_path, monkeypatch, online={"replay": False})
    assert "train_nce_loss=nan" in text and "replay" not in text and not folder.exists()


def test_what_is_masked_later_is_no_culprit():
    layer = nn.Linear(3, 2)

    def masked(x):
        return torch.where(torch.eye(4, 2) > 0, layer(x), (x[:, :2] * 0).reciprocal() * 0).masked_fill(
            torch.eye(4, 2) == 0, -torch.inf
        )

    finding = find_culprit(layer, lambda: masked(torch.randn(4, 3)))
    assert finding.value == "" and "finite" in str(finding)
    late = find_culprit(layer, lambda: masked(torch.ones(4, 3))[:2].amax(dim=1).mean() * torch.nan)
    assert late.value == "nan" and late.module == ""


def test_vital_signs_are_in_every_file(pretrain_cfg, tmp_path):
    pretrain.run(pretrain_cfg())
    (folder,) = (tmp_path / "simclr").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    for key in ("online/rankme/features", "online/lidar/projection", "online/threshold/projection"):
        assert isinstance(summary[key], float) and key in header
    assert (
        "hex/superclass_share" in header and summary["alarms"] == [] and "last batches" in summary["protocol"]["online"]
    )


def test_they_can_be_switched_off(pretrain_cfg, tmp_path):
    pretrain.run(pretrain_cfg(online={"enabled": False}, max_epochs=1))
    (folder,) = (tmp_path / "simclr").iterdir()
    assert "online/" not in (folder / "metrics.csv").read_text()
    assert "online" not in json.loads((folder / "summary.json").read_text())["protocol"]


@pytest.mark.thorough
def test_a_resumed_run_measures_what_the_uninterrupted_one_does(pretrain_cfg, tmp_path):
    more = {"max_epochs": 3, "checkpoint": {"enabled": True, "dir": str(tmp_path), "keep_prev": True}}
    pretrain.run(pretrain_cfg(**more))
    (folder,) = (tmp_path / "simclr").iterdir()
    whole = read_rows(folder / "metrics.csv")[2]
    before = torch.load(folder / "last.ckpt", weights_only=True)["callbacks"]["Online"]
    (middle,) = folder.glob("*-ep=1.ckpt")
    pretrain.run(pretrain_cfg(**more, resume_from_checkpoint=str(middle)))
    again = read_rows(folder / "metrics.csv")[2]
    vitals = {key: value for key, value in whole.items() if key.startswith("online/")}
    assert vitals and {key: again[key] for key in vitals} == pytest.approx(vitals, nan_ok=True)
    assert torch.load(folder / "last.ckpt", weights_only=True)["callbacks"]["Online"] == before
    assert len(before["_losses"]) == 3
