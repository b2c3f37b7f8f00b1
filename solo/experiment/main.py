"""`solo experiment FILE.yaml`: say what it costs, run what is missing, report."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solo.analysis.comparison import COST, Report, compare_arms, write_arms
from solo.args.experiment_schema import ExperimentCfg
from solo.args.fields import keys_of
from solo.callbacks import run_lock
from solo.errors import UserError
from solo.experiment.plan import Chosen, Plan, Task, measure_of
from solo.experiment.runs import NAME, Row, add_row, perform_all, probe, read_rows
from solo.files import output_file
from solo.run.report import say
from solo.run.take import read_words


def main(words: Sequence[str]) -> int:
    """Run the command; 0, or 1 if a run has failed; the others are done all the same.

    Raises:
        ConfigError: wrong words, or a wrong file.
        UserError: the folder is in use, or can't be written.
    """
    keys = keys_of(ExperimentCfg)
    given = [word for word in words if "=" in word and word.partition("=")[0] not in keys]
    cfg = read_words("experiment", ExperimentCfg, [word for word in words if word not in given])
    if cfg is None:
        return 0
    plan = Plan(Path(cfg.file).expanduser(), given, cfg.seeds, cfg.arms)
    folder = Path(cfg.out or plan.path.stem).expanduser()
    output_file(folder / NAME)
    with run_lock.held(folder):
        return _work(plan, cfg, folder, words)


def _work(plan: Plan, cfg: ExperimentCfg, folder: Path, words: Sequence[str]) -> int:
    rows = read_rows(folder, ("arm", "budget", "seed", "choice", "seconds", "cpu_seconds", "numbers"))
    failed: list[Row] = []

    def left(tasks: Sequence[Task]) -> list[Task]:
        """Each run once, and not those that are there."""
        return list({task.id: task for task in tasks if task.id not in rows}.values())

    def done(row: Row) -> None:
        name = " ".join(filter(None, (row["arm"], row["budget"], f"seed {row['seed']}")))
        if "error" in row:
            failed.append(row)
            say(f"FAILED {name}: {row['error']} (log.txt in {folder / 'runs' / row['id']})")
            return
        add_row(folder, row)
        rows[row["id"]] = row
        measured = ", ".join(f"{key} {value:.2f}" for key, value in _measures(row, plan).items() if key != COST)
        tried = f" {row['choice']}" if row["choice"] else ""
        say(f"{name}{tried}: {measured} ({row['seconds']:.0f} s)")

    try:
        if cfg.do != "report":
            _tell(plan, rows, left, cfg.jobs)
        if cfg.do == "run":
            for tasks in (plan.trials, lambda: plan.runs(_chosen(plan, rows)[0])):
                perform_all(left(tasks()), folder, cfg.jobs, cfg.keep, done)
    finally:
        if cfg.do != "cost":
            files = write_arms(_report(plan, rows, f"solo experiment {' '.join(words)}"), folder)
            say(f"files in {folder}: rows.jsonl, {', '.join(files)}")
    return 1 if failed else 0


def _tell(plan: Plan, rows: dict[str, Row], left: Any, jobs: int) -> None:
    """How many runs, and how long they take: as those that are there, else by timed steps of the baseline."""
    trials = plan.trials()
    runs = plan.runs(plan.first() | _chosen(plan, rows)[0])
    missing, seconds = [left(trials), left(runs)], 0.0
    for budget in plan.budgets:
        todo = [[task for task in part if task.budget == budget] for part in missing]
        for inner, part in zip((True, False), todo, strict=True):
            if not part:
                continue
            like = [row for row in rows.values() if row["budget"] == budget and (row["choice"] is not None) == inner]
            if like:
                each, how = sum(row["seconds"] for row in like) / len(like), f"as the {len(like)} that are done"
            else:
                steps, step, around = probe(next((t for t in part if t.arm == plan.file.baseline), part[0]))
                each = steps * step + around
                how = f"{steps:,} steps of {step:.3f} s, {around:.0f} s for start and evaluation, measured"
            seconds += each * len(part) / jobs
            kind = "that choose settings" if inner else "that are reported"
            say(f"{len(part)} runs {kind}{f', {budget}' if budget else ''}: {each:.0f} s each ({how})")
    total, hours = sum(map(len, missing)), f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d} h"
    say(f"{total} runs to do, {len(rows)} rows there; about {hours} with jobs={jobs}" if total else "all done")


def _measures(row: Row, plan: Plan) -> dict[str, float]:
    """The measures of a row; NaN is what isn't there."""
    found = {}
    for name in plan.file.measures:
        classes, level, number = measure_of(name)
        found[name] = float(row["numbers"].get(classes, {}).get(level, {}).get(number, math.nan))
    return {**found, COST: float(row["seconds"] if row.get("gpu") else row["cpu_seconds"])}


def _chosen(plan: Plan, rows: dict[str, Row]) -> tuple[Chosen, list[str]]:
    return plan.choices({name: _measures(row, plan) for name, row in rows.items()})


def _report(plan: Plan, rows: dict[str, Row], command: str) -> Report:
    chosen, lines = _chosen(plan, rows)
    values: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for task in plan.runs(chosen):
        if task.id in rows:
            numbers = _measures(rows[task.id], plan)
            if missing := [name for name in plan.file.measures if math.isnan(numbers[name])]:
                held = rows[task.id]["numbers"]
                raise UserError(f"{plan.path}: {missing} of measures isn't there; the rows hold {held}")
            values.setdefault(task.budget, {}).setdefault(task.arm, {})[task.seed] = numbers
    return Report(
        title=plan.file.title or plan.path.stem,
        command=command,
        baseline=plan.file.baseline,
        measures=tuple(plan.file.measures),
        cells=compare_arms(values, plan.file.baseline, plan.file.measures),
        file=plan.text,
        choices=tuple(f"{line}; {plan.file.measures[0]}" for line in lines),
        placebos=tuple(name for name, arm in plan.arms.items() if arm.placebo),
    )
