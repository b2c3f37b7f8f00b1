"""From an experiment's file to the runs that it asks for; no torch."""

import hashlib
import itertools
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from solo.args.check import check, unknown
from solo.args.compose import compose
from solo.args.config import flat, freeze, may_change, never_matters
from solo.args.eval_schema import ArmCfg, EvaluateCfg, ExperimentFile
from solo.args.origins import read_yaml
from solo.args.parse import parse
from solo.args.recipes import find_recipe
from solo.args.schema import PretrainCfg
from solo.args.words import as_word, read_word
from solo.errors import ConfigError

_MOST = 10_000  # runs; more are a slip
_OF_EACH_RUN = {"seed": "seeds says which", "checkpoint.dir": "out says where"}
Schema = TypeVar("Schema")
Choice = dict[str, Any]  # key -> value
Chosen = dict[tuple[str, str], Choice]  # (arm, budget) -> what was chosen for it


@dataclass(frozen=True)
class Task:
    """One run: `solo pretrain` and `solo evaluate`."""

    arm: str
    budget: str  # "" where there is only one, without a name
    seed: int  # as the report counts it; the words have the run's own
    choice: Choice | None  # what it tries of the arm's grid; None for a run that is reported
    recipe: tuple[str, ...]  # the words that name it
    words: tuple[str, ...]  # all overrides
    evaluate: tuple[str, ...]  # words of `solo evaluate`
    id: str  # the same for runs that are the same, whatever arm asks for them


