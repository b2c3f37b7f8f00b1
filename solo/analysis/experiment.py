"""Arms over paired seeds: differences to the baseline with intervals, as Markdown, JSON, a picture and a page."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from solo.analysis.figure import DotRow, Figure, dots
from solo.analysis.pages import Written
from solo.analysis.palette import GOOD, GREY, run_colour
from solo.eval.intervals import Paired, holm, paired

# budget -> arm -> seed -> number -> value; an arm has the seeds that have run.
Values = Mapping[str, Mapping[str, Mapping[int, Mapping[str, float]]]]
COST = "cost"  # among the numbers of a run: its seconds


@dataclass(frozen=True)
class Cell:
    """What one measure says of one arm."""

    budget: str
    arm: str
    measure: str
    seeds: int  # how many have run
    mean: float  # over them
    deviation: float  # NaN of one
    difference: Paired | None  # to the baseline over the seeds that both have; None of the baseline itself
    p_holm: float  # of no difference, by Student's test, corrected for all comparisons of the report
    cost: float  # seconds of a run, relative to the baseline's


@dataclass(frozen=True)
class Report:
    """An experiment as far as it has run."""

    title: str
    command: str  # that makes it
    baseline: str  # name of the arm
    measures: tuple[str, ...]  # in the order of the columns
    cells: tuple[Cell, ...]
    file: str = ""  # its text
    choices: tuple[str, ...] = ()  # lines on what was chosen
    placebos: tuple[str, ...] = ()  # arms that can't help


def compare(values: Values, baseline: str, measures: Sequence[str]) -> tuple[Cell, ...]:
    """Every arm and measure, and its paired difference to the baseline."""
    found: list[Cell] = []
    for budget, arms in values.items():
        base = arms.get(baseline, {})
        for arm, seeds in arms.items():
            both = [seed for seed in seeds if seed in base]
            spent = sum(base[seed][COST] for seed in both)
            cost = sum(seeds[seed][COST] for seed in both) / spent if spent else math.nan
            for measure in measures if seeds else ():
                numbers = [row[measure] for row in seeds.values()]
                deviation = statistics.stdev(numbers) if len(numbers) > 1 else math.nan
                steps = [seeds[seed][measure] - base[seed][measure] for seed in both]
                step = paired(steps) if steps and arm != baseline else None
                mean = statistics.fmean(numbers)
                found.append(Cell(budget, arm, measure, len(numbers), mean, deviation, step, math.nan, cost))
    corrected = holm([cell.difference.p_value if cell.difference else math.nan for cell in found])
    return tuple(Cell(**{**vars(cell), "p_holm": p_value}) for cell, p_value in zip(found, corrected, strict=True))


def table(report: Report, budget: str) -> list[list[str]]:
    """Heading and rows, an arm each, the largest difference of the first measure first."""
    heading = ["arm", "seeds"]
    for measure in report.measures:
        heading += [measure, f"difference to {report.baseline} [95 %], p by t (Holm) and sign test"]
    arms: dict[str, dict[str, Cell]] = {}
    for cell in report.cells:
        if cell.budget == budget:
            arms.setdefault(cell.arm, {})[cell.measure] = cell
    rows = []
    gains = {arm: of[report.measures[0]].difference for arm, of in arms.items()}
    for arm in sorted(arms, key=lambda arm: -(gain.mean if (gain := gains[arm]) else 0.0)):
        first = arms[arm][report.measures[0]]
        row = [arm + (" (placebo)" if arm in report.placebos else ""), str(first.seeds)]
        for measure in report.measures:
            cell = arms[arm][measure]
            spread = "" if math.isnan(cell.deviation) else f" ± {cell.deviation:.2f}"
            found = cell.difference
            tested = f", {cell.p_holm:.2g}, {found.sign_p:.2g}" if found and found.pairs > 1 else ""
            row += [f"{cell.mean:.2f}{spread}", f"{found}{tested}" if found else ""]
        rows.append([*row, "" if math.isnan(first.cost) else f"{first.cost:.2f}"])
    return [[*heading, "time"], *rows]


def remarks(report: Report) -> list[str]:
    """What there is to say of the table: how it is to be read, choices, placebos."""
    compared = [cell for cell in report.cells if cell.difference]
    lines = [
        "Means over seeds ± standard deviation; differences are paired seed by seed, with Student's 95 % interval, p "
        f"of Student's test corrected for the {len(compared)} comparisons of this report (Holm) and of the sign test; "
        f"time is that of a run relative to {report.baseline}."
    ]
    lines += [f"Chosen on a part of the training images: {line}" for line in report.choices]
    for cell in compared:
        if cell.arm in report.placebos and cell.difference and cell.difference.pairs > 1:
            holds = cell.difference.low <= 0 <= cell.difference.high
            lines.append(f"Placebo {cell.arm}, {cell.measure}: 0 is {'in' if holds else 'NOT in'} its interval.")
    return lines


def figure(report: Report) -> Figure:
    """Difference and interval of each arm, a panel for each budget and measure."""
    panels = []
    for budget in dict.fromkeys(cell.budget for cell in report.cells):
        order = [row[0].removesuffix(" (placebo)") for row in table(report, budget)[1:]]
        for place, measure in enumerate(report.measures):
            cells = {cell.arm: cell for cell in report.cells if (cell.budget, cell.measure) == (budget, measure)}
            rows = []
            for arm in order:
                if arm in cells and (found := cells[arm].difference):
                    ends = None if math.isnan(found.low) else (found.low, found.high)
                    mark = (measure, found.mean, GREY if arm in report.placebos else run_colour(place))
                    rows.append(DotRow(f"{arm} ({found.pairs})", (mark,), intervals=(ends,)))
            if rows:
                title, step = f"{measure}{f', {budget}' if budget else ''}", f"difference to {report.baseline}"
                panels.append(dots(title, step, rows, from_zero=False, reference=0.0))
    caption = f"Paired differences to {report.baseline} with 95 % intervals; grey: placebos."
    return Figure("experiment", "", report.title, caption, report.command, tuple(panels), ((" ", GOOD),), across=2)


def written(report: Report) -> Written:
    """The report in words and tables, one for each budget."""
    budgets = dict.fromkeys(cell.budget for cell in report.cells)
    tables = {budget: table(report, budget) for budget in budgets}
    return Written(report.title, report.command, tables, remarks(report), report.file)


def write(report: Report, folder: Path) -> list[str]:
    """Write `report.md`, `report.json`, `report.html`, and where there is something to compare `report.png`."""
    drawn = figure(report)
    if not drawn.panels:
        return written(report).write(folder, asdict(report))
    from solo.analysis.drawing import draw

    draw(drawn, folder / "report.png")
    return [*written(report).write(folder, asdict(report), (folder / "report.png").read_bytes()), "report.png"]
