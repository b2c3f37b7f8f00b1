"""`benchmarks/gpu.py` runs through without a GPU, row by row, and says so where it needs one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
PARTS = ["yardstick", "networks", "augmentation", "losses", "truth", "knn", "sync_norms", "runs", "loader"]


@pytest.mark.thorough
def test_dry(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    subprocess.run([sys.executable, PROGRAM, out, "--dry"], check=True, cwd=PROGRAM.parents[1], timeout=300)
    rows = json.loads(out.read_text())
    assert rows[0]["dry"] and list(dict.fromkeys(row["part"] for row in rows[1:])) == PARTS
    assert not [row for row in rows if "error" in row]
