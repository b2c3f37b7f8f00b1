"""A machine that fails under a run: one clear line, an exit code that isn't 0, and what was saved stays valid."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

import solo
import solo.files
from solo.cli import main
from solo.data.sources.images import ArrayDataset
from solo.run.report import explain, hush

ROOT = Path(solo.__file__).parents[1]
DIGITS = "pretrain scripts/pretrain/digits simclr.yaml backbone.name=test_resnet ~backbone.kwargs"
SMALL = "method_kwargs.proj_hidden_dim=8 method_kwargs.proj_output_dim=8 scheduler.warmup_epochs=0 seed=5"
QUIET = "accelerator=cpu progress=plain tensorboard.enabled=false knn_eval.enabled=false num_sanity_val_steps=0"


def words(folder, *more):
    return [*DIGITS.split(), *SMALL.split(), *QUIET.split(), f"checkpoint.dir={folder}", *more]


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    with warnings.catch_warnings():
        yield


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("code", "text"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only file system")])
def test_a_full_or_read_only_disk(code, text, tmp_path, monkeypatch, capsys):
    flush, written = solo.files.flush, []

    def fail_later(path):
        written.extend([path] if path.match(".last.ckpt.*tmp") else [])
        if len(written) == 2:  # the second epoch's
            raise OSError(code, os.strerror(code), str(path))
        flush(path)

    monkeypatch.setattr(solo.files, "flush", fail_later)
    short = ["max_epochs=3", "limit_train_batches=1", "limit_val_batches=1"]
    assert main(words(tmp_path, *short)) == 1
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and text in err and err.startswith("error: ")
    assert "can't be written" in err
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["epoch"] == 0
    assert f"kept in {last.parent}" in out and f"resume_from_checkpoint={last}" in out
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.undo()
    assert main(words(tmp_path, *short, f"resume_from_checkpoint={last}")) == 0
    assert torch.load(last, weights_only=True)["epoch"] == 2


def test_a_killed_data_worker(tmp_path, monkeypatch, capsys):
    read = ArrayDataset.read

    def die(self, index):
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index)

    monkeypatch.setattr(ArrayDataset, "read", die)
    short = ["max_epochs=1", "limit_train_batches=1", "limit_val_batches=1"]
    assert main(words(tmp_path, *short, "data.augment=sample", "data.num_workers=1")) == 1
    err = capsys.readouterr().err
    assert "a process that loads images" in err and "lower data.num_workers" in err and "Traceback" not in err


@pytest.mark.thorough
@pytest.mark.parametrize("lost", ["first", "second"])
def test_a_lost_process(lost, tmp_path):
    """Two processes on gloo, started by Lightning; the one that is left ends by itself, soon and with a message."""
    command = [sys.executable, "-m", "solo", *words(tmp_path, "max_epochs=1000", "devices=2", "strategy=ddp")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as run:
        said = []
        for line in run.stdout:
            said.append(line)
            if line.startswith("epoch 2/"):
                break
        assert run.poll() is None, "".join(said)
        found = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True, check=True)
        child = int(found.stdout.split()[0])
        os.kill(run.pid if lost == "first" else child, signal.SIGKILL)
        start = time.monotonic()
        rest = run.stdout.read()  # ends when no process holds the pipe any more
    assert time.monotonic() - start < 240  # seconds, where a hang would take half an hour
    assert run.returncode != 0
    assert "error: " in rest and "of this run has ended" in rest and "Traceback" not in rest
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["epoch"] >= 0


def test_the_observer_of_processes_is_heard(capsys):
    hush(workers=True)
    launcher = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")
    launcher.info("[rank: 1] Child process with PID 77 terminated with code -9. Forcefully ...")
    err = capsys.readouterr().err
    assert err.startswith("error: process 77 of this run has ended with code -9; all are stopped, and resume_from_")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "lower optimizer.batch_size"),
        (
            RuntimeError("[/w/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"),
            "see its message, if it had any (Connection closed by peer [127.0.0.1]:1)",
        ),
        (RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"), "(pid 12, 13) has ended"),
        (OSError(errno.ENOSPC, "No space left on device", "x/events"), "x/events can't be written: No space left"),
        (OSError(errno.EACCES, "Permission denied", "x"), "x can't be opened: Permission denied"),
        (RuntimeError("shapes differ"), None),
        (KeyError("x"), None),
    ],
)
def test_explain(error, text):
    found = explain(error)
    assert found is None if text is None else text in found
