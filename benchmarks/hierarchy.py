"""The leaderboard of hierarchical objectives: trains and measures all arms of experiments/hierarchy.yaml, and tells it.

    python benchmarks/hierarchy.py glyphs.npz [--only all tenth ...] [--do run|cost|report] [--jobs 1] [--seeds 5]

Four settings, one after the other: all labels (`all`), a tenth and a hundredth of them (`tenth`, `hundredth`), and 72
characters without an image in training, which alone are measured (`unseen`). Each lies in results/hierarchy/SETTING:
rows.jsonl, a line a run, and the report with all paired intervals. The same command after a stop does what is missing.
In the end docs/leaderboard.md is written from whatever has run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from solo.analysis.figure import markdown_table
from solo.experiment.main import main as experiment

HERE = Path(__file__).parent
FILE = HERE / "experiments" / "hierarchy.yaml"
RESULTS = HERE / "results" / "hierarchy"
PAGE = HERE.parent / "docs" / "leaderboard.md"
LOWER = ("severity", "distance", "linear_ece")  # rulers of which less is better


@dataclass(frozen=True)
class Setting:
    """What is different from experiments/hierarchy.yaml."""

    title: str
    words: tuple[str, ...] = ()
    classes: str = "all"  # which classes are measured


FEW = "data.labelled_share=0.5"  # half of each batch has labels, so that no objective learns from empty batches
RATE = "optimizer.lr=0.016"  # what most objectives choose of the two where all labels are known
SETTINGS = {
    "all": Setting("All labels"),
    "tenth": Setting("A tenth of the labels", ("data.label_fraction=0.1", FEW)),
    "hundredth": Setting("A hundredth of the labels", ("data.label_fraction=0.01", FEW)),
    "unseen": Setting("Characters that training never saw", classes="unseen"),
}


def written(name: str) -> Path:
    """The setting's own experiment file, in its folder of results."""
    setting, values = SETTINGS[name], yaml.safe_load(FILE.read_text(encoding="utf-8"))
    values["words"] += setting.words
    if setting.classes == "unseen":
        apart = yaml.safe_load((FILE.parent / "hex_unseen.yaml").read_text(encoding="utf-8"))["words"]
        values["words"] += [word for word in apart if word.startswith("data.unseen_classes=")]
        # The first, by which learning rates are chosen, is of characters that training saw.
        values["measures"] = [f"seen:{values['measures'][0]}", *(f"unseen:{name}" for name in values["measures"])]
    if name != "all":
        values["words"].append(RATE)
        del values["choose"]
        for arm in values["arms"].values():
            arm.pop("grid", None)
    values["title"] = f"{setting.title}: {values['title']}"
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False, width=120), encoding="utf-8")
    return path


def better(measure: str) -> int:
    """1 where more of a ruler is better, else -1."""
    return -1 if measure.rpartition("/")[2] in LOWER else 1


def told(cell: dict[str, Any], best: bool) -> str:
    """Mean, and the paired difference to the baseline; in bold the best mean, with a mark what is beyond chance."""
    text = f"**{cell['mean']:.2f}**" if best else f"{cell['mean']:.2f}"
    step = cell["difference"]
    if not step or step["low"] is None:
        return text
    mark = verdict(cell)
    return f"{text} ({step['mean']:+.2f} ± {(step['high'] - step['low']) / 2:.2f}){' ' + mark if mark else ''}"


def verdict(cell: dict[str, Any]) -> str:
    """Whether an arm is better (▲) or worse (▼) than the baseline after Holm's correction; empty for neither."""
    step = cell["difference"]
    if not step or cell["p_holm"] is None or cell["p_holm"] >= 0.05:
        return ""
    return "▲" if step["mean"] * better(cell["measure"]) > 0 else "▼"


