"""Two "nodes" on this machine, a process each: the SLURM script of the docs, put back into the queue."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import solo

ROOT = Path(solo.__file__).parents[1]
RECIPE = "scripts/pretrain/digits simclr.yaml"
WORDS = "backbone.name=conv3 ~backbone.kwargs optimizer.batch_size=8 scheduler.warmup_epochs=0 accelerator=cpu "
WORDS += "progress=off knn_eval.enabled=false limit_val_batches=0 online.enabled=false max_epochs=6 "
WORDS += "auto_resume.enabled=true num_nodes=2 strategy=ddp"
SECONDS = 400  # the machine may be busy

pytestmark = pytest.mark.thorough  # whole programs


@contextlib.contextmanager
def started(
    words: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program and its children, in a group of their own that is gone at the end."""
    with log.open("ab") as out:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
        run = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            yield run
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def wait_for(what: Callable[[], Any], *logs: Path) -> None:
    end = time.monotonic() + SECONDS
    while not what():
        said = "\n".join(log.read_text(errors="replace")[-2000:] for log in logs if log.is_file())
        assert time.monotonic() < end, said
        time.sleep(0.2)


def epochs_of(folder: Path) -> list[int]:
    with (folder / "metrics.csv").open() as stream:
        return [int(row["epoch"]) for row in csv.DictReader(stream)]


SRUN = """#!/bin/bash
for node in 0 1; do
    SLURM_PROCID=$node SLURM_NODEID=$node SLURM_LOCALID=0 "$@" &
    echo $! >> {place}/tasks
done
code=0
for task in $(jobs -p); do wait $task || code=$?; done
exit $code
"""


def test_the_slurm_script_of_the_docs_goes_on_after_its_time(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "launching.md").read_text(encoding="utf-8")
    script = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", page, flags=re.DOTALL)[0]
    assert "--nodes=2" in script and "scripts/pretrain/cifar100 hex.yaml devices=4 num_nodes=2" in script
    script = script.replace("scripts/pretrain/cifar100 hex.yaml devices=4", f"{RECIPE} devices=1")
    words = WORDS.replace("auto_resume.enabled=true num_nodes=2 strategy=ddp", f"checkpoint.dir={tmp_path / 'runs'}")
    (tmp_path / "job.sh").write_text(script.rstrip() + f" {words}\n")
    for name, text in (
        ("srun", SRUN.format(place=tmp_path)),
        ("scontrol", f'#!/bin/bash\necho "$@" >> {tmp_path}/queue\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {
        **{"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "solo", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1"},
        **{
            "SLURM_NNODES": "2",
            "SLURM_NODELIST": "127.0.0.1",
            "MASTER_PORT": str(29500 + int(torch.randint(0, 2000, ()))),
        },
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    log, tasks = tmp_path / "job.log", tmp_path / "tasks"
    with started(["bash", str(tmp_path / "job.sh")], log, environment) as job:
        wait_for(lambda: list(tmp_path.glob("runs/*/*/last.ckpt")) or job.poll() is not None, log)
        for task in tasks.read_text().split():  # as `--signal=SIGUSR1@120` does
            os.kill(int(task), signal.SIGUSR1)
        wait_for(lambda: job.poll() is not None, log)
    assert (tmp_path / "queue").read_text() == "requeue 77\n", log.read_text()[-3000:]
    (folder,) = tmp_path.glob("runs/*/*")
    assert len(epochs_of(folder)) < 6
    environment["SLURM_RESTART_COUNT"] = "1"  # SLURM starts the script again
    with started(["bash", str(tmp_path / "job.sh")], log, environment) as job:
        wait_for(lambda: job.poll() is not None, log)
    assert job.returncode == 0, log.read_text()[-3000:]
    (folder,) = tmp_path.glob("runs/*/*")
    assert epochs_of(folder) == [*range(6)] and "auto_resume: continuing" in log.read_text()


def test_torchrun_takes_a_lost_machine_back(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    command = re.findall(r"TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 (torchrun --nnodes=2 .*?)\n```", page, flags=re.DOTALL)[
        0
    ]
    words = command.replace("scripts/pretrain/cifar100 hex.yaml devices=4", f"{RECIPE} devices=1")
    words = ["--local_addr=127.0.0.1", *words.replace("\\", "").split()[1:]]
    port = 29500 + int(torch.randint(0, 2000, ()))
    for word, here in (
        ("--nproc_per_node=4", "--nproc_per_node=1"),
        *(
            ("--rdzv_endpoint=$A_MACHINE:29500", f"--rdzv_endpoint=127.0.0.1:{port}"),
            ("--rdzv_id=$JOB", "--rdzv_id=77"),
        ),
    ):
        words[words.index(word)] = here
    words += [*WORDS.split(), "max_epochs=20", "checkpoint.frequency=1", f"checkpoint.dir={tmp_path / 'runs'}"]
    environment = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    logs = [tmp_path / f"{name}.log" for name in ("first", "second", "back")]
    agent = [sys.executable, "-m", "torch.distributed.run"]  # the first holds the store: it isn't the one that is lost
    first_words, words = [*agent, "--rdzv_conf=is_host=1", *words], [*agent, "--rdzv_conf=is_host=0", *words]
    with started(first_words, logs[0], environment) as first:
        with started(words, logs[1], environment) as second:
            wait_for(lambda: list(tmp_path.glob("runs/*/*/last.ckpt")), *logs)
            workers = Path(f"/proc/{second.pid}/task/{second.pid}/children").read_text().split()
            for process in (second.pid, *map(int, workers)):  # as the power's failure does
                os.kill(process, signal.SIGKILL)
        with started(words, logs[2], environment) as back:
            wait_for(lambda: first.poll() is not None and back.poll() is not None, *logs)
    assert (first.returncode, back.returncode) == (0, 0), logs[2].read_text()[-3000:]
    (folder,) = tmp_path.glob("runs/*/*")
    assert epochs_of(folder) == [*range(20)] and any("auto_resume: continuing" in log.read_text() for log in logs)
