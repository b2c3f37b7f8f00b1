"""What the documentation shows is tried: commands are read as they would be run, Python and notebooks run."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import solo
from solo.args.compose import expand
from solo.cli import COMMANDS, main, read_config
from solo.errors import ConfigError
from solo.run.pretrained import PretrainedModel

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
            if not re.match(r"(solo|python|torchrun|srun)\b", line):
                continue
            for part in re.split(r" && |; do |; ", re.split(r"\s#", line)[0]):
                words = shlex.split(re.split(r" > ", part)[0])
                at = next((i for i, word in enumerate(words) if re.fullmatch(r"solo|.*\.py", word)), None)
                if at is not None:
                    yield words[at:]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which every placeholder of the documentation is something: a run, pictures, features."""
    folder = tmp_path_factory.mktemp("docs")
    digits = load_digits()
    for i in range(64):
        file = folder / "pictures" / ("tops", "shoes")[i % 2] / f"{digits.target[i]}" / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15.9).astype(np.uint8)).resize((16, 16)).save(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = solo.pretrain(
            "custom",
            "simclr",
            data=solo.inspect(folder / "pictures") | {"levels": ["group", "class"]},
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
        shutil.copy(folder / "pictures/tops/0/00.png", folder / name)
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert main(["recipe", "pretrain", "food101", "byol"]) == 0
    (folder / "byol.yaml").write_text(told.getvalue())
    return folder


def dry(words: list[str]) -> None:
    """Read a command as it would be run, short of running it."""
    name, *rest = ["solo", *words[1:]] if words[0] == "solo" else words
    if name == "solo" or Path(name).name.startswith("main_"):
        command, *rest = rest if name == "solo" else [Path(name).stem.removeprefix("main_"), *rest]
        if command not in COMMANDS:
            assert command in ("--install-completion", "--help", "COMMAND"), command
        elif COMMANDS[command].schema is None:
            assert (
                command in ("inspect", "doctor", "recipe", "experiment", "benchmark")
                or main([command, *rest, "--help"]) == 0
            )
        elif "FILE.yaml" not in rest and "RECIPE.yaml" not in rest and "DATASET" not in rest:
            places = [word for word in rest if "=" not in word and not word.startswith(("-", "~"))]
            overrides = [word for word in rest if word not in places and not word.startswith("-")]
            for job in expand(overrides).jobs[:2] if "-m" in rest else [overrides]:
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


@pytest.mark.thorough
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(PAGES[page], "python") and page != "own_keys"])
def test_python_runs(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page in one namespace, with what a reader has; a hub is a folder, and training is short."""
    monkeypatch.chdir(place)
    real = solo.pretrain
    monkeypatch.setattr(solo, "pretrain", lambda *places, **given: real(*places, overrides=QUICK.split(), **given))
    quick = {"embedding": "pca", "lidar_images": 0, "png": False, "accelerator": "cpu", "cache": False}
    look = solo.analyze
    monkeypatch.setattr(solo, "analyze", lambda source: look(source, **quick, data={"num_workers": 0}))
    hub = place / "hub"
    monkeypatch.setattr(PretrainedModel, "push_to_hub", lambda model, name: model.export("safetensors", hub))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: str(hub))
    np.savez("features.npz", features=torch.randn(60, 8).numpy(), labels=np.arange(60) % 3)
    two = torch.randn(2, 64, 8)
    space: dict[str, Any] = {"z0": two[0], "z1": two[1], "epoch": 10, "image": Image.new("L", (16, 16))}
    space |= {"array": np.zeros((16, 16), np.uint8), "features": torch.randn(8, 2, 4)}
    space |= {"labels": torch.tensor([[0, 0], [0, 1], [1, 2], [1, 3]] * 2)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        for block in blocks(PAGES[page], "python"):
            exec(block, space)
    if page in ("README", "quickstart"):
        assert space["features"].shape == (64, 64) and len(space["found"][0].paths) == 20
        assert space["report"].is_file() and (place / "found.html").is_file()


@pytest.mark.thorough  # CI runs both when it builds the site
@pytest.mark.parametrize("name", ["own_folder", "own_loop"])
def test_notebooks_run(name: str) -> None:
    (*_, last) = notebook.cells(ROOT / "docs" / "notebooks" / f"{name}.ipynb")
    assert last[0] == "code" and last[2]
    assert all(
        cell["outputs"] == []
        for cell in json.loads((ROOT / f"docs/notebooks/{name}.ipynb").read_text())["cells"]
        if cell["cell_type"] == "code"
    )


@pytest.mark.thorough
def test_five_commands_from_a_folder_to_found_pictures(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the README, as they stand there and as each one prints the next."""
    monkeypatch.chdir(place)
    told = [
        words for words in commands(PAGES["README"]) if "pictures" in " ".join(words) or "RUN_ID" in " ".join(words)
    ]
    assert [words[1] for words in told] == ["inspect", "pretrain", "analyze", "embed", "search"]
    assert main(told[0][1:]) == 0
    following = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next: "))
    assert main([*shlex.split(following)[2:], *QUICK.split()]) == 0
    following = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next: "))
    analyze = shlex.split(following)[1:]
    assert analyze[:2] == ["solo", "analyze"]
    assert (
        main([*analyze[1:], "embedding=none", "lidar_images=0", "png=false", "data.num_workers=0", "accelerator=cpu"])
        == 0
    )
    run = analyze[2].partition("=")[2]
    for words in told[3:]:
        assert main([word.replace("trained_models/simclr/RUN_ID", run) for word in words[1:]]) == 0
    assert (place / "found.html").read_text().count("<img") == 21
