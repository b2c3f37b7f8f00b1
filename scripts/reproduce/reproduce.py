"""The tables of both papers, one command each: trains and evaluates each row, and prints the paper's beside ours.

    python scripts/reproduce/reproduce.py                     which tables there are
    python scripts/reproduce/reproduce.py hex-8 --dry         what would run, what it costs, what the paper has
    python scripts/reproduce/reproduce.py hex-8 --seeds 1 2 3 data.train_path=DATA

Every run has a folder of its own; the same command goes on where it was stopped. Words `KEY=VALUE` go to every run. The
rows of the HEX paper are recipes `paper_METHOD`, which have its Table 6 (scripts/pretrain/table_6.yaml). Figures: see
docs/reproduce.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
IMAGES = {"cifar100": 50_000, "imagenet": 1_281_167, "inat21": 2_686_843, "inshop": 25_882, "modelnet40": 9_843}
IMAGES |= {"cars": 8_144, "flowers": 2_040, "nabirds": 23_929, "caltech101": 3_060, "dogs": 12_000, "pets": 3_680}
IMAGES |= {"aircraft": 6_667, "cub200": 5_994}


@dataclass(frozen=True)
class Row:
    """One row of a table: what is trained, what is measured, and what the paper has.

    Attributes:
        label: as in the paper.
        dataset: folder below `scripts/pretrain`.
        recipe: name of the recipe.
        paper: measure -> the paper's number, in percent (NMI: 0 to 1).
        words: what differs from the recipe.
        then: the evaluation: `linear`, `finetune:semi_1_percent`, or `evaluate`.
        after: words of the evaluation.
    """

    label: str
    dataset: str
    recipe: str
    paper: dict[str, float]
    words: tuple[str, ...] = ()
    then: str = "linear"
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of a paper, or a figure whose numbers are known."""

    title: str
    rows: list[Row]
    note: str = ""
    command: str = field(default="")


def _top(one: float, five: float | None = None) -> dict[str, float]:
    return {"val_acc1": one} if five is None else {"val_acc1": one, "val_acc5": five}


def _fixed(start: float, end: float, how: str, one: float, five: float) -> Row:
    words = ["type=HEX_fixed", f"hex.distance_thresh={start}", f"hex.distance_min={end}"]
    words += ["hex.step_type=cos"] if how == "cos" else ["hex.step_type=step", f"hex.step_down={how}"]
    return Row(f"{start} to {end}, {how}", "cifar100", "paper_hex", _top(one, five), tuple(words))


def _fine_grained() -> Iterator[Row]:
    paper = {
        "cars": (42.92, 71.99, 46.60, 75.66),
        "flowers": (32.94, 59.22, 28.63, 55.88),
        "nabirds": (21.83, 45.19, 22.26, 45.67),
        "caltech101": (72.60, 93.79, 73.73, 94.35),
        "dogs": (42.06, 73.75, 47.40, 77.95),
        "pets": (47.78, 81.90, 53.23, 85.88),
        "aircraft": (30.03, 57.82, 29.07, 56.68),
        "cub200": (19.49, 43.22, 20.76, 47.36),
    }
    for name, (a1, a5, b1, b5) in paper.items():
        yield Row(f"{name}: NNCLR", name, "paper_nnclr", _top(a1, a5))
        yield Row(f"{name}: NNCLR + HEX", name, "paper_hex_nnclr", _top(b1, b5))


_LABELS = ("simclr", "crossentropy", "supcon", "guided", "himulcon", "hicone", "himulcone")


def _labels(
    dataset: str, measure: str, values: dict[str, float], then: str, after: tuple[str, ...] = ()
) -> Iterator[Row]:
    """Rows of Use All The Labels; these folders' recipes have its setting."""
    for name, value in values.items():
        yield Row(f"{dataset}: {name}", dataset, name, {measure: value}, (), then, after)


def _each(*values: float, names: tuple[str, ...] = _LABELS) -> dict[str, float]:
    return dict(zip(names, values, strict=True))


_ONE = (*_LABELS[:4], "himulcone")
_POSTER = (("simclr", 57.74), ("hex", 59.03), ("nnclr", 62.47), ("hex_nnclr", 65.96))
_SEMI = (("simclr", 29.61), ("hex", 33.72), ("nnclr", 39.94), ("hex_nnclr", 46.00))

