"""`solo benchmark`: cells, what is there already, differences image by image, the table."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from solo import cli
from solo.analysis.comparison import compare_runs as compare
from solo.analysis.comparison import packed, unpacked
from solo.analysis.comparison import table_of_runs as table
from solo.experiment.benchmark import data_sets

WORDS = ["data.image_size=32", "pretrained=false", "data.fraction=0.1", "data.num_workers=0", "cache=false", "draws=2"]


@pytest.mark.thorough
def test_cells_are_measured_once_and_compared(tmp_path, capsys):
    out = tmp_path / "table"

    def run(*words):
        code = cli.main(
            ["benchmark", "timm/test_resnet", *words, "data=[digits]", f"out={out}", "accelerator=cpu", *WORDS]
        )
        return code, capsys.readouterr().out

    code, said = run("protocols=[knn]", "do=cost")
    assert code == 0 and "1 cells, 0 are there, 1 to measure" in said and not (out / "rows.jsonl").exists()
    code, said = run("protocols=[knn]")
    assert code == 0 and "test_resnet on digits, knn" in said
    code, said = run("timm/test_efficientnet", "protocols=[knn,shots1]")
    assert code == 0 and "4 cells, 1 are there, 3 to measure" in said
    assert said.count("features of the validation images") == 2
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and {row["labels"] for row in rows} == {rows[0]["labels"]}
    report = json.loads((out / "report.json").read_text())
    one, other = (entry for entry in report["entries"] if entry["protocol"] == "knn")
    assert one["difference"] is None and other["difference"]["mean"] == pytest.approx(
        other["accuracy"] - one["accuracy"], abs=1e-3
    )
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert (
        page.count("<tr>") == 3 and "| digits | shots1 | digit | 360 |" in text and "difference to test_resnet" in text
    )
    code, said = run("timm/test_efficientnet", "protocols=[knn,shots1]")
    assert code == 0 and "0 to measure" in said and "features of" not in said
    code, said = run("protocols=[knn]", "data.train_path=/nowhere", "data.dataset=custom")
    assert code in (1, 2)


def _row(run, hits, draws=1, labels=7, data="digits"):
    known = hits[~np.isnan(hits)]
    level = {
        "images": len(known),
        "accuracy": 100 * float(known.mean()),
        "ci": [1.0, 99.0],
        "hits": packed(hits, draws),
    }
    return {"data": data, "protocol": "knn", "run": run, "labels": labels, "draws": draws, "levels": {"digit": level}}


def test_hits_are_kept_as_text():
    hits = np.array([0, 0.2, 1, math.nan, 0.6])
    assert unpacked(packed(hits, 5), 5) == pytest.approx(hits, nan_ok=True)


def test_differences_are_those_of_the_same_images():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2, (2, 90)).astype(float)
    first[:4] = second[:4] = math.nan
    one, other, strange = compare([_row("a", first), _row("b", second), _row("c", second, labels=8)])
    steps = (second - first)[4:]
    assert one.difference is None and strange.difference is None  # c was measured on other images
    assert other.difference.mean == pytest.approx(100 * steps.mean())
    assert other.p_holm == pytest.approx(binomtest(int((steps > 0).sum()), int((steps != 0).sum())).pvalue)
    half = 196 * math.sqrt((steps**2).mean() - steps.mean() ** 2) / math.sqrt(86)
    assert other.difference.high == pytest.approx(100 * steps.mean() + half, abs=1e-2)
    heading, *lines = table([one, other])
    assert heading[4:] == ["a", "b", "difference to a [95 %], p"] and len(lines) == 1 and lines[0][3] == "86"


def test_data_sets_are_named_by_words_or_a_file(tmp_path):
    assert data_sets(("digits", "glyphs=some/glyphs.npz")) == {
        "digits": ["data.dataset=digits"],
        "glyphs": ["data.dataset=glyphs", "data.train_path=some/glyphs.npz"],
    }
    file = tmp_path / "sets.yaml"
    file.write_text("digits:\nown: [data.dataset=custom, data.train_path=photos]\n")
    assert data_sets(str(file)) == {
        "digits": ["data.dataset=digits"],
        "own": ["data.dataset=custom", "data.train_path=photos"],
    }


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "runs is missing"),
        (["timm/a", "data=nowhere.yaml"], "can't be read"),
        (["timm/a"], "data is missing"),
        (["timm/a", "data=[digits]", "protocols=[svm]"], "protocols"),
        (["timm/a", "data=[digits]", "shots=5"], "shots"),
        (["timm/a", "timm/b", "data=[digits]", "names=[one]"], "2 different names"),
        (["some.npz", "data=[digits]"], "features of one data set"),
        (["nowhere", "data=[digits]"], "nowhere"),
        (["timm/a", "data=list.yaml"], "NAME: [words of solo evaluate]"),
    ],
)
def test_mistakes_get_one_line(words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("- digits\n")
    assert cli.main(["benchmark", *words]) in (1, 2)
    said = capsys.readouterr().err
    assert line in said and len(said.strip().splitlines()) <= 3
    assert not (tmp_path / "benchmark").exists()
