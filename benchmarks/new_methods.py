"""The table of docs/measured.md: each new method against its nearest older one, seed by seed.

Of the rows of `solo experiment`:

    python benchmarks/new_methods.py [benchmarks/results/new_methods]
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from solo.analysis.figure import markdown_table
from solo.eval.intervals import paired

NEAREST = {
    **{"siglip": "simclr", "lejepa": "vicreg", "frossl": "barlow_twins", "lightly: DCLLoss": "simclr"},
    **{"lightly: TiCoLoss": "barlow_twins", "dinov2": "dino", "ijepa": "mae"},
}
MEASURES = {"kNN": "knn_acc1", "linear": "linear_acc1"}


def table(file: Path) -> list[list[str]]:
    """A line for each new method of one experiment."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
        if row["choice"] is None:
            level = max(row["numbers"]["all"].values(), key=lambda level: level["classes"])
            found.setdefault(row["arm"], {})[row["seed"]] = {**level, "cost": row["cpu_seconds"]}
    lines = []
    for new, old in NEAREST.items():
        seeds = sorted(found.get(new, {}).keys() & found.get(old, {}).keys())
        if len(seeds) > 1:
            ours, theirs = ([found[arm][seed] for seed in seeds] for arm in (new, old))
            cells = []
            for name in MEASURES.values():
                step = paired([a[name] - b[name] for a, b in zip(ours, theirs, strict=True)])
                cells.append(f"{statistics.fmean(row[name] for row in ours):.2f}")
                cells.append(f"{step.says}: {step.mean:+.2f} [{step.low:.2f}, {step.high:.2f}]")
            cost = sum(row["cost"] for row in ours) / sum(row["cost"] for row in theirs)
            lines.append([file.parent.name, new, old, str(len(seeds)), *cells, f"{cost:.2f}"])
    return lines


def main(folder: Path) -> None:
    """Print it."""
    heading = ["rows of", "new", "nearest", "seeds"]
    for name in MEASURES:
        heading += [name, f"{name}, difference [95 %]"]
    lines = [line for file in sorted(folder.glob("*/rows.jsonl")) for line in table(file)]
    print(markdown_table([[*heading, "time"], *lines]))


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "benchmarks/results/new_methods"))