TABLES: dict[str, Table] = {
    "hex-7": Table(
        "HEX, Table 7: thresholds set by hand, CIFAR-100",
        [
            _fixed(0.95, 0.65, "cos", 66.63, 88.96),
            _fixed(0.85, 0.45, "cos", 60.57, 86.37),
            _fixed(0.95, 0.65, "0.1", 66.20, 89.04),
            _fixed(0.85, 0.45, "0.1", 65.63, 88.18),
            _fixed(0.95, 0.65, "0.05", 66.23, 88.70),
            _fixed(0.85, 0.45, "0.05", 65.08, 88.29),
            Row("adaptive", "cifar100", "paper_hex", _top(67.56, 90.02)),
        ],
    ),
    "hex-8": Table(
        "HEX, Table 8: re-weighting with and without hierarchy, CIFAR-100",
        [
            Row("HCL", "cifar100", "paper_simclr", _top(64.64), ("type=HCL",)),
            Row("SimCLR", "cifar100", "paper_simclr", _top(64.46)),
            Row("HEX", "cifar100", "paper_hex", _top(67.56)),
            Row("HEX, what the public release trains", "cifar100", "paper_hex", _top(67.56), ("hex.variant=release",)),
        ],
        "The last row is ours: the release of HEX computes another loss than the paper prints (README).",
    ),
    "hex-9": Table("HEX, Table 9: pretrained on fine-grained data", list(_fine_grained())),
    "hex-10": Table(
        "HEX, Table 10: iNaturalist 2021",
        [
            Row("SimCLR", "inat21", "paper_simclr", _top(20.67, 38.64)),
            Row("SimCLR + HEX, adaptive", "inat21", "paper_hex", _top(22.01, 40.92)),
            Row("SimCLR + HEX, superclass", "inat21", "paper_hex", _top(23.35, 42.94), ("type=superclass",)),
        ],
    ),
    "hex-11": Table(
        "HEX, Table 11: All4One on ImageNet, 50 epochs",
        [
            Row("All4One", "imagenet", "paper_all4one", _top(52.83, 78.29), ("max_epochs=50",)),
            Row("All4One + HEX", "imagenet", "paper_hex_all4one", _top(54.30, 79.09), ("max_epochs=50",)),
        ],
    ),
    "hex-imagenet": Table(
        "HEX, poster: ImageNet, 100 epochs",
        [Row(name, "imagenet", f"paper_{name}", _top(value)) for name, value in _POSTER],
    ),
    "hex-semi": Table(
        "HEX, poster: ImageNet, 1 % of the labels",
        [Row(name, "imagenet", f"paper_{name}", _top(value), then="finetune:semi_1_percent") for name, value in _SEMI],
    ),
    "labels-1": Table(
        "Use All The Labels, Table 1: top-1 of the category, on the full data sets",
        [
            *_labels(
                "inshop", "category linear_acc1", _each(70.38, 72.44, 72.82, 72.61, 73.21, names=_ONE), "evaluate"
            ),
            *_labels(
                "modelnet40", "category linear_acc1", _each(79.26, 81.31, 81.60, 83.49, 88.46, names=_ONE), "evaluate"
            ),
        ],
        "The paper's classifier trains for 40 epochs by SGD, ours is solved to its optimum, for every level by itself.",
    ),
    "labels-2": Table(
        "Use All The Labels, Table 2: top-1 on classes that pretraining never saw",
        [
            *_labels(
                "inshop",
                "unseen category linear_acc1",
                _each(68.12, 71.94, 73.93, 74.04, 74.88, 75.28, 75.29),
                "evaluate",
            ),
            *_labels(
                "modelnet40",
                "unseen category linear_acc1",
                _each(72.26, 79.77, 79.28, 82.22, 84.44, 84.40, 85.37),
                "evaluate",
            ),
        ],
        "Give data.unseen_classes=N to every run; the paper doesn't say which classes it left out.",
    ),
    "labels-4": Table(
        "Use All The Labels, Table 4: MAP@R",
        [
            *_labels("inshop", "map_at_r", _each(31.5, 35.6, names=("supcon", "himulcone")), "evaluate"),
            *_labels("modelnet40", "map_at_r", _each(21.6, 26.0, names=("supcon", "himulcone")), "evaluate"),
        ],
    ),
}


