"""Stopped anywhere and resumed, a run is the uninterrupted one, bit for bit."""

from __future__ import annotations

import csv
import math
import os
import shutil
import signal
import time
import warnings

import pytest
import torch

from solo.errors import ConfigError, UserError
from solo.methods import METHODS
from solo.run import pretrain, trainer

TIMES = {"images_per_second", "data_wait", "peak_memory_mb", "seconds"}
KWARGS = {
    "simclr": {"proj_hidden_dim": 16, "proj_output_dim": 8, "temperature": 0.2},
    "byol": {"proj_hidden_dim": 16, "proj_output_dim": 8, "pred_hidden_dim": 16},
}


class Killed(BaseException):
    """Stands for a process that is gone."""


def kill():
    raise Killed


def sigterm():
    os.kill(os.getpid(), signal.SIGTERM)


def sigusr1():
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    with warnings.catch_warnings():
        yield


@pytest.fixture
def train(pretrain_cfg, tmp_path, monkeypatch):
    """Pretrain in a folder of its own; `at` is a step (from 0) and what happens in each of its batches."""

    def run(place, method="simclr", at=None, checkpoint=None, **more):
        root = tmp_path / place
        checkpoint = {"enabled": True, "dir": str(root), **(checkpoint or {"every_steps": 1})}
        fixed = {"method": method, "method_kwargs": KWARGS[method], "checkpoint": checkpoint, "limit_train_batches": 4}
        original = METHODS[method].training_step

        def step(self, batch, batch_idx):
            if at is not None and self.global_step == at[0]:
                at[1]()
            return original(self, batch, batch_idx)

        with monkeypatch.context() as patch:
            patch.setattr(METHODS[method], "training_step", step)
            try:
                pretrain.run(pretrain_cfg(**{**fixed, **more}))
            except (Killed, SystemExit) as error:
                run.error = error
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


# Whole batches or image by image, by this process or by workers, in any order: the next batch is the one to come.
PIPELINES = {
    "batches": {"augment": "batch", "num_workers": 0},
    "images by workers": {"augment": "sample", "num_workers": 2},
    "balanced by a worker": {"augment": "batch", "num_workers": 1, "sampler": "balanced"},
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_run_killed_inside_an_epoch_goes_on_exactly(train, pipeline):
    data = {"dataset": "digits", **PIPELINES[pipeline]}
    whole = train("whole", data=data)
    killed = train("killed", at=(5, kill), data=data)  # in the second step of the second epoch
    assert state_of(killed)["global_step"] == 5
    train("killed", resume_from_checkpoint=str(killed), data=data)
    assert_same_run(whole, killed)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("stop", "code"), [(sigterm, 128 + 15), (sigusr1, 128 + 10)])
def test_a_signal_stops_between_two_steps_and_loses_nothing(train, capsys, stop, code):
    two = {"accumulate_grad_batches": 2, "limit_train_batches": 6, "checkpoint": {"every_minutes": None}}
    whole = train("whole", **two)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    stopped = train("stopped", at=(1, stop), **two)  # a step of two batches: the signal comes in the first of them
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    assert train.error.code == code
    assert state_of(stopped)["global_step"] == 2
    screen = capsys.readouterr().out
    assert f"stopped by {signal.Signals(code - 128).name}, saved after step 2; 0 finished epochs" in screen
    train("stopped", resume_from_checkpoint=str(stopped), **two)
    assert_same_run(whole, stopped)


@pytest.mark.thorough
def test_the_time_limit_stops_in_the_same_way(train, capsys):
    whole = train("whole", checkpoint={"every_minutes": None})
    at = (2, lambda: time.sleep(1.1))
    stopped = train("stopped", at=at, max_time="00:00:00:01", checkpoint={"every_minutes": None})
    assert train.error.code == 124 and 0 < state_of(stopped)["global_step"] <= 3
    assert "stopped by the time limit (max_time)" in capsys.readouterr().out
    train("stopped", resume_from_checkpoint=str(stopped))  # max_time doesn't have to be the same
    assert_same_run(whole, stopped)


