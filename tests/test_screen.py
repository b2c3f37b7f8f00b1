from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from solo import cli
from solo.run import report
from solo.screen import PIPE_CLOSED, guarded_output, reader_is_gone, shown

ROOT = Path(__file__).parents[1]
DIGITS = ["pretrain", "scripts/pretrain/digits", "hex.yaml"]


@pytest.mark.fault(1, "terminal escapes in keys, values, paths", "shown escaped")
@pytest.mark.parametrize(
    "words",
    [
        [*DIGITS, "\x1b[31mred=1"],
        [*DIGITS, "type=\x1b]0;title\x07"],
        ["pretrain", "custom", "hex", "data.train_path=\x1b[2J", "data.val_path=x"],
        ["pretrain", "\x1b[2J", "hex"],
        ["\x1b[2J"],
        ["inspect", "\x1b[2J"],
        ["evaluate", "checkpoint=\x1b[2J.ckpt"],
        ["recipe", "pretrain", "digits", "hex", "name=\x1b[2J"],
        [*DIGITS, "name=\x1b[2J", "--cfg", "resolved"],
    ],
)
def test_escapes_never_reach_the_terminal(words, capsys):
    cli.main(words)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\x07" not in out + err and out + err


@pytest.mark.fault(1, "names of levels with [brackets] and terminal escapes", "shown as they are, escapes spelt out")
def test_names_are_no_markup(capsys):
    report.show_levels("[/x]", [{"level": "[red]a\x1b[2J", "n": 1.0}], {"n": "[/]"})
    report.show_table("[/x]", [{"[/]_acc1": 1.0, "k": "\x1b[2J"}])
    out = capsys.readouterr().out
    assert "[red]a" in out and out.count("[/x]") == 2 and out.count("[/]") == 2 and "\x1b" not in out


def test_lines_stay_lines():
    assert shown("a\nb\x1bé") == "a\nb\\x1bé"


@pytest.mark.fault(1, "`solo ... | head -1`", "ends quietly, exit code 141")
@pytest.mark.parametrize("words", [["pretrain", "--help"], [*DIGITS, "--cfg", "resolved"]])
def test_a_reader_that_leaves(words):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "solo", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(write)
    assert done.returncode == PIPE_CLOSED and done.stderr == b""


class Full(io.StringIO):
    """A file on a full disk, such as /dev/full."""

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.fault(
    1, "no standard output (`>&-`), a full disk behind it, a terminal without umlauts", "nothing is lost"
)
@pytest.mark.parametrize("stream", [None, Full(), io.TextIOWrapper(io.BytesIO(), encoding="ascii")])
def test_outputs_that_take_nothing(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    with guarded_output():
        sys.stdout.write("größe\n")
        sys.stdout.flush()
    assert reader_is_gone() == isinstance(stream, Full)
    if isinstance(stream, io.TextIOWrapper):
        assert stream.buffer.getvalue() == b"gr\\xf6\\xdfe\n"