def main() -> int:
    """Read the command line; list, show or run a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=TABLES, metavar="TABLE")
    parser.add_argument("--dry", action="store_true", help="say what would run, and stop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[5])
    parser.add_argument("--runs", type=Path, default=Path("trained_models/reproduce"), help="folder of all runs")
    words = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    given = parser.parse_args([word for word in sys.argv[1:] if word not in words])
    if given.table is None:
        sys.stdout.write(
            "".join(f"{name:<14} {table.title}, {len(table.rows)} rows\n" for name, table in TABLES.items())
        )
        return 0
    table = TABLES[given.table]
    sys.stdout.write(f"{table.title}\n{table.note}\n" if table.note else f"{table.title}\n")
    if given.dry:
        for row in table.rows:
            _show(row, words)
        return 0
    results = given.runs / f"{given.table}.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.is_file() else {}
    for seed in given.seeds:
        for row in table.rows:
            numbers = _run(row, given.runs / given.table / row.label.replace(" ", "_").replace(":", ""), seed, words)
            found.setdefault(row.label, {})[str(seed)] = numbers
            results.parent.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps(found, indent=2) + "\n")  # after each run: nothing is lost
    sys.stdout.write("\n".join(_markdown(table, found, given.seeds)) + "\n")
    return 0


def _show(row: Row, words: list[str]) -> None:
    pretrain, after = commands_of(row, Path("RUNS"), 5, words)
    dry = [sys.executable, *pretrain[1:], "--cfg", "resolved"]
    told = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=False)
    if told.returncode:
        raise SystemExit(told.stderr.strip())
    read = dict(
        line.split("#")[0].split(": ", 1) for line in told.stdout.splitlines() if ": " in line and line[0] != "#"
    )
    epochs, network = int(read["max_epochs"]), read["backbone.name"].strip()
    cost = f"{epochs} epochs of {IMAGES[row.dataset]:,} images, two views, {network}"
    sys.stdout.write(
        f"\n{row.label}: {_told(row.paper)} in the paper; {cost}\n  {shlex.join(pretrain)}\n  {shlex.join(after)}\n"
    )


def commands_of(row: Row, folder: Path, seed: int, words: list[str]) -> tuple[list[str], list[str]]:
    """The two commands of a row."""
    common = [f"seed={seed}", f"checkpoint.dir={folder}", *words]
    pretrain = [
        "python",
        "main_pretrain.py",
        f"scripts/pretrain/{row.dataset}",
        f"{row.recipe}.yaml",
        *row.words,
        *common,
    ]
    kind, _, part = row.then.partition(":")
    source = f"pretrained_feature_extractor={folder}/PRETRAINED"
    if kind == "evaluate":
        return pretrain, ["python", "-m", "solo", "evaluate", source, *row.after, *common]
    script = [f"scripts/{kind}/{row.dataset}", f"{part or kind}.yaml"]
    return pretrain, ["python", "main_linear.py", *script, source, *row.after, *common]


def _run(row: Row, folder: Path, seed: int, words: list[str]) -> dict[str, float]:
    """Pretrain and evaluate, what is not done yet, and read the numbers."""
    folder = (folder / f"seed{seed}").resolve()
    pretrain, after = commands_of(row, folder, seed, words)
    if not _finished(folder / "pretrained"):
        call([*pretrain, "auto_resume.enabled=true", f"checkpoint.dir={folder / 'pretrained'}"])
    last = next(_finished(folder / "pretrained"))
    if not _finished(folder / "evaluated"):
        source = f"pretrained_feature_extractor={last.parent / 'last.ckpt'}"
        call([*(source if "PRETRAINED" in word else word for word in after), f"checkpoint.dir={folder / 'evaluated'}"])
    file = next(_finished(folder / "evaluated"))
    return _numbers(json.loads(file.read_text()), row)


class _finished:  # noqa: N801 (reads as a question)
    """The summaries of finished runs below a folder: true if there is one, and an iterator."""

    def __init__(self, folder: Path) -> None:
        files = [*folder.rglob("summary.json"), *folder.rglob("evaluate.json")] if folder.is_dir() else []
        self.files = [file for file in files if json.loads(file.read_text()).get("status", "finished") == "finished"]

    def __bool__(self) -> bool:
        return bool(self.files)

    def __next__(self) -> Path:
        return self.files[0]


def call(words: list[str]) -> None:
    """Run a command; end where it fails."""
    sys.stdout.write(f"\n$ {shlex.join(words)}\n")
    sys.stdout.flush()
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def _numbers(told: dict[str, Any], row: Row) -> dict[str, float]:
    """The measures of a row, `[seen|unseen] [LEVEL] NAME`; without a level the finest one."""
    found = {}
    for measure in row.paper:
        *where, name = measure.split()
        classes = next((word for word in where if word in ("seen", "unseen")), "all")
        level = next((word for word in where if word != classes), None)
        if "results" in told:
            rows = next(one for one in told["results"] if one["classes"] == classes)["levels"]
            found[measure] = float(next((one for one in rows if one["level"] == level), rows[-1])[name])
        else:
            found[measure] = float(told["levels"][level][name] if level else told[name])
    return found


def _markdown(table: Table, found: dict[str, Any], seeds: list[int]) -> Iterator[str]:
    yield f"\n| {table.title} | paper | here, mean ± standard deviation of {len(seeds)} seeds |"
    yield "|---|---|---|"
    for row in table.rows:
        runs = [found[row.label][str(seed)] for seed in seeds]
        ours = []
        for measure in row.paper:
            values = [run[measure] for run in runs]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            ours.append(f"{statistics.mean(values):.2f}{spread}")
        yield f"| {row.label} | {_told(row.paper)} | {', '.join(ours)} |"


def _told(paper: dict[str, float]) -> str:
    return ", ".join(f"{value:.2f} ({measure})" for measure, value in paper.items())


if __name__ == "__main__":
    sys.exit(main())
