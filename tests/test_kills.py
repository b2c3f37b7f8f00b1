"""The benchmark of kills, as small as it gets: real processes, and SIGKILL."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.thorough
def test_killed_runs_end_like_one_that_is_not(tmp_path):
    words = ["benchmarks/kills.py", "--kills", "2", "--epochs", "2", "--seed", "2", "--fork", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, *words], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unreadable checkpoints: 0\n" in done.stdout
    assert "final state of 1 run against the uninterrupted one: identical" in done.stdout
