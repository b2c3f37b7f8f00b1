"""CONTRIBUTING's ways to add something without touching the package, followed from a scratch folder."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

import solo
from solo import cli

ROOT = Path(solo.__file__).parents[1]
RECIPE = ["scripts/pretrain/digits", "simclr.yaml"]
QUICK = ["max_epochs=1", "data.fraction=0.1", "optimizer.batch_size=64", "accelerator=cpu", "progress=off"]
SMALL = ["backbone.name=resnet10", "backbone.kwargs={width: 8}", "data.num_workers=0", "tensorboard.enabled=false"]


def pages() -> dict[str, str]:
    """File name -> code: the blocks below "Without touching the package", whose first line names it, and an example."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("## Without touching the package") :]
    found = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", section, re.DOTALL)
    return {**dict(found), "own_method.py": (ROOT / "examples" / "own_method.py").read_text(encoding="utf-8")}


def commands() -> dict[str, list[str]]:
    """File name -> the words that CONTRIBUTING adds to a command for it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"^solo pretrain scripts/pretrain/digits simclr\.yaml (.*)$", text, re.MULTILINE)
    return {re.search(r"=\[?(\w+):", line)[1] + ".py": line.split() for line in lines}


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        yield tmp_path


@pytest.mark.sampled(5)  # tests/test_plugin.py has all of them in one run
@pytest.mark.parametrize("file", commands())
def test_one_file_and_one_word(file, scratch, capsys):
    (scratch / file).write_text(pages()[file])
    words = [*SMALL, *commands()[file]]  # CONTRIBUTING's win
    assert cli.main(["pretrain", *RECIPE, *QUICK, *words, "checkpoint.dir=runs"]) == 0
    assert sorted(path.name for path in scratch.iterdir() if path.name != "__pycache__") == sorted([file, "runs"])
    (checkpoint,) = scratch.glob("runs/*/*/last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["state_dict"]
    assert not [path for path in scratch.rglob("runs/**/*") if set(path.name) & set('<>:"|?*')]  # as Windows wants it
    assert "online/rankme" in next(scratch.rglob("metrics.csv")).read_text().splitlines()[0]


def test_the_example_is_a_method_like_any_other(scratch, capsys):
    (scratch / "own_method.py").write_text(pages()["own_method.py"])
    own = [*SMALL, "method=own_method:Alignment", "type=HEX_adaptive", "warm_epoch=0", "checkpoint.dir=runs"]
    assert cli.main(["pretrain", *RECIPE, *QUICK, *own]) == 0
    assert cli.main(["pretrain", *RECIPE, *QUICK, *own, "method_kwargs.uniformty=1"]) == 2
    assert "did you mean 'method_kwargs.uniformity'" in capsys.readouterr().err


def test_a_file_can_not_run_code_that_nobody_named(scratch, capsys):
    (scratch / "evil.py").write_text("raise SystemExit('ran')")
    (scratch / "recipe.yaml").write_text("method: evil:Method\ndata: {dataset: digits}\n")
    assert cli.main(["pretrain", "recipe.yaml"]) != 0
    assert "would run code of the module evil" in capsys.readouterr().err
