"""`solo experiment`: what a file asks for, resuming, choosing off the reported images, statistics, the page."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
import yaml

from solo import cli
from solo.analysis.comparison import COST, Report, written
from solo.analysis.comparison import compare_arms as compare
from solo.errors import ConfigError, UserError
from solo.experiment import main
from solo.experiment import runs as rows
from solo.experiment.benchmark import data_sets
from solo.experiment.main import Plan

FILE = {
    "recipe": "digits simclr",
    "words": ["max_epochs=2", "data.fraction=0.3", "optimizer.batch_size=64", "backbone.kwargs.width=8"],
    "measures": ["digit/knn_acc1", "digit/linear_acc1"],
    "seeds": 3,
    "baseline": "standard",
    "choose": {"seeds": 2},
    "arms": {
        "standard": {"words": ["type=standard"], "grid": {"method_kwargs.temperature": [0.1, 0.2]}},
        "hex": {"words": ["type=HEX_adaptive", "warm_epoch=0"], "grid": "standard"},
        "other draws": {"grid": "standard", "shift": 1000, "placebo": True},
    },
}


def write(folder, **changes):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**FILE, **changes}, sort_keys=False))
    return path


@pytest.fixture
def fake(monkeypatch):
    """Runs that take no time: accuracy is 50 + 10 temperature + the seed's own noise; the third one is killed."""
    done: list[str] = []

    def perform_all(tasks, folder, jobs, keep, tell):
        for task in tasks:
            if len(done) == fake.dies_at:
                fake.dies_at = None
                raise KeyboardInterrupt
            words = dict(word.split("=", 1) for word in task.words)
            value = 50 + 10 * float(words["method_kwargs.temperature"]) + float(words["seed"]) / 1000
            done.append(task.id)
            level = {"knn_acc1": value, "linear_acc1": value + 1}
            row = {"id": task.id, "arm": task.arm, "budget": task.budget, "seed": task.seed, "choice": task.choice}
            tell({**row, "seconds": 2.0, "cpu_seconds": 2.0, "numbers": {"all": {"digit": level}}})

    fake = type("Fake", (), {"dies_at": None, "done": done})()
    monkeypatch.setattr(main, "perform_all", perform_all)
    monkeypatch.setattr(main, "probe", lambda task: (100, 0.1, 5.0))
    return fake


def test_a_killed_experiment_goes_on_and_chooses_on_held_out_images(tmp_path, fake, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path)
    fake.dies_at = 5
    assert cli.main(["experiment", str(path)]) == 130
    with (tmp_path / "mine" / rows.NAME).open("a") as file:
        file.write('{"id": "half a li')
    assert cli.main(["experiment", str(path)]) == 0
    out = capsys.readouterr().out
    assert "4 runs that choose settings: 15 s each (100 steps of 0.100 s" in out
    # 2 values x 2 seeds are tried, 3 arms x 3 seeds reported, none of them twice.
    assert len(fake.done) == len(set(fake.done)) == 4 + 9 == len(rows.read_rows(tmp_path / "mine"))
    report = (tmp_path / "mine" / "report.md").read_text()
    assert "standard: temperature 0.2 (of temperature 0.1: 51.00, temperature 0.2: 52.00)" in report
    found = json.loads((tmp_path / "mine" / "report.json").read_text())
    assert {cell["mean"] for cell in found["cells"] if cell["arm"] == "standard"} == {52.001, 53.001}
    assert (tmp_path / "mine" / "report.html").read_text().count("<img") == 1
    assert cli.main(["experiment", str(path), "seeds=4"]) == 0 and len(fake.done) == 4 + 12
    assert cli.main(["experiment", str(path), "do=cost"]) == 0 and "all done" in capsys.readouterr().out


def test_trials_never_see_the_images_that_are_reported(tmp_path):
    plan = Plan(write(tmp_path))
    chosen = {("standard", ""): {"method_kwargs.temperature": 0.1}}
    for task in plan.trials():
        assert "data.holdout=0.2" in task.words and "data.holdout=0.2" in task.evaluate
    assert not any("holdout" in word for task in plan.runs(chosen) for word in (*task.words, *task.evaluate))
    assert plan.runs({}) == []  # nothing is reported before its settings are chosen


def test_equal_runs_are_one_and_paths_do_not_count(tmp_path):
    arms = {"standard": ["type=standard"], "again": ["type=standard"], "other": ["method_kwargs.temperature=0.3"]}
    ids = [task.id for task in Plan(write(tmp_path, arms=arms, seeds=1)).runs({})]
    assert ids[0] == ids[1] != ids[2]
    again = Plan(tmp_path / "mine.yaml", words=["progress=off", "data.num_workers=1"])
    assert [task.id for task in again.runs({})] == ids


