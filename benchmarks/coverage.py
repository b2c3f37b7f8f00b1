"""How often the 95 % intervals cover the truth: `python benchmarks/coverage.py > benchmarks/results/coverage.md`.

Every kind of interval that `solo evaluate`, `solo analyze`, the report, the card and the other benchmarks print. Where
training images vote or teach, an image is right by itself, and coverage is a sum over the binomial distribution.
Where the measured images are each other's gallery, images of ten classes around random centres are drawn again and
again, and measured; the noise is chosen so that a number is 50, 90 or 99 % on average, and the interval should hold
that average. One series of draws serves several numbers where it comes close enough to their accuracy. The paired t
interval is tried on normal differences of 3 to 10 seeds. Numbers that can't be 90 % are tried at three noises.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.stats import binom

from solo.eval.features import Features, FeatureTable
from solo.eval.intervals import of_independent, paired
from solo.eval.suite import Protocol, evaluate
from solo.taxonomy import Taxonomy

CLASSES, WIDTH = 10, 16
_RETRIEVAL = ("retrieval_top1", "retrieval_top5", "retrieval_top10", "r_precision", "map_at_r")
# What is measured -> its measure, whether every second image is a query and the others its gallery, its numbers.
KINDS = {
    "retrieval": ("retrieval", False, _RETRIEVAL),
    "queries and gallery": ("retrieval", True, _RETRIEVAL),
    "kNN of each other": ("knn", False, ("knn_acc1", "knn_acc5")),
}
# Numbers that are tried at these noises: what is measured -> its measures, its numbers.
NOISES = (0.2, 0.4, 0.8)
FURTHER = {
    "a classifier": (("linear", "hierarchy"), ("linear_mean_per_class", "linear_ece", "linear_ece_summed", "hops")),
    "graded retrieval": (("retrieval", "hierarchy"), ("h_ap", "ndcg", "asi")),
    "several labels": (("linear",), ("map", "map_11")),
}
TREE = Taxonomy.from_groups("0123456789", {str(group): f"{2 * group}{2 * group + 1}" for group in range(5)})
CLOSE = {50: 4.0, 90: 1.2, 99: 0.3}  # how far the average may be from an accuracy
_CPU = torch.device("cpu")


def draw(count: int, noise: float, generator: torch.Generator, gallery: bool = False) -> Features:
    """Images of the ten classes."""
    centres = torch.nn.functional.normalize(torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0)))
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    rows = centres[labels] + noise * torch.randn(count, WIDTH, generator=generator)
    queries = torch.arange(count) % 2 == 0 if gallery else None
    return Features("drawn", "backbone", FeatureTable(rows, labels[:, None]), queries=queries, levels=("class",))


def measured(kind: str, count: int, noise: float, generator: torch.Generator, intervals: bool) -> np.ndarray:
    """(numbers, 3): each in percent and, if wanted, the ends of its interval."""
    measure, gallery, names = KINDS[kind]
    protocol = Protocol((measure,), intervals=intervals)
    (result,) = evaluate(draw(count, noise, generator, gallery), protocol, _CPU)
    level = result["levels"][0]
    return np.array([[level[name], *(level.get(f"{name}_ci") or (np.nan, np.nan))] for name in names])


def measured_further(kind: str, count: int, noise: float, generator: torch.Generator) -> np.ndarray:
    """The same of numbers of `FURTHER`; the classifier learns from the same 400 images each time."""
    measures, names = FURTHER[kind]
    several = kind == "several labels"
    val, train = (
        draw(size, noise, by).val for size, by in ((count, generator), (400, torch.Generator().manual_seed(7)))
    )
    tables = []
    for table in (val, train):
        label = table.labels[:, 0]
        columns = torch.stack([label < 5, label % 2 == 0, label % 3 == 0], dim=1).long()
        tables.append(FeatureTable(table.features, columns if several else torch.stack([label // 2, label], dim=1)))
    levels, tree = (("a", "b", "c"), None) if several else (TREE.levels, TREE)
    (result,) = evaluate(Features("drawn", "backbone", *tables, levels=levels, tree=tree), Protocol(measures), _CPU)
    parts = result.get("hierarchy", {})
    found = {**result["levels"][0 if several else 1], **parts.get("linear", {}), **parts.get("retrieval", {})}
    found |= result["levels"][0] if kind == "a classifier" else result.get("several", {})
    return np.array([[found[name], *(found.get(f"{name}_ci") or (np.nan, np.nan))] for name in names])


def series_further(kind: str, count: int, noise: float, runs: int, seed: int = 2) -> dict[str, tuple[float, float]]:
    """`series` of numbers of `FURTHER`."""
    generator = torch.Generator().manual_seed(seed)
    return _held(np.stack([measured_further(kind, count, noise, generator) for _ in range(runs)]), FURTHER[kind][1])


def noise_of(kind: str, name: str, count: int, accuracy: float) -> float | None:
    """The noise at which the number is that on average, by bisection; None where chance is not below it."""
    low, high, place = 0.05, 3.0, KINDS[kind][2].index(name)

    def mean(noise: float) -> float:
        generator = torch.Generator().manual_seed(1)
        return float(
            np.mean([measured(kind, count, noise, generator, False)[place, 0] for _ in range(max(3, 4000 // count))])
        )

    if mean(high) > accuracy:
        return None
    for _ in range(10):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if mean(middle) > accuracy else (low, middle)
    return float((low * high) ** 0.5)


def series(kind: str, count: int, noise: float, runs: int, seed: int = 2) -> dict[str, tuple[float, float]]:
    """Of each number its average and the share of the runs whose interval holds that, both in percent."""
    generator = torch.Generator().manual_seed(seed)
    return _held(np.stack([measured(kind, count, noise, generator, True) for _ in range(runs)]), KINDS[kind][2])


def _held(found: np.ndarray, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    truth = found[:, :, 0].mean(axis=0)
    held = 100 * ((found[:, :, 1] <= truth) & (truth <= found[:, :, 2])).mean(axis=0)
    return dict(zip(names, zip(truth.tolist(), held.tolist(), strict=True), strict=True))


def coverage(kind: str, count: int, runs: int) -> Iterator[tuple[str, dict[float, float]]]:
    """Of each number its coverage at each accuracy that it can have."""
    names, done = KINDS[kind][2], list[dict[str, tuple[float, float]]]()
    for name in names:
        row = {}
        for accuracy, close in CLOSE.items():

            def fits(one: dict[str, tuple[float, float]], near: float = accuracy, most: float = close) -> bool:
                return abs(one[name][0] - near) <= most  # noqa: B023 - called at once

            if not any(map(fits, done)):
                noise = noise_of(kind, name, count, accuracy)
                if noise is None:
                    continue
                done.append(series(kind, count, noise, runs))
                print(kind, count, name, accuracy, f"{noise:.4f}", done[-1], file=sys.stderr, flush=True)
            best = min(done, key=lambda one: abs(one[name][0] - accuracy))
            row[accuracy] = best[name][1]
        yield name, row


def coverage_of_independent(count: int, accuracy: float) -> float:
    """The same of independent images, in percent: the exact sum over the binomial distribution and both coins."""
    right, truth = np.arange(count + 1), accuracy / 100
    ends = np.array([[of_independent(one / count, count, coin) for one in right] for coin in (False, True)])
    held = ((ends[..., 0] <= truth) & (truth <= ends[..., 1])).mean(axis=0)
    return float(100 * binom.pmf(right, count, truth) @ held)


def best_of_one_rule(count: int, accuracy: float) -> float:
    """The coverage nearest to 95 % that any rule can have that takes a run of counts for compatible, without chance."""
    mass = np.concatenate([[0], binom.cdf(np.arange(count + 1), count, accuracy / 100)])
    held = 100 * (mass[None, :] - mass[:, None])
    return float(held.flat[np.abs(held - 95).argmin()])


def coverage_of_pairs(seeds: int, runs: int, seed: int = 2) -> float:
    """Of paired differences of so many seeds, in percent."""
    values = torch.randn(runs, seeds, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3
    ends = [paired(row.tolist()) for row in values]
    return 100 * sum(one.low <= 0.3 <= one.high for one in ends) / runs


def _row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 400, 2000])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    given = parser.parse_args()
    heads = [f"{accuracy} %" for accuracy in CLOSE]
    print(f"""# Coverage of the 95 % intervals

