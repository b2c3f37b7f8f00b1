"""The page of benchmarks/hierarchy.py: what wins and what loses, said of reports that are there."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

from solo.args.compose import compose
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.methods.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def board(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("hierarchy_board", ROOT / "benchmarks" / "hierarchy.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "PAGE", tmp_path / "leaderboard.md")
    return module


def cell(arm, measure, mean, step=None, p=None):
    step = None if step is None else {"mean": step, "low": step - 0.5, "high": step + 0.5}
    return {"arm": arm, "measure": measure, "mean": mean, "seeds": 3, "difference": step, "p_holm": p}


def test_the_page_says_what_loses(board):
    cells = [
        *(cell("flat", "a/knn_acc1", 50.0), cell("flat", "linear/distance", 1.0)),
        *(cell("tree", "a/knn_acc1", 45.0, -5.0, 0.01), cell("tree", "linear/distance", 0.8, -0.2, 0.03)),
        *(cell("luck", "a/knn_acc1", 51.0, 1.0, 0.5), cell("luck", "linear/distance", 1.2, 0.2, 0.04)),
    ]
    (board.RESULTS / "all").mkdir(parents=True)
    found = {
        "baseline": "flat",
        "measures": ["a/knn_acc1", "linear/distance"],
        "cells": cells,
        "choices": ["x: lr 1; m"],
    }
    (board.RESULTS / "all" / "report.json").write_text(json.dumps(found))
    board.page()
    text = board.PAGE.read_text()
    assert "| luck | 3 | **51.00** (+1.00 ± 0.50) | 1.20 (+0.20 ± 0.50) ▼ |\n| flat | 3 | 50.00 | 1.00 |" in text
    assert "| tree | 3 | 45.00 (-5.00 ± 0.50) ▼ | **0.80** (-0.20 ± 0.50) ▲ |" in text
    assert "* `a/knn_acc1`: better than flat: none; worse: tree." in text and "x: lr 1." in text
    assert "No difference beyond chance" not in text and text.count("Not run yet.") == len(board.SETTINGS) - 1


def test_every_setting_is_an_experiment_and_every_objective_is_in_it(board):
    for name in board.SETTINGS:
        values = yaml.safe_load(board.written(name).read_text())
        assert len(set(values["measures"])) == len(values["measures"])
        recipes = {}
        for arm in values["arms"].values():
            recipe, words = arm.get("recipe", values["recipe"]), [*values["words"], *arm.get("words", ())]
            recipes[recipe.split()[1]] = recipe.split(), words
        assert {name for name, facts in CATALOGUE.items() if facts.labels} <= set(recipes)
        for recipe, words in recipes.values() if name == "tenth" else ():
            parse(*compose(find_recipe(recipe), words, PretrainCfg)[:1], PretrainCfg)
