"""The examples, a few epochs long."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import pytest

import solo

EXAMPLES = Path(solo.__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Imports an example as `python examples/<name>.py` would."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    with warnings.catch_warnings():
        yield load


def test_plain_pytorch_on_one_screen(example, capsys):
    assert len((EXAMPLES / "minimal.py").read_text().splitlines()) <= 130
    knn, linear = example("minimal").train(epochs=2, seed=5)
    assert knn > 80 and linear > 80
    assert "epoch   2" in capsys.readouterr().out


@pytest.mark.thorough
def test_a_loop_of_lightning(example):
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    knn, _ = example("lightning_loop").train(epochs=1, seed=5)
    assert knn > 50
