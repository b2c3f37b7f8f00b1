"""What `pip install` brings is enough: the recipes are in the wheel, and commands find them from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel({target!r}))"


@pytest.mark.thorough
def test_the_first_command_from_a_wheel_in_an_empty_folder(tmp_path):
    source, site, here = tmp_path / "source", tmp_path / "site", tmp_path / "here"
    here.mkdir()
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):  # a build leaves its files beside the source
        if (ROOT / name).is_file() and name.split("/")[0] in (
            "solo",
            "scripts",
            *(p.name for p in ROOT.glob("*.*")),
            "LICENSE",
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    script = BUILD.format(target=str(tmp_path))
    subprocess.run([sys.executable, "-c", script], cwd=source, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    assert not (site / "scripts").exists() and (site / "solo/py.typed").is_file()

    def run(*words):
        environment = os.environ | {"PYTHONPATH": str(site)}
        command = [sys.executable, "-m", "solo", *words]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    tiny = ["max_epochs=1", "data.fraction=0.1", "optimizer.batch_size=64", "accelerator=cpu", "progress=off"]
    out = run("pretrain", "scripts/pretrain/digits", "hex.yaml", *tiny)
    (folder,) = here.glob("trained_models/simclr/*")
    assert "next: solo linear pretrained_feature_extractor=trained_models/simclr/" in out
    run("linear", "digits", "linear", f"checkpoint={folder}", "max_epochs=1", "accelerator=cpu", "progress=off")
    assert "seed: 5" in run("pretrain", "digits", "hex", "--cfg", "resolved")
