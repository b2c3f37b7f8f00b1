"""Do all the labels help? Two levels of labels, one, and none, on Fashion-MNIST: same budget, paired seeds.

    python benchmarks/use_all_labels.py [--seeds 3] [--epochs 10] [--fraction 0.05] [--jobs 1] [--out use_all_labels]
        [--tables all unseen tenth] [key=value ...]

Every run is a command that a user would type: `solo pretrain` with a recipe of `scripts/pretrain/fashion_mnist`, then
`solo evaluate` on frozen features of all validation images. What is finished in `--out` is not run again. Printed at
the end, mean over the seeds and the paired difference to the first row with its t interval:

* `all`: every training image has its labels, group and class; the image is the leaf;
* `unseen`: two of the ten classes have no image in pretraining, and only these two are measured;
* `tenth`: a tenth of the training images has labels. The one system learns from all images, by labels alone and with
  HEX, half of each batch with labels, or a tenth as they come; labels only: from as many images, all with labels, in
  ten times the epochs; no labels: from all images.
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

# Budget of a run; the rest is the recipes'.
SETTINGS = ["backbone.kwargs.width=16", "knn_eval.enabled=False", "limit_val_batches=0"]
# A tenth of the training images votes; all validation images are measured.
EVALUATE = [
    "measures=[knn,retrieval,clustering]",
    "data.fraction=0.1",
    "max_queries=2000",
    "intervals=false",
    "cache=False",
]
UNSEEN = ["data.unseen_classes=2"]
TENTH = ["data.label_fraction=0.1"]
HALF = [*TENTH, "data.labelled_share=0.5"]
FLAT = ("himulcone", "supcon", "simclr", "crossentropy")
# Table -> row -> recipe, further words, and share of the images, for as many times the epochs.
TABLES: dict[str, dict[str, tuple[str, list[str], float]]] = {
    "all": {
        **{name: (name, [], 1.0) for name in FLAT},
        "himulcone, pair by pair": ("himulcone", ["method_kwargs.granularity=pair"], 1.0),
    },
    "unseen": {name: (name, UNSEEN, 1.0) for name in FLAT},
    "tenth": {
        "one system: himulcone": ("himulcone", HALF, 1.0),
        "one system: himulcon, HEX_adaptive": ("hex_himulcon", HALF, 1.0),
        "one system, images as they come": ("himulcone", TENTH, 1.0),
        "labels only: himulcone": ("himulcone", [], 0.1),
        "labels only: crossentropy": ("crossentropy", [], 0.1),
        "no labels: simclr": ("simclr", [], 1.0),
    },
}
MEASURES = {
    "kNN, class": ("class", "knn_acc1"),
    "kNN, group": ("group", "knn_acc1"),
    "MAP@R, class": ("class", "map_at_r"),
    "MAP@R, group": ("group", "map_at_r"),
    "NMI, class": ("class", "nmi"),
    "NMI, group": ("group", "nmi"),
}


def run(
    table: str, row: str, seed: int, out: Path, epochs: int, fraction: float, words: list[str], threads: int
) -> tuple[str, str, int, dict[str, Any]]:
    """Pretrain and evaluate once, in `out/<recipe and settings>-<seed>/`; what tables have in common is run once."""
    recipe, extra, share = TABLES[table][row]
    folder = place_of(table, row, seed, out)
    place = f"checkpoint.dir={folder}"
    budget = [f"max_epochs={round(epochs / share)}", f"data.fraction={fraction * share}"]
    quiet = [f"seed={seed}", place, "devices=1", "progress=off", "tensorboard.enabled=False"]
    method = recipe.removeprefix("hex_")
    pretrain = [str(ROOT / "scripts/pretrain/fashion_mnist"), f"{recipe}.yaml", *SETTINGS, *budget, *extra, *words]
    trained = finished(folder / method, "pretrain", [*pretrain, *quiet], threads)
    evaluate = [f"checkpoint={trained}", *EVALUATE, place]
    found = read(finished(folder / "evaluate", "evaluate", evaluate, threads) / "evaluate.json")["results"]
    which = "unseen" if table == "unseen" else "all"
    levels = {level["level"]: level for result in found if result["classes"] == which for level in result["levels"]}
    return (
        table,
        row,
        seed,
        {name: percent(levels.get(level, {}).get(key), key) for name, (level, key) in MEASURES.items()},
    )


def percent(value: float | None, key: str) -> float | None:
    """NMI in percent, as the others are."""
    return value if value is None or key != "nmi" else 100 * value


def place_of(table: str, row: str, seed: int, out: Path) -> Path:
    """The folder of its runs."""
    recipe, extra, share = TABLES[table][row]
    return out / f"{slug('-'.join([recipe, *extra, str(share)]))}-{seed}"


def rows(results: Sequence[Any], table: str) -> list[list[str]]:
    """Rows of a printed table; only seeds that every row has."""
    found = {(row, seed): values for name, row, seed, values in results if name == table}
    names = list(TABLES[table])
    seeds = sorted({seed for _, seed in found if all((name, seed) in found for name in names)})
    printed = []
    for name in names:
        cells = [name]
        for measure in MEASURES:
            values = [found[name, seed][measure] for seed in seeds]
            base = [found[names[0], seed][measure] for seed in seeds]
            if not seeds or None in values:
                cells.append("-")
            else:
                cells.append(spread(values))
                if name != names[0]:
                    cells[-1] += f" ({difference(values, base, _comparisons(table))})"
        printed.append(cells)
    return printed


def _comparisons(table: str) -> int:
    return len(MEASURES) * (len(TABLES[table]) - 1)


def report(results: Sequence[Any], tables: Sequence[str], path: Path) -> None:
    """Print the tables and write the single results."""
    for table in tables:
        words = of_differences("the first row", _comparisons(table))
        title = f"{table}, in percent: mean ± deviation over the seeds; {words}"
        show(title, ["method", *MEASURES], rows(results, table), 260)
    single = [[table, row, seed, *values.values()] for table, row, seed, values in results]
    write_csv(path, ["table", "method", "seed", *MEASURES], single)


def main() -> None:
    """Run what is missing, print the tables, write `results.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--fraction", type=float, default=0.05, help="share of the training images")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the cores")
    parser.add_argument("--out", type=Path, default=Path("use_all_labels"))
    parser.add_argument("--report", action="store_true", help="run nothing, print what is finished")
    parser.add_argument("overrides", nargs="*", help="further keys of pretraining, for example backbone.name=resnet18")
    given = parser.parse_args()
    budget = (given.epochs, given.fraction, given.overrides)
    check_settings(given.out / "settings.json", [*SETTINGS, *map(str, budget)])
    cases = [
        (table, row, seed, given.out.resolve(), *budget)
        for seed in range(given.seeds)
        for table in given.tables
        for row in TABLES[table]
    ]
    if given.report:
        cases = [case for case in cases if list(place_of(*case[:4]).glob("evaluate/*/evaluate.json"))]
    report(run_all(run, cases, given.jobs), given.tables, given.out / "results.csv")


if __name__ == "__main__":
    main()
