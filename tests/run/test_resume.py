"""Stopped anywhere and resumed, a run is the uninterrupted one, bit for bit."""

from __future__ import annotations

import csv
import warnings

import pytest
import torch

from solo.methods import METHODS
from solo.run import pretrain

TIMES = {"images_per_second", "data_wait", "peak_memory_mb", "seconds"}
KWARGS = {
    "simclr": {"proj_hidden_dim": 16, "proj_output_dim": 8, "temperature": 0.2},
    "nnclr": {
        "proj_hidden_dim": 16,
        "proj_output_dim": 8,
        "pred_hidden_dim": 16,
        "temperature": 0.2,
        "queue_size": 64,
    },
    "byol": {"proj_hidden_dim": 16, "proj_output_dim": 8, "pred_hidden_dim": 16},
    "deepclusterv2": {"proj_hidden_dim": 16, "proj_output_dim": 8, "num_prototypes": [6, 6], "kmeans_iters": 2},
}


class Killed(BaseException):
    """Stands for a process that is gone."""


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    with warnings.catch_warnings():
        yield


@pytest.fixture
def train(pretrain_cfg, tmp_path, monkeypatch):
    """Pretrain in a folder of its own; `kill_at` is the step (from 0) at which the process dies."""

    def run(name, method="simclr", kill_at=None, **more):
        root = tmp_path / name
        checkpoint = {"enabled": True, "dir": str(root), "every_steps": 1}
        fixed = {"method": method, "method_kwargs": KWARGS[method], "checkpoint": checkpoint, "limit_train_batches": 4}
        if method == "deepclusterv2":
            fixed |= {"type": "standard", "warm_epoch": 10}
        cfg = pretrain_cfg(**{**fixed, **more})
        original = METHODS[method].training_step

        def step(self, batch, batch_idx):
            if self.global_step == kill_at:
                raise Killed
            return original(self, batch, batch_idx)

        if kill_at is None:
            pretrain.run(cfg)
        else:
            with monkeypatch.context() as patch, pytest.raises(Killed):
                patch.setattr(METHODS[method], "training_step", step)
                pretrain.run(cfg)
        (folder,) = (root / method).iterdir()
        return folder

    return run


def state_of(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def rows_of(folder):
    with (folder / "metrics.csv").open() as stream:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(stream)]


def assert_same(a, b, where=""):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


def assert_same_run(whole, resumed):
    a, b = state_of(whole), state_of(resumed)
    for key in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        assert_same(a[key], b[key], key)
    (mine,), (other,) = (state["callbacks"]["Checkpointer"]["processes"] for state in (a, b))
    for key in ("rng", "buffers", "metrics"):
        assert_same(mine[key], other[key], key)
    assert rows_of(whole) == rows_of(resumed)


@pytest.mark.parametrize("method", KWARGS)
def test_a_run_killed_inside_an_epoch_goes_on_exactly(train, method):
    whole = train("whole", method)
    killed = train("killed", method, kill_at=5)  # in the second step of the second epoch
    assert state_of(killed)["global_step"] == 5
    train("killed", method, resume_from_checkpoint=str(killed))
    assert_same_run(whole, killed)
