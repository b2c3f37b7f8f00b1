"""The README's commands, as a newcomer would type them (one epoch, another folder)."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from solo.args.recipes import find_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST = "python -m pip install -e . && python main_pretrain.py scripts/pretrain/digits hex.yaml"
SECOND = 'python -m pip install -e ".[test]" && python -m pytest'


def run(command: str, *words: str) -> str:
    program, *rest = shlex.split(command)
    parts = [sys.executable, *(["-m", "solo"] if program == "solo" else []), *rest, *words]
    done = subprocess.run(parts, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_has_the_two_commands():
    blocks = [block.strip() for block in re.findall(r"```\n(.*?)```", README, re.DOTALL)]
    assert blocks[:2] == [FIRST, SECOND]


@pytest.mark.thorough
def test_first_command_and_the_next_one_that_it_names(tmp_path):
    out = run(FIRST.split(" && ")[1], "max_epochs=1", f"checkpoint.dir={tmp_path}")
    (folder,) = (tmp_path / "simclr").iterdir()
    names = {path.name for path in folder.iterdir()}
    expected = {"args.json", "config.yaml", "curves.png", "last.ckpt", "metrics.csv", "summary.json"}
    assert expected < names
    assert f"hex-digits-{folder.name}-ep=0.ckpt" in names
    assert any(name.startswith("events.out.tfevents") for name in names)
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("val_acc1", "val_acc5", "knn_acc1", "images_per_second", "data_wait", "peak_memory_mb", "seed"):
        assert isinstance(summary[key], (int, float)), key
    assert "global batch 128" in out and "negatives per anchor 254" in out

    command = next(line for line in out.splitlines() if line.startswith("next: ")).removeprefix("next: ")
    run(command, f"checkpoint.dir={tmp_path}")
    (linear,) = (tmp_path / "linear").iterdir()
    assert json.loads((linear / "summary.json").read_text())["val_acc1"] > 50


def test_recipes_and_data_sets_named_exist():
    files = [(folder.split("/")[0], folder, name) for folder, name in re.findall(r"scripts/(\S+/\S+) (\w+)", README)]
    short = re.findall(r"solo (?:recipe )?(pretrain|linear) (\w+) (\w+)", README)
    named = files + [(command, f"{command}/{folder}", name) for command, folder, name in short]
    assert len(named) > 8
    for command, folder, name in named:
        assert find_recipe([f"scripts/{folder}", name], command.replace("finetune", "linear")), (folder, name)


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert len(links) > 15 and [link for link in links if not (ROOT / link).exists()] == []
