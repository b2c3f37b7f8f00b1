from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from solo import cli
from solo.callbacks import run_directory
from solo.errors import UserError

HOLD = "import pathlib, sys; from solo.callbacks import run_directory; run_directory.acquire(pathlib.Path(sys.argv[1]))"


@pytest.mark.fault(5, "two programs in one run folder", "the second is refused and says who holds it")
@pytest.mark.fault(5, "a program that was killed left its lock behind", "the next one takes the folder over")
@pytest.mark.fault(
    5, "`solo experiment`, `benchmark` and `analyze` in a folder where another one is at work", "refused likewise"
)
def test_one_program_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = HOLD + "; print('held', flush=True); sys.stdin.read()"
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], **options)  # type: ignore[call-overload]
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by process {other.pid} on \S+, since 20"):
            run_directory.acquire(tmp_path)
        (tmp_path / "mine.yaml").write_text(
            "recipe: digits simclr\nmeasures: [digit/knn_acc1]\nbaseline: a\narms: {a: []}\n"
        )
        np.savez(tmp_path / "f.npz", features=np.eye(4))
        for words in (
            ["experiment", str(tmp_path / "mine.yaml"), f"out={tmp_path}"],
            ["benchmark", "timm/test_resnet", "data=[digits]", f"out={tmp_path}"],
            ["analyze", f"features={tmp_path / 'f.npz'}", f"output={tmp_path}"],
        ):
            assert cli.main(words) == 1
            assert "in use by process" in capsys.readouterr().err
        other.kill()
    assert (tmp_path / run_directory.NAME).is_file()
    run_directory.acquire(tmp_path)
    run_directory.acquire(tmp_path)  # twice is once
    with run_directory.held(tmp_path):
        pass
    assert (tmp_path / run_directory.NAME).is_file()  # a block inside gives nothing back
    run_directory.release(tmp_path)
    assert not (tmp_path / run_directory.NAME).exists()


@pytest.mark.fault(5, "the run's folder is another user's", "one line, in all processes")
def test_a_folder_that_cannot_be_written(tmp_path: Path, no_root: None) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match=r"can't be written: Permission denied; choose another folder$"):
        run_directory.acquire(tmp_path)
