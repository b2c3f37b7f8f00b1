"""Memory and time of `solo evaluate` on many features: `python benchmarks/evaluate.py --rows 1000000 --val 4000`.

Synthetic features with a label tree of three levels (10 > 100 > 1,000 classes) are written to a file, and each measure
runs on it in a process of its own. Printed: peak resident memory, also as a multiple of the features' own size, and the
time as a multiple of that of one matrix product of 1,000 rows with 10,000. Neighbours and the classifier cost by the
training rows (all but `--val`), retrieval and clustering by the validation rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from solo.eval.features import Features, FeatureTable, read_features, write_features
from solo.eval.knn import nearest
from solo.eval.suite import MEASURES, Protocol, evaluate
from solo.taxonomy import Taxonomy

COUNTS = (10, 100, 1000)


def make(path: Path, rows: Sequence[int], width: int) -> None:
    """Classes around their parents' centres."""
    generator = torch.Generator().manual_seed(0)
    parents = tuple(tuple(child // 10 for child in range(count)) for count in COUNTS[1:])
    tree = Taxonomy(("a", "b", "c"), tuple(tuple(map(str, range(count))) for count in COUNTS), parents)
    centres = torch.zeros(1, width)
    for count in COUNTS:
        centres = centres.repeat_interleave(count // len(centres), dim=0) * 1.0
        centres = centres + torch.randn(count, width, generator=generator)
    paths = torch.tensor(tree.path_table())
    tables = []
    for count in rows:
        features = torch.empty(count, width)
        leaves = torch.randint(0, COUNTS[-1], (count,), generator=generator)
        for part in torch.arange(count).split(50_000):
            noise = torch.randn(len(part), width, generator=generator)
            features[part] = centres[leaves[part]] + 4 * noise
        tables.append(FeatureTable(features, paths[leaves]))
    write_features(path, Features("synthetic", "backbone", tables[0], tables[1], tree.levels, tree))


def measure(path: Path, what: str, queries: int, steps: int) -> None:
    """In a process of its own, whose peak memory is that of this measure."""
    features = read_features(path)
    block = torch.randn(10_000, features.val.features.shape[1])
    start = time.perf_counter()
    torch.mm(block[:1000], block.T)
    unit = time.perf_counter() - start
    needs = ("knn", "hierarchy") if what == "hierarchy" else (what,)
    start = time.perf_counter()
    (result,) = evaluate(
        features, Protocol(measures=needs, max_queries=queries, linear_steps=steps), torch.device("cpu")
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = sum(table.features.nbytes for table in (features.val, features.train) if table is not None)
    last = {key: value for key, value in result["levels"][-1].items() if isinstance(value, float)}
    print(json.dumps({"peak": peak, "size": size, "seconds": seconds, "unit": unit, "last level": last}))


def bank(rows: int, width: int) -> None:
    """Print the memory that a search of the online k-NN takes, as a multiple of its bank's; Linux only."""

    def peak() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    keys = [torch.randn(500, width).bfloat16() for _ in range(rows // 500)]
    query, size = torch.randn(1024, width), sum(part.nbytes for part in keys)
    nearest(query[:64], keys[:2], 20)  # what libraries need once
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    nearest(query, keys, 20)
    print(
        f"bank of {size / 2**20:,.0f} MiB in bfloat16: searched in {1 + (peak() - before) / size:.2f} times its memory"
    )


def main() -> None:
    """Make the features, run the measures one after the other, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--val", type=int, default=4000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000, help="of retrieval")
    parser.add_argument("--steps", type=int, default=100, help="of the linear classifier")
    parser.add_argument("--measures", nargs="+", default=list(MEASURES), choices=MEASURES)
    parser.add_argument("--bank", action="store_true", help="the memory of the online k-NN instead")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bank:
        bank(given.rows, given.width)
        return
    if given.one:
        measure(given.file, given.one, given.queries, given.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.safetensors"
        make(file, (given.val, given.rows - given.val), given.width)
        shape = f"{given.rows - given.val:,} + {given.val:,} x {given.width}"
        print(f"{shape} features, {torch.get_num_threads()} threads, {given.queries} queries, {given.steps} steps")
        for what in given.measures:
            command = [sys.executable, __file__, "--one", what, "--file", str(file)]
            command += ["--queries", str(given.queries), "--steps", str(given.steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{what:<11} peak {found['peak'] / 2**30:5.2f} GiB = {found['peak'] / found['size']:.1f} x features, "
                f"{found['seconds']:7.1f} s = {found['seconds'] / found['unit']:,.0f} products, {found['last level']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
