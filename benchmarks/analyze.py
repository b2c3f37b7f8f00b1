"""Time and memory of `solo analyze` on many features: everything but UMAP.

    python benchmarks/analyze.py [--rows 60000] [--dim 512] [--classes 100] [--threads 2]

Prints seconds and peak memory of the whole (labels, all measures, figures with PCA instead of UMAP, the report), the
share of the parts, and the time against one pass of all cosines (n x n), the least that looking at every pair takes.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import tempfile
import time
from pathlib import Path

import torch

from solo.analysis.analyze import Options, RunSource, SnapshotSource, analyze
from solo.eval.features import Features, FeatureTable
from solo.taxonomy import Taxonomy

PARTS = ("measure", "embed", "write_report", "draw", "find_labelling")


def synthetic(rows: int, dim: int, classes: int) -> Features:
    """Rows around class centres around group centres, with labels at both levels."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(rows) % classes
    group = label // 5
    centres = torch.randn(classes // 5 + 1, dim, generator=generator)[torch.arange(classes) // 5]
    centres = centres + 0.7 * torch.randn(classes, dim, generator=generator)
    features = torch.randn(rows, dim, generator=generator).mul_(0.8).add_(centres[label])
    names = tuple(str(number) for number in range(classes))
    tree = Taxonomy(("group", "class"), (names[: (classes - 1) // 5 + 1], names), (tuple(int(n) // 5 for n in names),))
    return Features(
        "synthetic", "backbone", FeatureTable(features, torch.stack([group, label], 1)), None, tree.levels, tree
    )


def all_cosines(features: torch.Tensor) -> float:
    """Seconds of one blocked pass over all pairs."""
    z = torch.nn.functional.normalize(features)
    start = time.perf_counter()
    for block in z.split(2000):
        (block @ z.T).amax()
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    features = synthetic(args.rows, args.dim, args.classes)
    profile = cProfile.Profile()
    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        profile.enable()
        analyze(
            [RunSource("synthetic", (SnapshotSource(lambda: {"backbone": features}),))],
            Path(folder),
            Options(embedding="pca"),
        )
        profile.disable()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{args.rows:,} x {args.dim}, {args.classes} classes, {args.threads} threads")
    print(f"all analyses but UMAP: {wall:.1f} s ({cpu:.1f} s of CPU), peak memory {peak:.2f} GiB")
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (_, _, name), (_, _, _, seconds, _) in sorted(stats.items(), key=lambda item: -item[1][3]):
        if name in PARTS:
            print(f"  {name:15} {seconds:6.1f} s")
    once = all_cosines(features.val.features)
    print(f"one pass over all cosines: {once:.1f} s; the analyses take {wall / once:.1f} times that")


if __name__ == "__main__":
    main()
