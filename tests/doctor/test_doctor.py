"""`solo doctor`: what it says, what it returns; and the same seed is the same run, which turns red on planted bugs."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from solo.cli import main as solo
from solo.doctor import main
from solo.doctor.toy import Case, Outcome
from solo.methods.catalogue import CATALOGUE
from tests.doctor import determinism, faults

GOOD, BAD = Outcome(True, "differs by 1e-16"), Outcome(False, "gradient differs by 0.5 | allowed <1e-6")


def column(name, outcome):
    """A column that says `outcome`."""
    return main.Column(name, f"{name} holds", lambda cases: [outcome] * len(cases))


CASES = [Case("mae"), Case("simclr"), Case("simclr", "HEX_adaptive")]


def test_every_cell():
    lines = []
    found = main.guarantees(lines.append, CASES, [column("one", GOOD), column("two", BAD)])
    assert lines[0].startswith("one: 3 of 3 ok") and lines[1].startswith("two: 0 of 3 ok")
    assert len(found) == 6
    assert "| not run |" in main.page(found, [column("one", GOOD), column("three", BAD)], ())
    text = main.page(found, [column("one", GOOD), column("two", BAD)], ())
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    failed = "**gradient differs by 0.5 \\| allowed &lt;1e-6**"
    assert rows[:2] == [f"| `{method}` | `standard` | ok | {failed} |" for method in ("mae", "simclr")]


@pytest.mark.parametrize(("outcome", "ok"), [(GOOD, True), (BAD, False)])
def test_full_is_ok_only_if_all_is_green(outcome, ok, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(main, "guarantees", lambda say, cases, _, keep: full(say, cases, main.COLUMNS, keep))
    monkeypatch.setattr(main, "COLUMNS", [column("one", outcome)])
    file = tmp_path / "new" / "page.md"
    assert solo(["doctor", "--full", "--methods", "simclr", "--page", str(file)]) == (0 if ok else 1)
    assert file.read_text().startswith("# Guarantees\n") and "| `simclr` | `HEX_adaptive` |" in file.read_text()
    assert f"written: {file}" in capsys.readouterr().out


full = main.guarantees


@pytest.mark.parametrize(("outcome", "code", "end"), [(GOOD, 0, "all checks passed"), (BAD, 1, "4 checks failed")])
def test_quick(outcome, code, end, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main, "COLUMNS", [column("first", GOOD), column("second", outcome)])
    assert solo(["doctor"]) == code and not list(tmp_path.iterdir())
    out = capsys.readouterr().out
    assert end in out and "torch" in out and (outcome.ok or f"second, simclr HEX_adaptive: {outcome.detail}" in out)


def test_a_check_that_raises_is_red():
    def run(cases):
        raise RuntimeError("no such\nthing")

    found = main.guarantees(lambda line: None, CASES, [main.Column("x", "", run)])
    assert [*found.values()] == [Outcome(False, "RuntimeError: no such thing")] * 3


def test_all_methods_are_there():
    cases = main.all_cases()
    assert {case.method for case in cases} == set(CATALOGUE) and len(cases) == len(set(cases))
    assert Case("byol", "HEX_adaptive") in cases and Case("dino", "HEX_adaptive") not in cases


def test_facts(tmp_path):
    facts = main.machine()
    assert dict(facts)["torch"] and dict(facts)["processor"] and facts[0][0] == "python"


@pytest.mark.parametrize(
    ("bug", "text"),
    [
        (nullcontext, "the same to the last bit"),
        (faults.a_number_too_many, "gives other weights"),
        (faults.seed_ignored, "the seed isn't used"),
    ],
)
def test_determinism(bug, text):
    with bug():
        outcome = determinism.determinism(Case("simclr", "HEX_adaptive"))
    assert outcome.ok == (bug is nullcontext) and text in outcome.detail


def test_wrong_words(capsys):
    assert solo(["doctor", "--fast"]) == 2
    assert "unrecognized arguments: --fast" in capsys.readouterr().err