def test_a_stopped_run_lists_what_it_skipped(train, monkeypatch):
    monkeypatch.setattr(trainer, "skipped_files", lambda dataset: ["a.png can't be read as an image"])
    stopped = train("stopped", at=(1, sigterm))
    assert (stopped / "skipped.txt").read_text() == "a.png can't be read as an image\n"


def test_a_checkpoint_inside_an_epoch_by_time(train):
    assert state_of(train("a", at=(3, kill), checkpoint={"every_minutes": 0}))["global_step"] == 3


@pytest.mark.thorough
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(train, capsys):
    whole, killed = train("whole"), train("killed", at=(6, kill))
    last = killed / "last.ckpt"
    content = last.read_bytes()
    last.write_bytes(content[: len(content) // 2])
    (killed / ".last.ckpt.tmp").write_bytes(b"half")
    capsys.readouterr()
    train("killed", resume_from_checkpoint=str(killed))
    lines = [line for line in capsys.readouterr().out.splitlines() if "is truncated or damaged" in line]
    assert len(lines) == 1 and lines[0].endswith("going on with last.ckpt.bak, the one before")
    assert_same_run(whole, killed)
    assert not list(killed.glob("*.bak")) and not list(killed.glob(".*.tmp"))


def test_nothing_that_can_be_read(train):
    killed = train("killed", at=(2, kill))
    for file in killed.glob("last.ckpt*"):
        file.write_bytes(b"PK")
    with pytest.raises(UserError, match="last.ckpt is truncated or damaged"):
        train("killed", resume_from_checkpoint=str(killed))


@pytest.mark.thorough
def test_other_settings_are_listed_and_refused_unless_allowed(train, capsys):
    killed = train("killed", at=(2, kill))
    other = {"seed": 6, "knn_eval": {"enabled": True, "k": 4}, "name": "other", "progress": "off"}
    with pytest.raises(UserError) as error:
        train("killed", resume_from_checkpoint=str(killed), max_epochs=3, **other)
    text = str(error.value)
    assert "\n  max_epochs: 2 -> 3\n" in text and "\n  seed: 5 -> 6\n" in text and "\n  knn_eval.k: 5 -> 4\n" in text
    assert "'resume_allow=[max_epochs,seed,knn_eval.k]'" in text and "progress" not in text
    with pytest.raises(UserError, match="seed: 5 -> 6") as error:
        train("killed", resume_from_checkpoint=str(killed), resume_allow=["knn_eval"], **other)
    assert "knn_eval" not in str(error.value)
    with pytest.raises(ConfigError, match="resume_allow has sead, which is no setting"):
        train("killed", resume_from_checkpoint=str(killed), resume_allow=["sead"])
    capsys.readouterr()
    train("killed", resume_from_checkpoint=str(killed), resume_allow=["knn_eval", "seed"], **other)
    assert "resumed with seed: 5 -> 6" in capsys.readouterr().out


@pytest.mark.thorough
def test_what_is_allowed_to_change_takes_effect_at_once(train):
    fixed = {"scheduler": {"name": "warmup_cosine", "warmup_epochs": 1}, "name": "run"}
    sgd = {"name": "sgd", "batch_size": 16, "lr": 0.1, "weight_decay": 0.1}
    killed = train("killed", at=(5, kill), optimizer=sgd, **fixed)
    longer = {"max_epochs": 4, "optimizer": {**sgd, "weight_decay": 0.2}, "checkpoint": {"every_steps": 7}}
    allow = ["max_epochs", "optimizer.weight_decay"]
    train("killed", at=(7, kill), resume_from_checkpoint=str(killed), resume_allow=allow, **longer, **fixed)
    (group, *_) = state_of(killed)["optimizer_states"][0]["param_groups"]
    whole = train("whole", at=(7, kill), optimizer=sgd, max_epochs=4, **fixed)
    planned = state_of(whole)["optimizer_states"][0]["param_groups"][0]["lr"]
    assert group["weight_decay"] == 0.2 and group["lr"] == pytest.approx(planned, rel=1e-6)


@pytest.mark.thorough
def test_auto_resume_goes_on_and_says_what_it_passes_over(train, capsys):
    killed = train("killed", at=(5, kill))
    train("killed", auto_resume={"enabled": True}, at=(0, kill))
    assert f"auto_resume: continuing {killed / 'last.ckpt'}" in capsys.readouterr().out
    old = time.time() - 40 * 3600
    other = train("other", at=(5, kill))
    os.utime(other / "last.ckpt", (old, old))
    with pytest.raises(ValueError, match="too many values"):  # a second run
        train("other", auto_resume={"enabled": True}, at=(0, kill))
    assert f"auto_resume: {other / 'last.ckpt'} is not continued: it is 40.0 h old" in capsys.readouterr().out


def _at(*keys, value):
    def change(checkpoint):
        for key in keys[:-1]:
            checkpoint = checkpoint[key]
        checkpoint[keys[-1]] = value

    return change


def _group(**values):
    return lambda checkpoint: checkpoint["optimizer_states"][0]["param_groups"][0].update(values)


def _momentum(change):
    def wrong(checkpoint):
        state = checkpoint["optimizer_states"][0]["state"]
        first = next(iter(state))
        name = next(
            name for name, value in state[first].items() if isinstance(value, torch.Tensor) and value.numel() > 1
        )
        state[first][name] = change(state[first][name])

    return wrong


def _go_on_from(change, train, folder):
    """Continue a changed checkpoint of a run that is made once for all rows."""
    file = folder.parent / "whole.ckpt"
    if not file.exists():
        shutil.copy(train("run", max_epochs=1) / "last.ckpt", file)
    checkpoint = torch.load(file, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, folder / "odd.ckpt")
    train("other", max_epochs=2, resume_from_checkpoint=str(folder / "odd.ckpt"), resume_allow=["max_epochs"])


@pytest.mark.fault(5, "NaN, texts or other sizes in the state of an optimizer, scheduler or callback", "one line")
@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "change",
    [
        _group(lr=math.nan),
        _group(lr=math.inf),
        _group(lr="fast"),
        _group(lr=None),
        _group(momentum="much"),
        _group(params=[0]),
        _group(params=None),
        _at("optimizer_states", 0, "param_groups", value=[]),
        _at("optimizer_states", 0, "param_groups", value=5),
        _at("optimizer_states", 0, "state", value={10**6: {"momentum_buffer": torch.ones(2)}}),
        _at("optimizer_states", 0, "state", value={0: 5}),
        _momentum(lambda value: value * math.nan),
        _momentum(lambda value: torch.ones(3, 4)),
        _momentum(lambda value: "x"),
        _at("lr_schedulers", value=[]),
        _at("lr_schedulers", 0, "last_epoch", value=3.5),
        _at("lr_schedulers", 0, "base_lrs", value=[math.nan]),
        _at("lr_schedulers", 0, "_last_lr", value="x"),
        _at("callbacks", "Checkpointer", "processes", value=[5]),
        _at("callbacks", "Checkpointer", "processes", value=[{"rng": {"torch": torch.ones(3)}}]),
        _at("callbacks", "Checkpointer", "processes", 0, "metrics", value={"nobody": 3}),
    ],
)
def test_the_state_of_training_is_something_else(train, tmp_path, change):
    with pytest.raises(UserError) as error:
        _go_on_from(change, train, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.fault(5, "a checkpoint whose loops, schedulers, epoch or callbacks are something else", "one line")
@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "change",
    [
        _at("loops", value=5),
        _at("loops", "fit_loop", value={"x": 1}),
        _at("lr_schedulers", value=[{"last_epoch": "x"}]),
        _at("epoch", value="many"),
        _at("epoch", value=-1),
        _at("epoch", value=True),
        _at("global_step", value=2**70),
        _at("loops", "fit_loop", "epoch_progress", "current", "processed", value=2**70),
        _at("loops", "fit_loop", "epoch_loop.batch_progress", "total", "completed", value=-5),
        _at("lr_schedulers", value=[{"last_epoch": -5}]),
        _at("callbacks", "Checkpointer", value=5),
        _at("optimizer_states", value=[]),
        _at("optimizer_states", value=[{}]),
    ],
)
def test_the_state_of_a_run_is_something_else(train, tmp_path, change):
    with pytest.raises(UserError, match="where its run was"):
        _go_on_from(change, train, tmp_path)
