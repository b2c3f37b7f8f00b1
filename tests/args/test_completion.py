"""What completion offers, and that bash shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from solo.args.show import completions
from solo.cli import COMMANDS, main

SCHEMAS = {name: command.schema for name, command in COMMANDS.items()}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("solo pre", ["predict ", "pretrain "]),
        ("solo pretrain fash", ["fashion_mnist "]),
        ("solo pretrain digits sims", ["simsiam "]),
        ("solo pretrain digits hex optimizer.lr", ["optimizer.lr=", "optimizer.lr_scaled="]),
        ("solo pretrain digits hex method=by", ["method=byol "]),
        ("solo pretrain digits byol method_kwargs.pr", ["method_kwargs.pred_hidden_dim="]),
        ("solo pretrain digits hex type=sup", ["type=superclass "]),
        ("solo pretrain digits hex logger=m", ["logger=mlflow "]),
        ("solo pretrain digits hex precision=bf16-m", ["precision=bf16-mixed "]),
        ("solo pretrain digits hex data.no_labels=", ["data.no_labels=false ", "data.no_labels=true "]),
        ("solo recipe pretrain digits simc", ["simclr "]),
        ("solo export RUN to=t", ["to=timm ", "to=torch_export ", "to=torchvision "]),
        ("solo search RUN que", ["query="]),
        ("solo embed 'a fol", []),  # a quote that isn't closed; files are the shell's to complete
        ("solo nothing a", []),
    ],
)
def test_what_may_follow(line: str, found: list[str]) -> None:
    offered = completions(line, SCHEMAS)
    assert offered[: len(found)] == found and (len(offered) == len(found) or "pred_hidden" in str(found))


def test_bash_completes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".bashrc").write_text("# mine")
    for _ in range(2):
        assert main(["--install-completion", "bash"]) == 0
    told = (tmp_path / ".bashrc").read_text().splitlines()
    assert told[0] == "# mine" and len(told) == 2 and "open a new bash" in capsys.readouterr().out
    command_in(tmp_path)
    asked = ["solo pretrain digits hex method=by", "solo expo"]
    lines = [f"COMP_LINE='{line}' COMP_POINT={len(line)}; _solo; printf '<%s>' \"${{COMPREPLY[@]}}\"" for line in asked]
    program = "\n".join(["source ~/.bashrc", "complete -p solo", *lines])
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout == "complete -o default -o nospace -F _solo solo\n<byol ><export >", done.stderr


def command_in(folder: Path) -> None:
    (folder / "solo").write_text(f'#!/bin/sh\nexec {sys.executable} -m solo "$@"\n')
    (folder / "solo").chmod(0o755)


ZSH = """compdef() { :; }; compadd() { shift 5; print -rl -- "$@" }; source ~/.zshrc; """  # what the line editor has


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("shell", "program", "found"),
    [
        ("zsh", ZSH + "LBUFFER='solo expo'; _solo", "export \n"),
        ("fish", "complete -C'solo expo'", "export\n"),
    ],
)
def test_zsh_and_fish_complete(
    shell: str, program: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} isn't installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["--install-completion", shell]) == 0
    command_in(tmp_path)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "XDG_CONFIG_HOME": f"{tmp_path}/.config"}
    done = subprocess.run([shell, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout == found, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert main(["--install-completion"]) == 0
    script = tmp_path / ".local/share/solo" / f"completion.{shell}"
    (start,) = [file for file in tmp_path.rglob("*") if file.name in (".zshrc", "config.fish")]
    assert "solo --complete" in script.read_text() and f"source {script}" in start.read_text().splitlines()


def test_a_shell_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--install-completion", "tcsh"]) == 2 and "choose bash, zsh, fish" in capsys.readouterr().err