def table(found: dict[str, Any]) -> str:
    """A line an objective, a column a ruler, the best of the first ruler on top."""
    measures = found["measures"]
    arms: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in found["cells"]:
        arms.setdefault(cell["arm"], {})[cell["measure"]] = cell
    order = sorted(arms, key=lambda arm: -arms[arm][measures[0]]["mean"] * better(measures[0]))
    best = {m: max(cells[m]["mean"] * better(m) for cells in arms.values()) for m in measures}
    heads = [f"{m}{' ↓' if better(m) < 0 else ''}" for m in measures]
    lines = [["objective", "seeds", *heads]]
    for arm in order:
        cells = arms[arm]
        row = [told(cells[m], math.isclose(cells[m]["mean"] * better(m), best[m])) for m in measures]
        lines.append([arm, str(cells[measures[0]]["seeds"]), *row])
    return markdown_table(lines)


def losers(found: dict[str, Any]) -> list[str]:
    """What the table says for and against the objectives, in words."""
    lines, silent, baseline = [], [], found["baseline"]
    for measure in found["measures"]:
        cells = [cell for cell in found["cells"] if cell["measure"] == measure]
        won, lost = ([cell["arm"] for cell in cells if verdict(cell) == mark] for mark in "▲▼")
        if won or lost:
            told = f"better than {baseline}: {', '.join(won) or 'none'}; worse: {', '.join(lost) or 'none'}"
            lines.append(f"* `{measure}`: {told}.")
        else:
            silent.append(f"`{measure}`")
    return [*lines, f"* No difference beyond chance: {', '.join(silent)}."] if silent else lines


INTRODUCTION = """# Leaderboard

Which objective learns a hierarchy, and does that help? All objectives with labels that the library has, and SimCLR
without, on `glyphs` (350 characters in 61 groups of 11 scripts, drawn in many fonts), at equal budget: the same
12,000 images, batches, augmentations, optimizer and 8 epochs of a small network. Of two learning rates each objective
has the one that is better on held-out fonts in `{first}` where all labels are known. Most choose the larger one,
which all have in the other settings; it is at the edge of the grid: four times as much, tried for cross-entropy
alone, was better still in that choice (97.5 to 96.6). So the tables compare objectives at one budget, and not each at
its best. Measured are the features of the backbone, on fonts that training never saw; an objective's own head takes
no part, and where it had few labels, its measure has all.

`{command}` makes this page, and does what is missing of the runs.

A cell is the mean over the seeds and, in brackets, the difference to `{baseline}` over the same seeds with half the
width of its 95 % interval by Student's t. **Bold** is the best mean of a column; ▲ and ▼ are differences that stay
beyond chance (p < .05) once all comparisons of the table are corrected for (Holm); without a mark the seeds don't tell.
↓: less is better. The rulers are told in [evaluate.md](evaluate.md), the objectives in
[hierarchical.md](hierarchical.md).
"""


def page() -> None:
    """Write docs/leaderboard.md from the reports that are there."""
    values = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    words = {"first": values["measures"][0], "baseline": values["baseline"]}
    parts = [INTRODUCTION.format(command="python benchmarks/hierarchy.py glyphs.npz", **words)]
    for name, setting in SETTINGS.items():
        report = RESULTS / name / "report.json"
        found = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {"cells": []}
        parts.append(f"## {setting.title}")
        if not found["cells"]:
            parts.append("Not run yet.")
            continue
        parts += [table(found), "\n".join(losers(found))]
        if found["choices"]:
            parts.append("Learning rates: " + "; ".join(line.rpartition(";")[0] for line in found["choices"]) + ".")
    PAGE.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    print(f"page: {PAGE}")


def main() -> None:
    """Run the settings that are asked for, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="glyphs.npz")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--do", choices=["run", "cost", "report"], default="run")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int)
    given = parser.parse_args()
    for name in given.only:
        path = os.path.relpath(written(name))
        words = [path, f"out={os.path.dirname(path)}", f"do={given.do}", f"jobs={given.jobs}", "keep=false"]
        words += [f"seeds={given.seeds}"] if given.seeds is not None else []
        experiment([*words, f"data.train_path={given.data}"])
    page()


if __name__ == "__main__":
    main()
