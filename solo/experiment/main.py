"""`solo experiment FILE.yaml`: read the runs that a file asks for, say what they cost, run what is missing, report."""

import functools
import hashlib
import itertools
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from solo.analysis.comparison import COST, Report, compare_arms, write_arms
from solo.args.compose import as_word, compose, read_word
from solo.args.config import flat, may_change, never_matters
from solo.args.eval_schema import ArmCfg, EvaluateCfg, ExperimentCfg, ExperimentFile
from solo.args.fields import Section, keys_of, unknown
from solo.args.origins import read_yaml
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.callbacks import run_directory
from solo.cli import read_words, settings_of
from solo.errors import ConfigError, UserError
from solo.experiment.runs import NAME, Choice, Row, Task, add_row, perform_all, probe, read_rows
from solo.files import output_file
from solo.run.report import say

_MOST = 10_000  # runs; more are a slip
_OF_EACH_RUN = {"seed": "seeds says which", "checkpoint.dir": "out says where"}
Schema = TypeVar("Schema", bound=Section)
Chosen = dict[tuple[str, str], Choice]  # (arm, budget) -> what was chosen for it


class Plan:
    """The arms of a file, and their runs; a `ConfigError` if the file, an arm, or the words of a run are wrong.

    `words` are given to every run, `seeds` are taken instead of the file's, of `arms` only these and the baseline.
    """

    def __init__(
        self,
        path: Path,
        words: Sequence[str] = (),
        seeds: Sequence[int] | int | None = None,
        arms: Sequence[str] | None = None,
    ) -> None:
        self.file = _checked(read_yaml(path), ExperimentFile, f"{path}: ")
        self.text = path.read_text(encoding="utf-8")
        self.path, self.given = path, tuple(words)
        self.seeds = _listed(self.file.seeds if seeds is None else seeds)
        if not self.seeds:
            raise ConfigError(f"{path}: seeds are none; give how many, such as 5, or a list of them")
        self.budgets: dict[str, list[str]] = self.file.budgets or {"": []}
        self.arms = {}
        for name, arm in self.file.arms.items():
            keys = {"words": arm} if isinstance(arm, list) else {} if arm is None else arm
            self.arms[str(name)] = _checked(keys, ArmCfg, f"{path}: arms.{name}.")
        for name in (self.file.baseline, *(arms or ())):
            if name not in self.arms:
                raise ConfigError(f"{path}: arm{unknown(name, self.arms)}")
        if arms is not None:
            needed = {self.file.baseline, *arms}
            needed |= {arm.grid for name, arm in self.arms.items() if name in needed and isinstance(arm.grid, str)}
            self.arms = {name: arm for name, arm in self.arms.items() if name in needed}
        for measure in self.file.measures:
            measure_of(measure)
        grids = {name: arm.grid for name, arm in self.arms.items() if isinstance(arm.grid, dict) and arm.grid}
        for name, arm in self.arms.items():
            if isinstance(arm.grid, str) and arm.grid not in grids:
                raise ConfigError(f"{path}: arms.{name}.grid={arm.grid} is no arm with a grid; name one that has")
            for key, values in grids.get(name, {}).items():
                if not isinstance(values, list) or not values:
                    raise ConfigError(f"{path}: arms.{name}.grid.{key}={values} is no list of values")
        self._trial_seeds = _listed(self.file.choose.seeds) if grids else []
        if grids and not self._trial_seeds:
            raise ConfigError(f"{path}: choose.seeds are none, and arms have a grid; give how many, such as 2")
        tried = sum(math.prod(map(len, grid.values())) for grid in grids.values()) * len(self._trial_seeds)
        count = (tried + len(self.arms) * len(self.seeds)) * len(self.budgets)
        if count > _MOST:
            raise ConfigError(f"{path} asks for {count:,} runs; {_MOST:,} are allowed: take seeds or values out")
        self._grids: dict[str, list[Choice]] = {}  # all combinations
        for name, grid in grids.items():
            self._grids[name] = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        self.runs(self.first())  # all are read before one runs

    def trials(self) -> list[Task]:
        """The runs that choose settings, without the images that are reported."""
        return [
            self._task(name, budget, seed, choice, is_trial=True)
            for seed in self._trial_seeds
            for budget in self.budgets
            for name, choices in self._grids.items()
            for choice in choices
        ]

    def first(self) -> Chosen:
        """The first of each grid, to count runs before one is chosen."""
        return {(name, budget): grid[0] for name, grid in self._grids.items() for budget in self.budgets}

    def measures(self, row: Row) -> dict[str, float]:
        """The measures of a row; NaN is what isn't there."""
        found = {}
        for name in self.file.measures:
            classes, level, number = measure_of(name)
            found[name] = float(row["numbers"].get(classes, {}).get(level, {}).get(number, math.nan))
        return {**found, COST: float(row["seconds"] if row.get("gpu") else row["cpu_seconds"])}

    def choices(self, rows: Mapping[str, Row]) -> tuple[Chosen, list[str]]:
        """For each arm and budget of which all trials are among the rows, by id, the best first measure; and lines."""
        tried: dict[tuple[str, str], dict[str, list[Task]]] = {}
        for task in self.trials():
            text = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in (task.choice or {}).items())
            tried.setdefault((task.arm, task.budget), {}).setdefault(text, []).append(task)
        found, lines, measure = Chosen(), list[str](), self.file.measures[0]
        for (arm, budget), values in tried.items():
            if any(task.id not in rows for tasks in values.values() for task in tasks):
                continue
            means = {
                text: sum(self.measures(rows[task.id])[measure] for task in own) / len(own)
                for text, own in values.items()
            }
            best = max(means, key=lambda text: means[text])
            found[arm, budget] = values[best][0].choice or {}
            shown = ", ".join(f"{text}: {mean:.2f}" for text, mean in means.items())
            lines.append(f"{' '.join(filter(None, (arm, budget)))}: {best} (of {shown})")
        return found, lines

    def runs(self, chosen: Chosen) -> list[Task]:
        """The runs that are reported, as far as their settings are known; all arms of a seed before the next seed."""
        sources = {name: arm.grid if isinstance(arm.grid, str) else name for name, arm in self.arms.items()}
        return [
            self._task(name, budget, seed, chosen.get((sources[name], budget), {}))
            for seed in self.seeds
            for budget in self.budgets
            for name, arm in self.arms.items()
            if not arm.grid or (sources[name], budget) in chosen
        ]

    def _task(self, name: str, budget: str, seed: int, settings: Choice, is_trial: bool = False) -> Task:
        arm, choose = self.arms[name], self.file.choose
        recipe = tuple(shlex.split(arm.recipe or self.file.recipe))
        own = [as_word(key, value) for key, value in settings.items()]
        held = [as_word("data.holdout", choose.share)] if is_trial else []
        words = (*self.file.words, *self.budgets[budget], *self.given, *arm.words, *own)
        words = (*words, *(choose.words if is_trial else ()), *held)
        evaluate, number = (*self.file.evaluate, *held), seed + arm.shift
        digest = _digest(recipe, words, evaluate, f"{self.path}: arm {name}")
        full = (*words, f"seed={number}")
        return Task(name, budget, seed, settings if is_trial else None, recipe, full, evaluate, f"{digest}-{number}")


