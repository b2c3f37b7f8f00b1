"""Runs beside each other: arms over paired seeds (`solo experiment`), the same images (`solo benchmark`), as tables."""

import base64
import json
import math
import statistics
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from solo.analysis.figure import GOOD, GREY, DotRow, Figure, dots, embedded, finite, markdown_table, render, run_colour
from solo.errors import explained
from solo.eval.features import Array
from solo.eval.intervals import Paired, holm, paired, paired_images
from solo.files import write_text

Tables = Mapping[str, Sequence[Sequence[str]]]  # by their headings, each as its first line and its rows


def texts(
    title: str, command: str, tables: Tables, remarks: Sequence[str], file: str = "", picture: bytes = b""
) -> dict[str, str]:
    """`report.html`, in which is everything, and `report.md`: tables under their headings, the YAML file at the end."""
    parts = [f"# {title}", f"`{command}`"]
    for heading, lines in tables.items():
        parts += [f"## {heading}" if heading else "", markdown_table(lines)]
    parts += [*remarks, f"```yaml\n{file.strip()}\n```" if file else ""]
    words: dict[str, Any] = {"title": title, "command": command, "tables": tables, "remarks": remarks, "file": file}
    page = render("tables.html", **words, picture=embedded(picture) if picture else "")
    return {"report.html": page, "report.md": "\n\n".join(filter(None, parts)) + "\n"}


def _write(folder: Path, files: dict[str, str], plain: Mapping[str, Any]) -> list[str]:
    files["report.json"] = json.dumps(finite(plain), indent=1) + "\n"
    for name, text in files.items():
        write_text(folder / name, text)
    return [*files]


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


def compare_arms(values: Values, baseline: str, measures: Sequence[str]) -> tuple[Cell, ...]:
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
    return tuple(replace(cell, p_holm=p_value) for cell, p_value in zip(found, corrected, strict=True))


def table_of_arms(report: Report, budget: str) -> list[list[str]]:
    """Heading and rows, an arm each, the largest difference of the first measure first."""
    heading = ["arm", "seeds"]
    for measure in report.measures:
        heading += [measure, f"difference to {report.baseline} [95 %], p by t (Holm) and sign test"]
    cells = {(cell.arm, cell.measure): cell for cell in report.cells if cell.budget == budget}
    firsts = [cell for cell in cells.values() if cell.measure == report.measures[0]]
    rows = []
    for first in sorted(firsts, key=lambda cell: -cell.difference.mean if cell.difference else 0.0):
        row = [first.arm + (" (placebo)" if first.arm in report.placebos else ""), str(first.seeds)]
        for cell in (cells[first.arm, measure] for measure in report.measures):
            found = cell.difference
            spread = "" if math.isnan(cell.deviation) else f" ± {cell.deviation:.2f}"
            tested = f", {cell.p_holm:.2g}, {found.sign_p:.2g}" if found and found.pairs > 1 else ""
            row += [f"{cell.mean:.2f}{spread}", f"{found}{tested}" if found else ""]
        rows.append([*row, "" if math.isnan(first.cost) else f"{first.cost:.2f}"])
    return [[*heading, "time"], *rows]


def written(report: Report, picture: bytes = b"") -> dict[str, str]:
    """`texts` of the report: a table for each budget, how it is to be read, choices, placebos."""
    tables = {budget: table_of_arms(report, budget) for budget in dict.fromkeys(cell.budget for cell in report.cells)}
    compared = [(cell, cell.difference) for cell in report.cells if cell.difference]
    lines = [
        "Means over seeds ± standard deviation; differences are paired seed by seed, with Student's 95 % interval, p "
        f"of Student's test corrected for the {len(compared)} comparisons of this report (Holm) and of the sign test; "
        f"time is that of a run relative to {report.baseline}."
    ]
    lines += [f"Chosen on a part of the training images: {line}" for line in report.choices]
    for cell, found in compared:
        if cell.arm in report.placebos and found.pairs > 1:
            holds = "in" if found.low <= 0 <= found.high else "NOT in"
            lines.append(f"Placebo {cell.arm}, {cell.measure}: 0 is {holds} its interval.")
    return texts(report.title, report.command, tables, lines, report.file, picture)


def write_arms(report: Report, folder: Path) -> list[str]:
    """Write `report.md`, `report.json`, `report.html`, and where there is something to compare `report.png`."""
    from solo.analysis.drawing import draw

    panels = []
    for budget in dict.fromkeys(cell.budget for cell in report.cells):
        order = [row[0].removesuffix(" (placebo)") for row in table_of_arms(report, budget)[1:]]
        for place, measure in enumerate(report.measures):
            cells = {cell.arm: cell for cell in report.cells if (cell.budget, cell.measure) == (budget, measure)}
            rows = []
            for arm in order:
                if arm in cells and (found := cells[arm].difference):
                    ends = None if math.isnan(found.low) else (found.low, found.high)
                    mark = (measure, found.mean, GREY if arm in report.placebos else run_colour(place))
                    rows.append(DotRow(f"{arm} ({found.pairs})", [mark], interval=ends))
            if rows:
                title = f"{measure}{f', {budget}' if budget else ''}"
                step = f"difference to {report.baseline}"
                panels.append(dots(title, step, rows, from_zero=False, reference=0.0))
    caption = f"Paired differences to {report.baseline} with 95 % intervals; grey: placebos."
    drawn = Figure("experiment", "", report.title, caption, report.command, tuple(panels), {" ": GOOD})
    picture = folder / "report.png"
    if panels:
        draw(drawn, picture)
    names = _write(folder, written(report, picture.read_bytes() if panels else b""), asdict(report))
    return [*names, picture.name] if panels else names


