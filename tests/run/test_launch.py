"""Starting processes and runs: as torchrun and SLURM do it, and sweeps of `--multirun`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import solo
from solo.args.compose import expand
from solo.args.schema import RunCfg
from solo.cli import is_first_process, main
from solo.errors import ConfigError, UserError
from solo.run.machine import check_launch, trainer_devices

ROOT = Path(solo.__file__).parents[1]
WORDS = (
    "scripts/pretrain/digits simclr.yaml backbone.name=test_resnet ~backbone.kwargs method_kwargs.proj_hidden_dim=8 "
)
WORDS += "method_kwargs.proj_output_dim=8 scheduler.warmup_epochs=0 accelerator=cpu progress=off max_epochs=1 "
WORDS += "tensorboard.enabled=false knn_eval.enabled=false limit_train_batches=1 limit_val_batches=1"


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (["a=1,2", "b=3"], [["a=1", "b=3"], ["a=2", "b=3"]]),
        (["a=1,2", "b=x,y"], [["a=1", "b=x"], ["a=1", "b=y"], ["a=2", "b=x"], ["a=2", "b=y"]]),
        (["a=range(0,10,5)"], [["a=0"], ["a=5"]]),
        (["+a=choice(p,q)", "~c"], [["+a=p", "~c"], ["+a=q", "~c"]]),
        (["a=[1,2],[3]"], [["a=[1,2]"], ["a=[3]"]]),
    ],
)
def test_expand(words, jobs):
    assert expand(words).jobs == jobs


@pytest.mark.fault(1, "`devices` as a text, a list, `auto`, -1 on a CPU", "so many processes")
@pytest.mark.fault(1, "`devices=99` on a CPU", "refused: too many for the cores")
def test_processes_on_a_cpu():
    for devices, count in ((2, 2), ("2", 2), ("0,1", 2), ((0, 1, 2), 3), ("auto", 1), (-1, 1), ("-1", 1)):
        assert trainer_devices(RunCfg(max_epochs=1, devices=devices, accelerator="cpu")) == count
    for devices in (9999, "9999", tuple(range(9999))):
        with pytest.raises(UserError, match=r"9999 processes are too many for \d+ cores; give devices=\d+ or less"):
            trainer_devices(RunCfg(max_epochs=1, devices=devices, accelerator="cpu"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["a=1"], "needs a word with several values"),
        (["a"], "is not key=value"),
        (["a=interval(0,1)"], "can't be listed"),
        (["a=glob(x*)"], "can't be listed"),
        (["a=range(0,2000)"], "more than 1000 runs"),
        (["a=1,2", "hydra/launcher=joblib"], "does nothing here"),
        (["a=1,2", "hydra.launcher.mem_gb=2"], "does nothing here"),
        (["a=1,2", "hydra.sweep.dir=x"], "does nothing here"),
    ],
)
def test_sweeps_that_can_not_be(words, text):
    with pytest.raises(ConfigError, match=text.replace("(", r"\(")):
        expand(words)


def test_one_run_after_the_other(monkeypatch, capfd):
    calls = []
    monkeypatch.setattr("subprocess.call", lambda words: calls.append(words[3:]) or len(calls) - 1)
    assert main(["pretrain", *WORDS.split(), "-m", "seed=1,2"]) == 1  # the second run fails
    assert [words[-1] for words in calls] == ["seed=1", "seed=2"] and calls[0][0] == "pretrain"
    assert calls[0][1:3] == ["scripts/pretrain/digits", "simclr.yaml"]
    out = capfd.readouterr().out
    assert "run 1 of 2: seed=1" in out and "exit code" in out


def trainer(started, outside=True):
    environment = SimpleNamespace(creates_processes_externally=outside, world_size=lambda: started)
    return SimpleNamespace(_accelerator_connector=SimpleNamespace(cluster_environment=environment))


@pytest.mark.parametrize(("devices", "nodes", "started"), [(1, 1, 1), (2, 1, 2), ([0, 1], 2, 4), ("2", 1, 2)])
def test_as_many_processes_as_the_settings_say(devices, nodes, started):
    cfg = RunCfg(max_epochs=1, devices=devices, num_nodes=nodes, accelerator="cpu")
    check_launch(cfg, trainer(started))
    check_launch(cfg, trainer(1, outside=False))  # Lightning starts them itself
    with pytest.raises(UserError, match=f"{started + 1} processes were started, but devices="):
        check_launch(cfg, trainer(started + 1))


def test_other_machines_need_someone_who_starts_them(monkeypatch):
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    monkeypatch.delenv("MASTER_ADDR", raising=False)
    alone = SimpleNamespace(_accelerator_connector=SimpleNamespace(cluster_environment=LightningEnvironment()))
    cfg = RunCfg(max_epochs=1, num_nodes=2)
    with pytest.raises(UserError, match="num_nodes=2, but nobody has started the other machines' processes"):
        check_launch(cfg, alone)
    monkeypatch.setenv("MASTER_ADDR", "first")
    check_launch(cfg, alone)


@pytest.mark.parametrize("name", ["LOCAL_RANK", "RANK", "SLURM_PROCID"])
def test_only_theis_first_process_speaks(name, monkeypatch):
    for other in ("LOCAL_RANK", "RANK", "SLURM_PROCID"):
        monkeypatch.delenv(other, raising=False)
    assert is_first_process()
    monkeypatch.setenv(name, "1")
    assert not is_first_process()


def slurm(rank, port):
    """What `srun` of two tasks on one machine gives to each."""
    names = {"JOB_ID": 4242, "JOB_NAME": "solo", "NTASKS": 2, "NTASKS_PER_NODE": 2, "NNODES": 1, "NODEID": 0}
    names |= {"PROCID": rank, "LOCALID": rank, "NODELIST": "127.0.0.1"}
    return {**{f"SLURM_{name}": str(value) for name, value in names.items()}, "MASTER_PORT": str(port)}


def torchrun(rank, port):
    """What `torchrun --nproc_per_node=2` gives to each."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "x"}
    return {name: str(value) for name, value in names.items()}


@pytest.mark.thorough  # two whole programs each
@pytest.mark.parametrize("launcher", [slurm, torchrun])
def test_two_tasks_are_one_run(launcher, tmp_path):
    port = 29500 + torch.randint(0, 2000, ()).item()
    command = [sys.executable, "-m", "solo", "pretrain", *WORDS.split(), "checkpoint.frequency=1"]
    command += ["devices=2", "strategy=ddp", f"checkpoint.dir={tmp_path}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:  # also if one hangs: its pipes would be closed inside another test
        runs = []
        for rank in range(2):
            environment = {**os.environ, **launcher(rank, port)}
            runs.append(stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)))
            stack.callback(runs[-1].kill)
        (first, first_err), (second, second_err) = (run.communicate(timeout=500) for run in runs)
    assert [run.returncode for run in runs] == [0, 0], first_err + second_err
    assert "global batch 256 = 128 for each process x 2 processes" in first and second == ""
    (folder,) = (tmp_path / "simclr").iterdir()
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"
    assert len(list(folder.glob("*.ckpt"))) == 2 and (folder / "metrics.csv").is_file()
