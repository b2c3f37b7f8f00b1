"""`precision: auto` in a run: decided once, said, written down, and kept when the run is resumed."""

import warnings

import pytest
from omegaconf import OmegaConf

from solo import precision
from solo.checkpoint import load_checkpoint
from solo.errors import UserError
from solo.run import pretrain


def run(cfg):
    with warnings.catch_warnings():
        return pretrain.run(cfg).folder


def test_a_run_keeps_what_was_decided(pretrain_cfg, monkeypatch, capsys):
    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: True)
    tiny = {"limit_train_batches": 1, "online": {"enabled": False}, "knn_eval": {"enabled": False}}
    folder = run(pretrain_cfg(precision="auto", max_epochs=2, max_steps=1, **tiny))
    assert "precision=auto: bf16-mixed (CPU with instructions for bfloat16)" in capsys.readouterr().out
    assert OmegaConf.load(folder / "config.yaml").precision == "bf16-mixed"
    last = str(folder / "last.ckpt")
    assert load_checkpoint(last)["solo"]["cfg"]["precision"] == "bf16-mixed"

    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: False)  # another machine
    again = {"resume_from_checkpoint": last, "resume_allow": ("max_steps",), "max_epochs": 2, **tiny}
    run(pretrain_cfg(precision="auto", **again))
    assert "precision bf16-mixed" in capsys.readouterr().out
    with pytest.raises(UserError, match="precision: bf16-mixed -> 32"):
        run(pretrain_cfg(precision=32, **again))