@functools.cache
def _digest(recipe: tuple[str, ...], words: tuple[str, ...], evaluate: tuple[str, ...], where: str) -> str:
    """Twelve hex digits of what decides about the result: the composed recipe, not the library's defaults."""
    try:
        for key in (read_word(word).key for word in (*words, *evaluate)):
            if key in _OF_EACH_RUN:
                raise ConfigError(f"{key} is what each run is given by the experiment: {_OF_EACH_RUN[key]}; remove it")
        values, origins = compose(find_recipe(recipe), words, PretrainCfg)
        parse(values, PretrainCfg, origins, for_run=True)
        settings, _ = compose(None, evaluate, EvaluateCfg)
        _checked(settings, EvaluateCfg, "evaluate: ")
        measured = sorted(read_word(word).line for word in evaluate)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from error
    idle = never_matters()
    kept = {key: value for key, value in flat(values) if not may_change(key, idle)}
    text = json.dumps([kept, measured], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _checked(values: Any, schema: type[Schema], where: str) -> Schema:
    if not isinstance(values, dict):
        raise ConfigError(f"{where.rstrip('. :')} is no section; give keys and values, see docs/experiment.md")
    return settings_of(schema, values, where)


def _listed(seeds: Sequence[int] | int) -> list[int]:
    """Seeds: as they are, or as many from 0 on; of too many, so many that they are refused."""
    return list(range(min(seeds, _MOST + 1))) if isinstance(seeds, int) else list(dict.fromkeys(seeds))


def measure_of(text: str) -> tuple[str, str, str]:
    """`[classes:]level/number` -> classes (`all` if not said), level, number; else a `ConfigError`."""
    classes, _, rest = text.rpartition(":")
    level, slash, number = rest.partition("/")
    if not (slash and level and number):
        raise ConfigError(f"measure {text!r} is not [classes:]level/number, such as class/knn_acc1")
    return classes or "all", level, number


def main(words: Sequence[str]) -> int:
    """Run the command; 0, or 1 if a run has failed, which stops no other; a `UserError` of wrong words or files."""
    keys = keys_of(ExperimentCfg)
    given = [word for word in words if "=" in word and word.partition("=")[0] not in keys]
    cfg = read_words("experiment", ExperimentCfg, [word for word in words if word not in given])
    if cfg is None:
        return 0
    plan = Plan(Path(cfg.file).expanduser(), given, cfg.seeds, cfg.arms)
    folder = Path(cfg.out or plan.path.stem).expanduser()
    output_file(folder / NAME)
    with run_directory.held(folder):
        return _work(plan, cfg, folder, f"solo experiment {' '.join(words)}")


def _work(plan: Plan, cfg: ExperimentCfg, folder: Path, command: str) -> int:
    rows = read_rows(folder, ("arm", "budget", "seed", "choice", "seconds", "cpu_seconds", "numbers"))
    failed: list[Row] = []

    def done(row: Row) -> None:
        name = " ".join(filter(None, (row["arm"], row["budget"], f"seed {row['seed']}")))
        if "error" in row:
            failed.append(row)
            say(f"FAILED {name}: {row['error']} (log.txt in {folder / 'runs' / row['id']})")
            return
        add_row(folder, row)
        rows[row["id"]] = row
        measured = ", ".join(f"{key} {value:.2f}" for key, value in plan.measures(row).items() if key != COST)
        tried = f" {row['choice']}" if row["choice"] else ""
        say(f"{name}{tried}: {measured} ({row['seconds']:.0f} s)")

    try:
        if cfg.do != "report":
            _tell(plan, rows, cfg.jobs)
        if cfg.do == "run":
            for tasks in (plan.trials, lambda: plan.runs(plan.choices(rows)[0])):
                perform_all(_left(tasks(), rows), folder, cfg.jobs, cfg.keep, done)
    finally:
        if cfg.do != "cost":
            files = write_arms(_report(plan, rows, command), folder)
            say(f"files in {folder}: rows.jsonl, {', '.join(files)}")
    return 1 if failed else 0


def _left(tasks: Sequence[Task], rows: Mapping[str, Row]) -> list[Task]:
    """Each run once, and not those that are there."""
    return list({task.id: task for task in tasks if task.id not in rows}.values())


def _tell(plan: Plan, rows: dict[str, Row], jobs: int) -> None:
    """How many runs, and how long they take: as those that are there, else by timed steps of the baseline."""
    runs, total, seconds = plan.runs(plan.first() | plan.choices(rows)[0]), 0, 0.0
    for budget in plan.budgets:
        for inner, tasks in ((True, plan.trials()), (False, runs)):
            part = [task for task in _left(tasks, rows) if task.budget == budget]
            if not part:
                continue
            like = [row for row in rows.values() if row["budget"] == budget and (row["choice"] is not None) == inner]
            if like:
                each = sum(row["seconds"] for row in like) / len(like)
                how = f"as the {len(like)} that are done"
            else:
                steps, step, around = probe(next((t for t in part if t.arm == plan.file.baseline), part[0]))
                each = steps * step + around
                how = f"{steps:,} steps of {step:.3f} s, {around:.0f} s for start and evaluation, measured"
            total, seconds = total + len(part), seconds + each * len(part) / jobs
            kind = "that choose settings" if inner else "that are reported"
            say(f"{len(part)} runs {kind}{f', {budget}' if budget else ''}: {each:.0f} s each ({how})")
    hours = f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d} h"
    say(f"{total} runs to do, {len(rows)} rows there; about {hours} with jobs={jobs}" if total else "all done")


def _report(plan: Plan, rows: dict[str, Row], command: str) -> Report:
    chosen, lines = plan.choices(rows)
    values: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for task in plan.runs(chosen):
        if task.id in rows:
            numbers = plan.measures(rows[task.id])
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
