"""What the documentation shows is tried: its commands are read as they would be run, its Python runs, its notebooks too."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import solo
from solo.args.sweep import expand
from solo.cli import COMMANDS, main, read_config
from solo.errors import ConfigError

ROOT = Path(__file__).parents[1]
PAGES = {page.stem: page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if page.stem != "api"}
SPEC = importlib.util.spec_from_file_location("cells", ROOT / "docs" / "cells.py")
assert SPEC is not None and SPEC.loader is not None
notebook = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(notebook)
QUICK = (
    "backbone.name=resnet10 backbone.kwargs={width:8} max_epochs=1 optimizer.batch_size=32 progress=off accelerator=cpu"
)
QUICK += " data.num_workers=0"


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command of ours that a page has in a block."""
    for block in blocks(page, "", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r" && |; do |; ", line):
                words = shlex.split(re.split(r" > |\s#", f"{part} ")[0])
                at = next((i for i, word in enumerate(words) if re.fullmatch(r"solo|.*\.py", word)), None)
                if at is not None and not line.startswith(("#", " ", "|")):
                    yield words[at:]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which every placeholder of the documentation is something: a run, pictures, features."""
    folder = tmp_path_factory.mktemp("docs")
    digits = load_digits()
    for i in range(64):
        file = folder / "pictures" / "ab"[i % 2] / f"{digits.target[i]}" / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15.9).astype(np.uint8)).resize((16, 16)).save(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = solo.pretrain(
            "custom",
            "simclr",
            data=solo.inspect(folder / "pictures"),
            overrides=[*QUICK.split(), f"checkpoint.dir={folder}"],
        )
    for name in ("FOLDER", "DATA", "new_pictures", "more_pictures", "folder/of/pictures"):
        shutil.copytree(folder / "pictures", folder / name)
    for name in (
        "RUN",
        "RUN_FOLDER",
        "RUN_A",
        "RUN_B",
        "SIMCLR_RUN",
        "HEX_RUN",
        *(f"trained_models/simclr/{x}" for x in ("RUN", "RUN_ID")),
    ):
        shutil.copytree(made.folder, folder / name)
    for name in ("epoch=99.ckpt", "weights.pth"):
        shutil.copy(made.checkpoint, folder / name)
    for name in ("one.png", "IMAGE"):
        shutil.copy(folder / "pictures/a/0/00.png", folder / name)
    return folder


def dry(words: list[str]) -> None:
    """Read a command as it would be run, short of running it."""
    name, *rest = ["solo", *words[1:]] if words[0] == "solo" else words
    if name == "solo" or Path(name).name.startswith("main_"):
        command, *rest = rest if name == "solo" else [Path(name).stem.removeprefix("main_"), *rest]
        if command not in COMMANDS:
            assert command in ("--install-completion", "--help", "COMMAND"), command
        elif COMMANDS[command].schema is None:
            assert command in ("inspect", "doctor", "recipe", "experiment") or main([command, *rest, "--help"]) == 0
        elif "FILE.yaml" not in rest and "RECIPE.yaml" not in rest and "DATASET" not in rest:
            places = [word for word in rest if "=" not in word and not word.startswith(("-", "~"))]
            overrides = [word for word in rest if word not in places and not word.startswith("-")]
            for job in expand(overrides).jobs if "-m" in rest else [overrides]:
                read_config(command, places, job, for_run=False)
    elif name not in ("train.py", "own_method.py"):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("page", PAGES)
def test_commands_can_be_run(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    wrong = []
    for words in commands(PAGES[page]):
        try:
            dry(words)
        except (ConfigError, AssertionError) as error:
            wrong.append(f"{shlex.join(words)}: {error}")
    assert not wrong, "\n".join(wrong)
