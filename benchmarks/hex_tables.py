"""Fills tables of docs/hex.md and README.md, and the picture of lengths, from the reports in benchmarks/results/hex.

    python benchmarks/hex_tables.py

In docs/hex.md whatever stands between `<!-- NAME -->` and `<!-- / -->` is the report of the experiment NAME; the words
around it are written by hand. A folder's report is made anew from its rows by its own command, with `do=report`.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from solo.analysis.drawing import draw
from solo.analysis.figure import INK, Figure, Plot, Series, is_empty, run_colour

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/hex"
# README: how a row starts -> the experiment and its arm
FIRST_SCREEN = {
    "| `type=HEX`:": ("hex_glyphs", "HEX: relatives by HOG, shown"),
    "| `type=HEX_adaptive`:": ("hex_glyphs", "HEX_adaptive, q .99"),
    "| `hex.variant=release`:": ("hex_glyphs", "release, q .99"),
    "| `type=coarse`:": ("hex_glyphs", "coarse: SupCon on 61 groups"),
    "| `type=coarse` and `hex.show`:": ("hex_coarse", "61 groups pull and are shown"),
}


def table(name: str) -> str:
    """The table of an experiment's report, what it chose, and its command."""
    lines = (RESULTS / name / "report.md").read_text(encoding="utf-8").splitlines()
    rows = [f"\n**{line[3:]}**\n" if line[0] == "#" else line for line in lines if line.startswith(("| ", "## "))]
    chosen = [f"\n{line}" for line in lines if line.startswith("Chosen")]
    command = f"solo experiment benchmarks/experiments/{name}.yaml"
    end = f"\n(`{command}`, rows and report in `benchmarks/results/hex/{name}`.)"
    return "\n".join([*rows, *chosen, end]).strip()


def report(name: str) -> dict[str, Any]:
    """Baseline, means and differences (`cells`) of an experiment; no cells where it has no report."""
    file = RESULTS / name / "report.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"cells": []}
    return found


def first_screen(line: str) -> str:
    """A row of README's table with today's numbers; other lines as they are."""
    fits = [start for start in FIRST_SCREEN if line.startswith(start)]
    if not fits:
        return line
    name, arm = FIRST_SCREEN[fits[0]]
    text = line.rstrip(" |").split(" | ")[:2]
    for cell in report(name)["cells"]:
        if cell["arm"] == arm and cell["measure"].startswith("character/"):
            of = cell["difference"]
            mean = f"{of['mean']:+.2f}"
            mean = f"**{mean}**" if of["low"] > 0 and of["mean"] >= 0.5 else mean
            text.append(f"{mean} [{of['low']:+.2f}, {of['high']:+.2f}]")
    return " | ".join(text) + " |" if len(text) == 4 else line


def lengths() -> Figure:
    """Differences to the baseline over the length of training."""
    panels, found = [], report("hex_long")
    for measure, title in (("character/knn_acc1", "kNN"), ("character/linear_acc1", "linear")):
        lines: dict[str, list[tuple[float, ...]]] = {}
        for cell in found["cells"]:
            if cell["measure"] == measure and (of := cell["difference"]):
                place = float(cell["budget"].split()[0])
                lines.setdefault(cell["arm"], []).append((place, of["mean"]))
        series = tuple(
            Series(arm, *map(list, zip(*points, strict=True)), run_colour(index))  # type: ignore[arg-type]
            for index, (arm, points) in enumerate(lines.items())
        )
        ticks = tuple(sorted({place for points in lines.values() for place, _ in points}))
        series += (Series(str(found.get("baseline")), ticks, [0.0] * len(ticks), INK, dash=True, markers=False),)
        panels.append(
            Plot(f"characters, {title}", "epochs", "points", series, log_x=True, x_ticks=ticks, legend=title == "kNN")
        )
    caption = f"Difference to {found.get('baseline')}, over the same seeds."
    return Figure("lengths", "", "Coarse labels over the length of training", caption, "", tuple(panels))


def main() -> None:
    """Write what has a report."""
    page, readme = ROOT / "docs/hex.md", ROOT / "README.md"
    text = page.read_text(encoding="utf-8")

    def filled(match: re.Match[str]) -> str:
        there = (RESULTS / match[1] / "report.md").is_file()
        return f"<!-- {match[1]} -->\n\n{table(match[1])}\n\n<!-- / -->" if there else match[0]

    page.write_text(re.sub(r"<!-- (hex_\w+) -->.*?<!-- / -->", filled, text, flags=re.DOTALL), encoding="utf-8")
    lines = readme.read_text(encoding="utf-8").split("\n")
    readme.write_text("\n".join(map(first_screen, lines)), encoding="utf-8")
    figure = lengths()
    if panels := tuple(panel for panel in figure.panels if not is_empty(panel)):
        draw(replace(figure, panels=panels), ROOT / "visuals/hex-lengths.png")


if __name__ == "__main__":
    main()
