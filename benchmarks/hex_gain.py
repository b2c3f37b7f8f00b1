"""Does HEX help? Objectives side by side on Fashion-MNIST: same budget, paired seeds.

    python benchmarks/hex_gain.py [--seeds 5] [--epochs 10] [--fraction 0.5] [--jobs 2] [--out hex_gain] [key=value ...]

Every run is the command that a user would type: `solo pretrain` with the recipe `scripts/pretrain/fashion_mnist
simclr.yaml` and another `type`, then `solo linear` and `solo knn` on frozen features. What is finished in `--out` is
not run again: the benchmark can be stopped, and goes on with more seeds or objectives. One seed sets the initial
weights, the order of the images and their augmentations for every objective: the differences are paired. Printed at
the end: mean and standard deviation over the seeds, and the difference to `standard` with its standard error.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).parents[1]
WARM_UP = "warm_epoch=2"
OBJECTIVES = {
    "standard": ["type=standard"],
    "DCL": ["type=DCL"],
    "HCL": ["type=HCL"],
    "HEX_adaptive": ["type=HEX_adaptive", WARM_UP],
    "HEX_adaptive, release": ["type=HEX_adaptive", WARM_UP, "hex.variant=release"],
    "superclass": ["type=superclass", WARM_UP],
}
# Budget of a run; the rest is the recipe's.
SETTINGS = ["backbone.kwargs.width=16", "knn_eval.enabled=False"]
KNN = ["distance_function=[cosine]", "k=[20]", "temperature=[0.07]"]
MEASURES = {
    "kNN, class": ("knn", "class"),
    "kNN, group": ("knn", "group"),
    "linear, class": ("linear", "class"),
    "linear, group": ("linear", "group"),
}


def solo(*words: str, threads: int) -> None:
    """Run a command of the library, quietly; show its output if it fails."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "solo", *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")


def run(objective: str, seed: int, out: Path, threads: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Pretrain and evaluate once, in `out/<objective>-<seed>/`."""
    folder = out / f"{''.join(c if c.isalnum() else '-' for c in objective)}-{seed}"
    words = [*OBJECTIVES[objective], *SETTINGS, *overrides]
    place = f"checkpoint.dir={folder}"
    quiet = [f"seed={seed}", place, "devices=1", "progress=off", "tensorboard.enabled=False"]
    trained = finished(folder / "simclr", "pretrain", "simclr.yaml", [*words, *quiet], threads)
    source = f"pretrained_feature_extractor={trained}"
    linear = finished(folder / "linear", "linear", "linear.yaml", [source, "max_epochs=20", *quiet], threads)
    knn = finished(folder / "knn", "knn", "knn.yaml", [source, *KNN, place], threads)
    levels = read(linear / "summary.json")["levels"]
    return {
        "objective": objective,
        "seed": seed,
        "linear": {level: row["val_acc1"] for level, row in levels.items()},
        "knn": {level: read(knn / "knn.json")["results"][0][f"{level}_acc1"] for level in levels},
    }


def finished(folder: Path, command: str, recipe: str, words: Sequence[str], threads: int) -> Path:
    """The folder of a finished run of the command below `folder`; runs it where there is none."""
    for attempt in range(2):
        for path in sorted(folder.glob("*/knn.json" if command == "knn" else "*/summary.json")):
            if read(path).get("status", "finished") == "finished":
                return path.parent
        if attempt == 0:
            solo(command, str(ROOT / "scripts" / command / "fashion_mnist"), recipe, *words, threads=threads)
    raise SystemExit(f"{command} left no finished run in {folder}")


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())


def table(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows of the printed table; only seeds that every objective has."""
    found = {(row["objective"], row["seed"]): row for row in results}
    seeds = sorted({seed for _, seed in found})
    rows = []
    for objective in dict.fromkeys(row["objective"] for row in results):
        row = [objective]
        for kind, level in MEASURES.values():
            values = [found[objective, seed][kind][level] for seed in seeds]
            row.append(spread(values))
            if objective != "standard":
                base = [found["standard", seed][kind][level] for seed in seeds]
                row[-1] += f"  ({difference(values, base)})"
        rows.append(row)
    return rows


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def difference(values: Sequence[float], base: Sequence[float]) -> str:
    """Mean of the paired differences and its standard error."""
    paired = [value - other for value, other in zip(values, base, strict=True)]
    error = f" ± {statistics.stdev(paired) / len(paired) ** 0.5:.2f}" if len(paired) > 1 else ""
    return f"{statistics.mean(paired):+.2f}{error}"


def main() -> None:
    """Run what is missing, print the table, write `results.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--fraction", type=float, default=0.5, help="share of the training images, -1 for all")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; they share the cores")
    parser.add_argument("--out", type=Path, default=Path("hex_gain"))
    parser.add_argument("overrides", nargs="*", help="further keys of pretraining, for example backbone.name=resnet18")
    given = parser.parse_args()
    if "standard" not in given.objectives:
        parser.error("--objectives needs standard, which the others are compared with")
    given.out.mkdir(parents=True, exist_ok=True)
    overrides = [f"max_epochs={given.epochs}", f"data.fraction={given.fraction}", *given.overrides]
    check_settings(given.out / "settings.json", overrides)
    threads = max(1, (os.cpu_count() or 1) // given.jobs) if not torch.cuda.is_available() else 4
    cases = [(objective, seed) for seed in range(given.seeds) for objective in given.objectives]
    with ThreadPoolExecutor(given.jobs) as pool, Progress(transient=True) as progress:
        bar = progress.add_task("runs", total=len(cases))
        futures = [pool.submit(run, *case, given.out.resolve(), threads, overrides) for case in cases]
        for future in futures:
            future.add_done_callback(lambda _: progress.advance(bar))
        try:
            results = [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    report(results, given.out / "results.csv")


def check_settings(path: Path, overrides: Sequence[str]) -> None:
    """Results of another budget must not be mixed in."""
    settings = [*SETTINGS, *overrides]
    if path.is_file() and read(path) != settings:
        raise SystemExit(f"{path.parent} holds runs with {read(path)}, asked for are {settings}; give another --out")
    path.write_text(json.dumps(settings))


def report(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Print the table and write the single results."""
    shown = Table(title="Top-1 in percent; in brackets the paired difference to standard ± its standard error")
    for name in ("objective", *MEASURES):
        shown.add_column(name)
    for row in table(results):
        shown.add_row(*row)
    Console(width=160).print(shown)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["objective", "seed", *MEASURES])
        for row in results:
            measured = [row[kind][level] for kind, level in MEASURES.values()]
            writer.writerow([row["objective"], row["seed"], *measured])


if __name__ == "__main__":
    main()
