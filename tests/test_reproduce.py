"""The tables of the papers: every command is a run that the library would start, and one small table really runs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from solo.cli import read_config

FILE = Path(__file__).parents[1] / "scripts" / "reproduce" / "reproduce.py"
SPEC = importlib.util.spec_from_file_location("reproduce", FILE)
assert SPEC is not None and SPEC.loader is not None
reproduce = importlib.util.module_from_spec(SPEC)
sys.modules["reproduce"] = reproduce
SPEC.loader.exec_module(reproduce)

ROWS = {
    (row.dataset, row.recipe, row.words, row.then): row for table in reproduce.TABLES.values() for row in table.rows
}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: f"{row.dataset}-{row.recipe}-{row.then}")
def test_every_row_is_a_run(row):
    pretrain, after = reproduce.commands_of(row, Path("runs"), 5, [])
    assert read_config("pretrain", pretrain[2:4], pretrain[4:], for_run=False)
    if row.then != "evaluate":
        assert read_config("linear", after[2:4], after[4:], for_run=False)


@pytest.mark.parametrize(("table", "row"), [("hex-10", 0), ("hex-imagenet", 0), ("hex-9", 1), ("hex-11", 1)])
def test_rows_of_the_paper_have_its_table_6(table, row):
    found = reproduce.TABLES[table].rows[row]
    pretrain, _ = reproduce.commands_of(found, Path("runs"), 5, [])
    cfg = read_config("pretrain", pretrain[2:4], pretrain[4:], for_run=False).config
    kwargs, optimizer = cfg.method_kwargs, cfg.optimizer
    simclr = cfg.method == "simclr"
    expected = (2048, 128, 0.1, 0.4) if simclr else (2048, 256, 0.2, 1.0)
    assert (kwargs.proj_hidden_dim, kwargs.proj_output_dim, kwargs.temperature, optimizer.lr) == expected
    assert (optimizer.name, optimizer.batch_size, optimizer.weight_decay) == ("lars", 256, 1e-5)
    assert cfg.accumulate_grad_batches == 1 and cfg.backbone.name == "resnet50"


@pytest.mark.thorough
def test_a_table_runs_is_kept_and_printed(tmp_path, monkeypatch, capsys):
    row = reproduce.Row("tiny", "digits", "simclr", {"val_acc1": 50.0, "digit val_acc1": 50.0})
    monkeypatch.setitem(reproduce.TABLES, "hex-8", reproduce.Table("tiny table", [row]))
    words = ["max_epochs=1", "data.fraction=0.1", "optimizer.batch_size=64", "accelerator=cpu", "data.num_workers=0"]
    monkeypatch.setattr(sys, "argv", ["reproduce", "hex-8", "--runs", str(tmp_path), "--seeds", "1", "2", *words])
    calls = []
    real = reproduce.call
    monkeypatch.setattr(reproduce, "call", lambda words: (calls.append(words), real(words)))
    assert reproduce.main() == 0 and len(calls) == 4
    told = json.loads((tmp_path / "hex-8.json").read_text())["tiny"]
    printed = capsys.readouterr().out
    assert set(told) == {"1", "2"} and told["1"] != told["2"]
    mean = (told["1"]["val_acc1"] + told["2"]["val_acc1"]) / 2
    assert f"{mean:.2f} ±" in printed and "50.00 (val_acc1)" in printed
    assert reproduce.main() == 0 and len(calls) == 4  # nothing is run twice