In percent, 95 is nominal; written by `python benchmarks/coverage.py`, whose head says how. Simulated cells have
{given.runs:,} runs, a standard error of {100 * (0.95 * 0.05 / given.runs) ** 0.5:.1f} points.
""")
    _row("measure", "number", "images", *heads)
    _row(*["---"] * (3 + len(heads)))
    for count in given.images:
        exact = [f"{coverage_of_independent(count, accuracy):.1f}" for accuracy in CLOSE]
        _row("linear, kNN by training images", "all, and mistakes' shares (exact)", f"{count:,}", *exact)
    for count in given.images:
        for kind in given.kinds:
            for name, row in coverage(kind, count, given.runs):
                _row(kind, name, f"{count:,}", *(f"{row[one]:.1f}" if one in row else "-" for one in CLOSE))
    print()
    _row("measure", "number", "images", *(f"noise {noise:g}: average, coverage" for noise in NOISES))
    _row(*["---"] * (3 + len(NOISES)))
    for count in given.images:
        for kind, (_, names) in FURTHER.items():
            found = [series_further(kind, count, noise, given.runs) for noise in NOISES]
            for name in names:
                _row(kind, name, f"{count:,}", *("{:.1f}, {:.1f}".format(*one[name]) for one in found))
    pairs = (f"{seeds} seeds {coverage_of_pairs(seeds, 20_000):.1f}" for seeds in (3, 5, 10))
    print(f"""
`-`: ten classes can't be guessed that badly. Paired t interval (20,000 runs): {", ".join(pairs)}.

The exact row tosses a coin between two intervals. Without chance, none is nominal everywhere: of 100 images and 99 %,
the coverage nearest to 95 % that a rule can have is {best_of_one_rule(100, 99):.1f} %.""")


if __name__ == "__main__":
    main()
