import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment

from solo.callbacks.checkpointer import TIME_LIMIT, StopRequests, StopRunError, requeue, seconds_of
from solo.errors import UserError


@pytest.mark.parametrize("limit", ["01:02:03:04", timedelta(1, 4, hours=2, minutes=3), {"hours": 26, "seconds": 184}])
def test_durations(limit):
    assert seconds_of(limit) == 86400 + 2 * 3600 + 3 * 60 + 4


@pytest.mark.parametrize("wrong", ["4h", "1:2:3", {"hour": 1}, 5])
def test_what_is_no_duration(wrong):
    with pytest.raises(UserError, match="no duration; write DD:HH:MM:SS"):
        StopRequests(wrong)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_is_noted_and_its_former_handler_comes_back(number):
    before = signal.signal(number, signal.default_int_handler)  # the tests themselves may run under nohup
    try:
        requests = StopRequests()
        assert requests.pending() == 0
        requests.listen()
        os.kill(os.getpid(), number)
        for _ in range(100):  # another thread may get it first
            if requests.pending():
                break
            time.sleep(0.01)
        assert requests.pending() == 128 + number
        requests.unlisten()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


@pytest.mark.fault(1, "SIGTERM to the whole process group, loaders too", "the stop's own lines and exit code")
@pytest.mark.thorough
def test_the_loaders_do_not_die_first(tmp_path):
    words = ["max_epochs=50", "data.augment=sample", "data.num_workers=2", "optimizer.batch_size=64", "progress=plain"]
    words += ["backbone.kwargs.width=8", "accelerator=cpu", f"checkpoint.dir={tmp_path}"]
    command = [sys.executable, "-m", "solo", "pretrain", "digits", "simclr", *words]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        assert run.stdout is not None and any(line.startswith("epoch 1") for line in run.stdout)
        os.killpg(run.pid, signal.SIGTERM)
        left = run.communicate(timeout=120)[0].splitlines()
    finally:
        run.kill()
    assert run.returncode == 128 + signal.SIGTERM
    assert not [line for line in left if "error" in line or "Traceback" in line]
    assert any(line.startswith("stopped by SIGTERM, saved after step") for line in left)


def test_nohup_stays_in_force():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        requests = StopRequests()
        requests.listen()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        requests.unlisten()
    finally:
        signal.signal(signal.SIGHUP, former)


def test_an_output_that_nobody_reads_ends_the_run(monkeypatch):
    monkeypatch.setattr("solo.callbacks.checkpointer.reader_is_gone", lambda: True)
    assert StopRequests().pending() == 141 and StopRunError(141).reason == "SIGPIPE"


def test_the_limit_counts_from_the_start():
    requests = StopRequests({"milliseconds": 200})
    assert requests.pending() == 0
    time.sleep(0.25)
    assert requests.pending() == TIME_LIMIT
    assert StopRunError(TIME_LIMIT).code == 124 and "time limit" in StopRunError(TIME_LIMIT).reason


@pytest.mark.parametrize(("array", "job"), [(False, "7"), (True, "9_3")])
def test_a_slurm_job_goes_back_into_the_queue(monkeypatch, array, job):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name, value in {"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value) if array else monkeypatch.delenv(name, raising=False)
    called = []

    def ask(environment):
        return requeue(
            SimpleNamespace(_accelerator_connector=SimpleNamespace(cluster_environment=environment)), called.append
        )

    assert ask(SLURMEnvironment()) and called == [["scontrol", "requeue", job]]
    assert not ask(SLURMEnvironment(auto_requeue=False)) and not ask(LightningEnvironment()) and len(called) == 1
