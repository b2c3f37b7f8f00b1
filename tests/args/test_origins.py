"""Recipes that nobody should have to read: answered at once, in one line."""

from __future__ import annotations

import time
from typing import Any

import pytest

from solo import cli

DIGITS = "method: simclr\nmax_epochs: 1\n"
LAUGHS = "l0: &l0 [x]\n" + "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 8))
HOSTILE = {
    "laughs": (LAUGHS, "more than 5,000 values"),
    "included laughs": ("defaults:\n  - group: laughs\n", "more than 5,000 values"),
    "many keys": ("".join(f"key{i}: 1\n" for i in range(20_000)), "more than 5,000 values"),
    "a large file": ("# " + "x" * 2_000_000, "bytes are too many for a recipe"),
    "deep lists": (f"name: {'[' * 20_000}{']' * 20_000}", "more than 30 levels deep"),
    "deep sections": ("".join(f"{' ' * i}a:\n" for i in range(200)), "more than 30 levels deep"),
    "itself": ("data: &a\n  data: *a\n", "refers to itself"),
    "digits": (f"seed: {'9' * 5000}\n", "a value can't be read"),
    "large": (f"seed: {'9' * 4000}\n", "seed=1e4000 "),
    "infinite": ("seed: 1e400\n", "seed"),
    "secret": ('name: "x-${oc.env:SECRET_TOKEN}"\n', "name: 'x-${oc.env:SECRET_TOKEN}' is refused"),
    "secret with default": ('name: "${oc.env:SECRET_TOKEN,none}"\n', "is refused"),
    "composed secret": ('n: oc.env\nname: "${${n}:SECRET_TOKEN}"\n', "is refused"),
    "hidden secret": ('n: TOKEN\nname: "${oc.env:HOME,${oc.env:SECRET_TOKEN}}"\n', "is refused"),
    "decoded": ('name: "${oc.decode:${oc.env:SECRET_TOKEN}}"\n', "is refused"),
    "chosen by a secret": ("defaults:\n  - group: ${oc.env:SECRET_TOKEN}\n", "is refused"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_recipe_is_answered_at_once_in_few_lines(
    kind: str, tmp_path: Any, monkeypatch: Any, capsys: Any
) -> None:
    text, words = HOSTILE[kind]
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "laughs.yaml").write_text(LAUGHS)
    (tmp_path / "bad.yaml").write_text(text + ("" if text.startswith("defaults") else "\n") + DIGITS)
    started = time.perf_counter()
    assert cli.main(["pretrain", str(tmp_path), "bad.yaml", "--cfg", "resolved"]) == 2
    said = capsys.readouterr()
    assert words in said.err and "hunter2" not in said.err + said.out
    assert time.perf_counter() - started < 5 and len(said.err) < 4000


def test_many_problems_are_counted(pretrain_values: Any) -> None:
    from solo.args.parse import parse
    from solo.args.schema import PretrainCfg
    from solo.errors import ConfigError

    with pytest.raises(ConfigError) as error:
        parse(pretrain_values | {f"key{i}": 1 for i in range(20_000)}, PretrainCfg)
    lines = str(error.value).splitlines()
    assert len(lines) == 21 and lines[-1] == "and 19,980 more problems"


def test_the_environment_that_may_be_named(tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("SOLO_NAME", "lab")
    recipe = "scripts/pretrain/digits"
    words = ["name=${oc.env:SOLO_NAME}-${method}-${oc.env:SOLO_OTHER,x}"]
    assert cli.main(["pretrain", recipe, "hex.yaml", *words, "--cfg", "resolved"]) == 0
    assert "name: lab-simclr-x" in capsys.readouterr().out