class Plan:
    """The arms of a file, and their runs.

    `words` are given to every run, `seeds` are taken instead of the file's, of the arms only those named and the
    baseline.

    Raises:
        ConfigError: the file, an arm, or the words of one of its runs are wrong.
    """

    def __init__(
        self,
        path: Path,
        words: Sequence[str] = (),
        seeds: Sequence[int] | int | None = None,
        arms: Sequence[str] | None = None,
    ) -> None:
        read = read_yaml(path)
        self.text = path.read_text(encoding="utf-8")
        self.path, self.given = path, tuple(words)
        self.file = _checked(read, ExperimentFile, f"{path}: ")
        self.seeds = listed(self.file.seeds if seeds is None else seeds)
        if not self.seeds:
            raise ConfigError(f"{path}: seeds are none; give how many, such as 5, or a list of them")
        self.budgets: dict[str, list[str]] = self.file.budgets or {"": []}
        self.arms = {
            str(name): _checked(
                {"words": arm} if isinstance(arm, list) else {} if arm is None else arm, ArmCfg, f"{path}: arms.{name}."
            )
            for name, arm in self.file.arms.items()
        }
        for name in (self.file.baseline, *(arms or ())):
            if name not in self.arms:
                raise ConfigError(f"{path}: arm{unknown(name, self.arms)}")
        if arms is not None:
            needed = {self.file.baseline, *arms}
            needed |= {arm.grid for name, arm in self.arms.items() if name in needed and isinstance(arm.grid, str)}
            self.arms = {name: arm for name, arm in self.arms.items() if name in needed}
        for measure in self.file.measures:
            measure_of(measure)
        self._grids = {name: self._grid(name) for name in self.arms}
        self._digests: dict[tuple[Any, ...], str] = {}
        if any(self._grids.values()) and not listed(self.file.choose.seeds):
            raise ConfigError(f"{path}: choose.seeds are none, and arms have a grid; give how many, such as 2")
        tried = sum(map(len, self._grids.values())) * len(listed(self.file.choose.seeds))
        count = (tried + len(self.arms) * len(self.seeds)) * len(self.budgets)
        if count > _MOST:
            raise ConfigError(f"{path} asks for {count:,} runs; {_MOST:,} are allowed: take seeds or values out")
        self.runs(self.first())  # all are read before one runs

    def _grid(self, name: str) -> list[Choice]:
        """All combinations; of an arm without a grid none, of one that takes over a choice none either."""
        grid = self.arms[name].grid
        if isinstance(grid, str):
            if not isinstance(getattr(self.arms.get(grid), "grid", None), dict):
                raise ConfigError(f"{self.path}: arms.{name}.grid={grid} is no arm with a grid; name one that has")
            return []
        for key, values in (grid or {}).items():
            if not isinstance(values, list) or not values:
                raise ConfigError(f"{self.path}: arms.{name}.grid.{key}={values} is no list of values")
        if math.prod(map(len, (grid or {}).values())) > _MOST:
            raise ConfigError(f"{self.path}: arms.{name}.grid: {_MOST:,} are allowed; take values out")
        combined = itertools.product(*grid.values()) if grid else ()
        return [dict(zip(grid or (), values, strict=True)) for values in combined]

    def trials(self) -> list[Task]:
        """The runs that choose settings, without the images that are reported."""
        choose = self.file.choose
        held = as_word("data.holdout", choose.share)
        return [
            self._task(name, budget, seed, choice, choice, (*choose.words, held), (held,))
            for seed in listed(choose.seeds)
            for budget in self.budgets
            for name, choices in self._grids.items()
            for choice in choices
        ]

    def first(self) -> Chosen:
        """The first of each grid, to count runs before one is chosen."""
        return {(name, budget): grid[0] for name, grid in self._grids.items() if grid for budget in self.budgets}

    def choices(self, numbers: Mapping[str, Mapping[str, float]]) -> tuple[Chosen, list[str]]:
        """What is chosen for each arm and budget of which all trials have run, and a line on each.

        That is the best mean of the first measure; `numbers` has the measures of each run by its id.
        """
        tried: dict[tuple[str, str], dict[str, list[Task]]] = {}
        for task in self.trials():
            text = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in (task.choice or {}).items())
            tried.setdefault((task.arm, task.budget), {}).setdefault(text, []).append(task)
        found, lines, measure = Chosen(), list[str](), self.file.measures[0]
        for (arm, budget), values in tried.items():
            if any(task.id not in numbers for tasks in values.values() for task in tasks):
                continue
            means = {text: sum(numbers[task.id][measure] for task in own) / len(own) for text, own in values.items()}
            best = max(means, key=lambda text: means[text])
            found[arm, budget] = values[best][0].choice or {}
            shown = ", ".join(f"{text}: {mean:.2f}" for text, mean in means.items())
            lines.append(f"{' '.join(filter(None, (arm, budget)))}: {best} (of {shown})")
        return found, lines

    def runs(self, chosen: Chosen) -> list[Task]:
        """The runs that are reported, as far as their settings are known; all arms of a seed before the next seed."""
        sources = {name: arm.grid if isinstance(arm.grid, str) else name for name, arm in self.arms.items()}
        return [
            self._task(name, budget, seed, None, chosen.get((sources[name], budget), {}))
            for seed in self.seeds
            for budget in self.budgets
            for name, arm in self.arms.items()
            if not arm.grid or (sources[name], budget) in chosen
        ]

    def _task(
        self,
        name: str,
        budget: str,
        seed: int,
        choice: Choice | None,
        settings: Choice,
        more: Sequence[str] = (),
        measured: Sequence[str] = (),
    ) -> Task:
        arm = self.arms[name]
        recipe = tuple(shlex.split(arm.recipe or self.file.recipe))
        own = [as_word(key, value) for key, value in settings.items()]
        words = (*self.file.words, *self.budgets[budget], *self.given, *arm.words, *own, *more)
        evaluate = (*self.file.evaluate, *measured)
        key = (recipe, words, evaluate)
        if key not in self._digests:
            self._digests[key] = _digest(recipe, words, evaluate, f"{self.path}: arm {name}")
        number = seed + arm.shift
        full = (*words, f"seed={number}")
        return Task(name, budget, seed, choice, recipe, full, evaluate, f"{self._digests[key]}-{number}")


def _digest(recipe: Sequence[str], words: Sequence[str], evaluate: Sequence[str], where: str) -> str:
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
    checked, problems = check(values, schema)
    if problems:
        raise ConfigError("\n".join(f"{where}{problem.key}{problem.text}" for problem in problems))
    return freeze(checked, schema)


def listed(seeds: Sequence[int] | int) -> list[int]:
    """Seeds: as they are, or as many from 0 on; of too many, so many that they are refused."""
    return list(range(min(seeds, _MOST + 1))) if isinstance(seeds, int) else list(dict.fromkeys(seeds))


def measure_of(text: str) -> tuple[str, str, str]:
    """`[classes:]level/number` -> classes (`all` if not said), level, number.

    Raises:
        ConfigError: it isn't of that form.
    """
    classes, _, rest = text.rpartition(":")
    level, slash, number = rest.partition("/")
    if not (slash and level and number):
        raise ConfigError(f"measure {text!r} is not [classes:]level/number, such as class/knn_acc1")
    return classes or "all", level, number
