"""Does HEX help? Objectives side by side on Fashion-MNIST: same budget, paired seeds.

    python benchmarks/hex_gain.py [--seeds 5] [--epochs 10] [--fraction 0.5] [--jobs 2] [--out hex_gain] [key=value ...]

Every run is the command that a user would type: `solo pretrain` with the recipe `scripts/pretrain/fashion_mnist
simclr.yaml` and another `type`, then `solo linear` and `solo knn` on frozen features. What is finished in `--out` is
not run again: the benchmark can be stopped, and goes on with more seeds or objectives. One seed sets the initial
weights, the order of the images and their augmentations for every objective: the differences are paired. Printed at
the end: mean and standard deviation over the seeds, and the difference to `standard` with its t interval and p value.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runs import (
    ROOT,
    check_settings,
    difference,
    finished,
    of_differences,
    read,
    run_all,
    show,
    slug,
    spread,
    write_csv,
)

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


def run(objective: str, seed: int, out: Path, overrides: Sequence[str], threads: int) -> dict[str, Any]:
    """Pretrain and evaluate once, in `out/<objective>-<seed>/`."""
    folder = out / f"{slug(objective)}-{seed}"
    words = [*OBJECTIVES[objective], *SETTINGS, *overrides]
    place = f"checkpoint.dir={folder}"
    quiet = [f"seed={seed}", place, "devices=1", "progress=off", "tensorboard.enabled=False"]
    trained = finished(folder / "simclr", "pretrain", [*recipe("pretrain", "simclr.yaml"), *words, *quiet], threads)
    source = f"pretrained_feature_extractor={trained}"
    words = [*recipe("linear", "linear.yaml"), source, "max_epochs=20", *quiet]
    linear = finished(folder / "linear", "linear", words, threads)
    knn = finished(folder / "knn", "knn", [*recipe("knn", "knn.yaml"), source, *KNN, place], threads)
    levels = read(linear / "summary.json")["levels"]
    return {
        "objective": objective,
        "seed": seed,
        "linear": {level: row["val_acc1"] for level, row in levels.items()},
        "knn": {level: read(knn / "knn.json")["results"][0][f"{level}_acc1"] for level in levels},
    }


def recipe(command: str, file: str) -> tuple[str, str]:
    """The words that name it."""
    return str(ROOT / "scripts" / command / "fashion_mnist"), file


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
                row[-1] += f"  ({difference(values, base, _comparisons(results))})"
        rows.append(row)
    return rows


def _comparisons(results: Sequence[dict[str, Any]]) -> int:
    return len(MEASURES) * max(1, len({row["objective"] for row in results}) - 1)


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
    overrides = [f"max_epochs={given.epochs}", f"data.fraction={given.fraction}", *given.overrides]
    check_settings(given.out / "settings.json", [*SETTINGS, *overrides])
    cases = [(name, seed, given.out.resolve(), overrides) for seed in range(given.seeds) for name in given.objectives]
    results = run_all(run, cases, given.jobs)
    report(results, given.out / "results.csv")


def report(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Print the table and write the single results."""
    title = f"Top-1 in percent: mean ± deviation over the seeds; {of_differences('standard', _comparisons(results))}"
    show(title, ["objective", *MEASURES], table(results), 200)
    single = [
        [row["objective"], row["seed"], *(row[kind][level] for kind, level in MEASURES.values())] for row in results
    ]
    write_csv(path, ["objective", "seed", *MEASURES], single)


if __name__ == "__main__":
    main()
