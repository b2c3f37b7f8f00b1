"""A saved step that stopped a run is run again: what it says about too small a precision and about broken weights."""

from __future__ import annotations

import json

import pytest
import torch

from solo.cli import main as solo
from solo.doctor.case import Case
from solo.doctor.toy import ToyImages, toy_cfg
from solo.methods import METHODS


def save(folder, spoil=None, precision="32-true"):
    """What the guard of a run leaves behind, for a SimCLR of toy size."""
    torch.manual_seed(0)
    model = METHODS["simclr"](toy_cfg(Case("simclr"), 8))
    images = ToyImages(8, dtype=torch.float32)
    items = [images[i] for i in range(8)]
    views = [torch.stack([item[1][view] for item in items]) for view in (0, 1)]
    batch = [torch.arange(8), views, torch.stack([item[2] for item in items])]
    if spoil:
        spoil(model, views)
    rng = {"torch": torch.get_rng_state(), "cuda": []}
    state = {"state_dict": model.state_dict(), "epoch": 1, "optimizer_states": []}
    state["replay"] = {"format": 1, "batch_idx": 0, "rng": rng, "precision": precision}
    model.on_save_checkpoint(state)
    folder.mkdir(parents=True)
    torch.save(state, folder / "state.ckpt")
    torch.save(batch, folder / "batch.pt")
    (folder / "finding.json").write_text(json.dumps({"text": "the first nan is made in the loss"}))


def broken_weight(model, views):
    next(model.backbone.parameters()).data.view(-1)[0] = float("nan")


def large_weights(model, views):
    model.classifier.weight.data.fill_(3e38)


@pytest.mark.parametrize(
    ("spoil", "code", "text"),
    [
        (None, 0, "every precision gives a finite loss here"),
        (broken_weight, 1, "float64 is not finite either"),
        (large_weights, 1, "float64 is finite: the numbers are too large for 32-true"),
    ],
)
def test_replay(spoil, code, text, tmp_path, capsys):
    save(tmp_path / "run" / "replay", spoil)
    assert solo(["doctor", "--replay", str(tmp_path / "run")]) == code
    out = capsys.readouterr().out
    assert text in out and "then: the first nan is made in the loss" in out and "64-true" in out


def test_folders_that_can_not_be_replayed(tmp_path, capsys):
    assert solo(["doctor", "--replay", str(tmp_path)]) == 1
    assert "holds no state.ckpt; give a run's folder replay" in capsys.readouterr().err
    save(tmp_path / "replay")
    (tmp_path / "replay" / "batch.pt").write_bytes(b"x")
    assert solo(["doctor", "--replay", str(tmp_path)]) == 1
    assert "batch.pt can't be read" in capsys.readouterr().err