_UNKNOWN = 255  # in place of a count of draws


@dataclass(frozen=True)
class Entry:
    """What one protocol says of one run at one level of a data set."""

    data: str
    protocol: str
    level: str
    run: str
    images: int
    accuracy: float  # percent
    interval: tuple[float, float] | None  # 95 %, over the choice of the images
    difference: Paired | None  # to the first run, in points, image by image; None of it and of other images
    p_holm: float  # of no difference, by the sign test, corrected for all comparisons of the table


def packed(hits: Array, draws: int) -> str:
    """Shares of draws (n,), NaN unknown, as text; `draws` are below 255."""
    counts = np.where(np.isnan(hits), _UNKNOWN, np.rint(np.nan_to_num(hits) * draws)).astype(np.uint8)
    return base64.b64encode(zlib.compress(counts.tobytes(), 9)).decode()


def unpacked(text: str, draws: int) -> Array:
    """The values that `packed` was given; a `UserError` if they are damaged."""
    cure = "take its line out, it is done again"
    with explained("the hits of a row are damaged", cure, ValueError, TypeError, zlib.error):
        counts = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    return np.where(counts == _UNKNOWN, math.nan, counts / draws)


def compare_runs(rows: Sequence[Mapping[str, Any]]) -> tuple[Entry, ...]:
    """The rows of cells, those of the first run of each data set and protocol first, with differences to it."""
    found: list[Entry] = []
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        base = first.setdefault((row["data"], row["protocol"]), row)
        for level, numbers in row["levels"].items():
            step = None
            if base is not row and base["labels"] == row["labels"] and level in base["levels"]:
                mine, other = (unpacked(one["levels"][level]["hits"], one["draws"]) for one in (row, base))
                steps = 100 * (mine - other)[~np.isnan(mine)]
                step = paired_images(steps.tolist(), 100) if len(steps) else None
            ends = tuple(numbers["ci"]) if numbers["ci"] else None
            which = (row["data"], row["protocol"], level, row["run"])
            found.append(Entry(*which, numbers["images"], numbers["accuracy"], ends, step, math.nan))
    corrected = holm([entry.difference.sign_p if entry.difference else math.nan for entry in found])
    return tuple(replace(one, p_holm=p_value) for one, p_value in zip(found, corrected, strict=True))


def table_of_runs(entries: Sequence[Entry]) -> list[list[str]]:
    """Heading and rows: a row for each data set, protocol and level, a column for each run, differences behind."""
    runs = list(dict.fromkeys(entry.run for entry in entries))
    lines: dict[tuple[str, ...], dict[str, Entry]] = {}
    for entry in entries:
        lines.setdefault((entry.data, entry.protocol, entry.level, f"{entry.images:,}"), {})[entry.run] = entry
    heading = ["data", "protocol", "level", "images", *runs[:1]]
    for run in runs[1:]:
        heading += [run, f"difference to {runs[0]} [95 %], p"]
    rows = []
    for which, of_run in lines.items():
        cells = [*which]
        for place, run in enumerate(runs):
            one = of_run.get(run)
            ends = f" [{one.interval[0]:.1f}, {one.interval[1]:.1f}]" if one and one.interval else ""
            cells.append(f"{one.accuracy:.2f}{ends}" if one else "")
            if place:
                cells.append(f"{one.difference}, {one.p_holm:.2g}" if one and one.difference else "")
        rows.append(cells)
    return [heading, *rows]


def write_runs(rows: Sequence[Mapping[str, Any]], folder: Path, command: str, remarks: Sequence[str]) -> list[str]:
    """Write `report.md`, `report.html` and `report.json`; their names."""
    entries = compare_runs(rows)
    count = sum(entry.difference is not None for entry in entries)
    said = [
        "Accuracy in percent with its 95 % interval over the choice of the images that are measured; differences are "
        "taken image by image, with Wald's interval, as if two images differed at least; p is that of the sign test "
        f"(for single draws McNemar's exact one), corrected for the {count} comparisons of this table (Holm). "
        "Neither speaks of other training seeds, nor of other draws of few training images.",
        *remarks,
    ]
    plain = {"command": command, "remarks": said, "entries": [asdict(entry) for entry in entries]}
    return _write(folder, texts("Benchmark", command, {"": table_of_runs(entries)}, said), plain)
