"""How often the 95 % intervals of `solo evaluate` cover the truth: `python benchmarks/coverage.py [--runs 400]`.

Images of ten classes around random centres are drawn again and again, and measured; the noise is chosen so that the
measure is on average 50, 90 or 99 %. Printed is how often the interval holds that average: 95 % is nominal. Where
training images vote (linear, kNN), they stay the same, and an image is right by itself: there
coverage is a binomial sum. The paired t interval is tried on normal differences of 3 to 10 seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import binom

from solo.eval.features import Features, FeatureTable
from solo.eval.intervals import of_independent, paired
from solo.eval.suite import Protocol, evaluate

CLASSES, WIDTH = 10, 16
# Number of `solo evaluate` -> the measure that gives it.
MEASURES = {"retrieval_top1": "retrieval", "r_precision": "retrieval", "map_at_r": "retrieval", "knn_acc1": "knn"}
_CPU = torch.device("cpu")


def draw(count: int, noise: float, generator: torch.Generator) -> Features:
    """Images of the ten classes."""
    centres = torch.nn.functional.normalize(torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0)))
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    rows = centres[labels] + noise * torch.randn(count, WIDTH, generator=generator)
    return Features("drawn", "backbone", FeatureTable(rows, labels[:, None]), levels=("class",))


def measured(name: str, count: int, noise: float, generator: torch.Generator, intervals: bool) -> Sequence[float]:
    """The number in percent and, if wanted, the ends of its interval."""
    protocol = Protocol((MEASURES[name],), top_k=(1,), intervals=intervals)
    (result,) = evaluate(draw(count, noise, generator), protocol, _CPU)
    level = result["levels"][0]
    return [level[name], *(level[f"{name}_ci"] if intervals else ())]


def noise_of(name: str, count: int, accuracy: float) -> float:
    """The noise at which the number is that on average, by bisection."""
    low, high = 0.01, 3.0
    for _ in range(12):
        middle, generator = (low * high) ** 0.5, torch.Generator().manual_seed(1)
        draws = max(3, 4000 // count)
        mean = np.mean([measured(name, count, middle, generator, False)[0] for _ in range(draws)])
        low, high = (middle, high) if mean > accuracy else (low, middle)
    return float((low * high) ** 0.5)


def coverage(name: str, count: int, noise: float, runs: int, seed: int = 2) -> float:
    """Share of the runs whose interval holds the mean of all runs, in percent."""
    generator = torch.Generator().manual_seed(seed)
    found = np.array([measured(name, count, noise, generator, True) for _ in range(runs)])
    truth = found[:, 0].mean()
    return float(100 * np.mean((found[:, 1] <= truth) & (truth <= found[:, 2])))


def coverage_of_independent(count: int, accuracy: float) -> float:
    """The same of independent images, in percent: the exact sum over the binomial distribution and both coins."""
    right, truth = np.arange(count + 1), accuracy / 100
    ends = np.array([[of_independent(one / count, count, coin) for one in right] for coin in (False, True)])
    held = ((ends[..., 0] <= truth) & (truth <= ends[..., 1])).mean(axis=0)
    return float(100 * binom.pmf(right, count, truth) @ held)


def coverage_of_pairs(seeds: int, runs: int, seed: int = 2) -> float:
    """Of paired differences of so many seeds, in percent."""
    values = torch.randn(runs, seeds, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3
    ends = [paired(row.tolist()) for row in values]
    return 100 * sum(one.low <= 0.3 <= one.high for one in ends) / runs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 400, 2000])
    parser.add_argument("--accuracies", type=float, nargs="+", default=[50, 90, 99])
    given = parser.parse_args()
    cells = [(count, accuracy) for count in given.images for accuracy in given.accuracies]
    heads = [f"{count:,}, {accuracy:g} %" for count, accuracy in cells]
    table = Table("number", *heads, title=f"coverage in percent of {given.runs:,} runs (nominal: 95)")
    table.add_row("linear, kNN", *(f"{coverage_of_independent(*cell):.1f}" for cell in cells))
    for name in MEASURES:
        shown = "knn_acc1, leave-one-out" if name == "knn_acc1" else name
        bar = track(cells, shown, transient=True)
        table.add_row(shown, *[f"{coverage(name, cell[0], noise_of(name, *cell), given.runs):.1f}" for cell in bar])
    console = Console(width=60 + 14 * len(cells))
    console.print(table)
    pairs = (f"{seeds} seeds {coverage_of_pairs(seeds, 20_000):.1f}" for seeds in (3, 5, 10))
    console.print(f"paired t interval: {', '.join(pairs)}")


if __name__ == "__main__":
    main()