@pytest.mark.fault(
    1,
    "an experiment's file with odd seeds, grids without end, words of `solo evaluate` that are wrong",
    "one line, before anything runs",
)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"standard": {"wrds": []}}}, "arms.standard.wrds"),
        ({"arms": {"standard": ["type=HEXX"]}}, "arm standard: .*HEXX"),
        ({"arms": {"standard": {"grid": "nobody"}}}, "no arm with a grid"),
        ({"arms": {"standard": {"grid": {"seed": 3}}}}, "no list of values"),
        ({"baseline": "nobody"}, "'nobody' is unknown"),
        ({"measures": ["accuracy"]}, "is not .*level/number"),
        ({"seeds": 1_000_000}, "10,000 are allowed"),
        ({"seeds": 2**70}, "10,000 are allowed"),
        ({"arms": {"standard": {"grid": {f"k{i}": list(range(99)) for i in range(9)}}}}, "10,000 are allowed"),
        ({"seeds": 0}, "seeds are none"),
        ({"seeds": -1}, "seeds=-1"),
        ({"arms": {"standard": 0}}, "arms.standard is no section"),
        ({"arms": {"standard": ["seed=3"]}}, "seed is what each run is given by the experiment"),
        ({"evaluate": ["measurs=[knn]"]}, "measurs"),  # before hours of training
        ({"evaluate": ["k=0"]}, "k=0"),
        ({"choose": {"seeds": 0}, "arms": {"standard": {"grid": {"optimizer.lr": [1.0]}}}}, "choose.seeds are none"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        Plan(write(tmp_path, **changes))


@pytest.mark.fault(
    1,
    "YAML for `solo experiment` and `benchmark` that is empty, endless, refers to itself, a pipe, has no such date",
    "one line",
)
@pytest.mark.parametrize(
    "content", ["", "3", "a: &a [*a]", "a: 2024-13-45", "[" * 5000, "a: !!python/name:os.system", None]
)
def test_odd_yaml(tmp_path, content):
    file = tmp_path / "odd.yaml"
    file.write_text(content) if content is not None else os.mkfifo(file)
    for read in (lambda: Plan(file), lambda: data_sets(str(file))):
        with pytest.raises(ConfigError) as error:
            read()
        assert "\n" not in str(error.value)


@pytest.mark.fault(6, "one bit of a number in `rows.jsonl` flipped, a row without its numbers", "the line is named")
def test_a_damaged_row_is_named(tmp_path):
    rows.add_row(tmp_path, {"id": "a", "seconds": 1.25})
    content = (tmp_path / rows.NAME).read_text()
    for odd, needs in (
        (content.replace("1.25", "1.35"), ()),
        (content, ("numbers",)),
        ("[" * 10**5 + "\n", ()),
        ("5\n", ()),
    ):
        (tmp_path / rows.NAME).write_text(odd)
        with pytest.raises(UserError, match="line 1 is damaged"):
            rows.read_rows(tmp_path, needs)
    (tmp_path / rows.NAME).write_text('{"id": \n{"id": "b"}\n')
    with pytest.raises(UserError, match="line 1 is damaged"):
        rows.read_rows(tmp_path)


def simulated(generator, seeds, gain, shared):
    """Two arms whose seeds have a part of their luck in common."""
    luck = generator.normal(size=(seeds, 3)) @ np.array([[shared, shared], [1, 0], [0, 1]])
    arms = {"base": luck[:, 0], "arm": luck[:, 1] + gain}
    return {"": {name: {s: {"m": float(v), COST: 1.0} for s, v in enumerate(values)} for name, values in arms.items()}}


@pytest.mark.parametrize(("seeds", "shared"), [(3, 0.0), (5, 2.0)])
def test_intervals_of_a_report_cover(seeds, shared):
    """2,000 experiments have an error of half a point."""
    generator = np.random.default_rng(seeds)
    hits = 0
    for _ in range(2000):
        cell = compare(simulated(generator, seeds, 0.7, shared), "base", ["m"])[1]
        hits += cell.difference.low <= 0.7 <= cell.difference.high
    assert 93 < 100 * hits / 2000 < 97


def test_holm_over_all_comparisons_holds_the_error_of_placebos():
    """Six arms without any effect: some finding in at most 5 % of 500 experiments, up to chance."""
    generator, found = np.random.default_rng(0), 0
    for _ in range(500):
        luck = generator.normal(size=(7, 5))
        values = {"": {f"a{arm}": {s: {"m": float(luck[arm, s]), COST: 1.0} for s in range(5)} for arm in range(7)}}
        found += any(cell.p_holm < 0.05 for cell in compare(values, "a0", ["m"]))
    assert found < 40


def test_the_page_holds_everything_and_only_seeds_that_both_have(tmp_path):
    values = simulated(np.random.default_rng(0), 4, 1.0, 1.0)
    values[""]["base"].pop(3)
    cells = compare(values, "base", ["m"])
    assert cells[1].seeds == 4 and cells[1].difference.pairs == 3 and math.isnan(cells[0].p_holm)
    report = Report("<title>", "solo experiment x.yaml", "base", ("m",), cells, placebos=("arm",))
    assert "Placebo arm, m: 0 is" in written(report)["report.md"]
    page = written(report, b"x")["report.html"]
    assert "&lt;title&gt;" in page and "http" not in page


@pytest.mark.thorough
def test_real_runs_in_two_processes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [*FILE["words"], "max_epochs=1", "data.fraction=0.1", "knn_eval.enabled=false", "accelerator=cpu"]
    arms = {"standard": ["type=standard"], "hex": ["type=HEX_adaptive"], "broken": ["optimizer.batch_size=1000"]}
    path = write(tmp_path, words=small, arms=arms, seeds=1)
    assert cli.main(["experiment", str(path), "jobs=2", "keep=false"]) == 1  # the broken one says so, the others run
    kept = rows.read_rows(tmp_path / "mine").values()
    assert {row["arm"] for row in kept} == {"standard", "hex"}
    assert not any((tmp_path / "mine" / "runs" / row["id"]).exists() for row in kept)
