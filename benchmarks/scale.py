"""How cost grows: images 1,000 to 10,000,000, classes 10 to 100,000, processes 1 to 8, with synthetic numbers only.

    python benchmarks/scale.py [--out FOLDER] [--only TEXT] [--before ROWS]

Each part is run with more and more until a run takes 0.4 seconds. Time is the processor's, of one thread of one
process (the first one, where there are several). A line of `rows.jsonl` for each as it comes, and what is there is not
run again; at the end a table with the exponent of growth, fitted over the upper hundredfold, and `growth.png`.
`--before` adds the rows of other code.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch

from solo import distributed
from solo.data.batches.samplers import SeededSampler, rule_sampler
from solo.data.labels.subsets import draw_known, hold_out, take_fraction
from solo.data.labels.trees import from_columns
from solo.data.views.batched import Shown
from solo.doctor.parity import on_groups
from solo.eval import knn
from solo.eval.classes import confusable_pairs, cpcc, neighbours
from solo.eval.knn import WeightedKNNClassifier
from solo.eval.predictions import accuracy_at_k, expected_heights, hierarchy_scores, hops
from solo.files import csv_text
from solo.hex.relatives import Bank, drawn_alike
from solo.losses.info_nce import simclr_loss_func
from solo.methods.base import QueueHeads
from solo.run.resume import fingerprint
from solo.taxonomy import Taxonomy

MOST, LONG = 10_000_000, 0.4  # images; seconds after which nothing larger is tried
BATCH, DIM, MANY = 256, 64, 1024  # MANY: processes that are simulated

Work = Callable[[], Any]
Part = tuple[str, str, list[int], Callable[[int], Work]]


def decades(low: int, high: int) -> list[int]:
    """1, 3, 10, 30, ... between two numbers."""
    return [n for e in range(9) for n in (10**e, 3 * 10**e) if low <= n <= high]


def labels_of(n: int, classes: int = 1000) -> np.ndarray:
    """Labels of images, some 12 of each class at least."""
    return np.random.default_rng(0).integers(min(classes, n // 12), size=n)


def rows_of(n: int, dim: int = DIM) -> torch.Tensor:
    """Rows in clumps, as features are."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(max(10, n // 100), dim, generator=generator)
    which = torch.randint(len(centres), (n,), generator=generator)
    return centres[which] + 0.5 * torch.randn(n, dim, generator=generator)


def tree_of(classes: int) -> Taxonomy:
    """Three levels; a node has about as many children as there are nodes above it."""
    side = max(1, round(classes ** (1 / 3)))
    parents = tuple(i % side for i in range(side * side)), tuple(i % (side * side) for i in range(classes))
    names = tuple(tuple(f"{k}{i}" for i in range(n)) for k, n in (("a", side), ("b", side * side), ("c", classes)))
    return Taxonomy(("a", "b", "c"), names, parents)


def of_images() -> Iterator[Part]:
    """Parts that grow with the number of images."""
    every, fewer = decades(1000, MOST), decades(1000, 1_000_000)

    def through(order: Any, most: int | None = None) -> None:
        deque(islice(order, most), maxlen=0)

    def share_of_many(n: int) -> Work:
        def work() -> None:
            with mock.patch.object(distributed, "world_size", lambda: MANY):
                through(SeededSampler(n, 0))

        return work

    def batches(kind: str, n: int) -> Work:
        labels = labels_of(n)
        table = np.stack([labels // 30, labels], axis=1) if kind == "hierarchical" else labels
        return lambda: through(rule_sampler(kind, table, BATCH, 0), 20 * BATCH)

    def stored(n: int) -> Work:
        bank, ids, rows = Bank(drawn=4), torch.arange(BATCH), torch.randn(BATCH, DIM)
        bank.use(torch.randint(n, (n, 10), dtype=torch.int32))
        bank.store(ids, rows)
        return lambda: (bank.draw(ids, rows), bank.store(ids, rows))

    def pushed(n: int) -> Work:
        queue, rows, labels = QueueHeads(), torch.randn(BATCH, DIM), torch.zeros(BATCH, dtype=torch.long)
        queue.make_queue(n // BATCH * BATCH, DIM)
        return lambda: (queue.find_nn(rows), queue.dequeue_and_enqueue(rows, labels))

    def voted(n: int) -> Work:
        rows, labels = rows_of(n), torch.from_numpy(labels_of(n))
        return lambda: knn.vote_accuracy(*knn.nearest(rows[:BATCH], rows, 20), labels, labels[:BATCH])

    def data(n: int) -> Any:
        return SimpleNamespace(targets=labels_of(n).tolist(), files=[f"/nowhere/{i % 1000}/{i}.jpg" for i in range(n)])

    yield "order of an epoch", "images", every, lambda n: lambda: through(SeededSampler(n, 0))
    yield f"its share, one of {MANY:,} processes", "images", every, share_of_many
    for kind in ("balanced", "hierarchical", "pxk"):
        yield f"20 batches, data.sampler={kind}", "images", every, partial(batches, kind)
    yield "data.holdout", "images", every, lambda n: (lambda d: lambda: hold_out(d, 0.2, True))(data(n))
    yield "data.fraction", "images", every, lambda n: (lambda d: lambda: take_fraction(d, 0.1))(data(n))
    yield (
        "data.label_fraction",
        "images",
        every,
        lambda n: partial(draw_known, torch.from_numpy(labels_of(n))[:, None], [0.1], 0),
    )
    yield "fingerprint of the images", "images", every, lambda n: partial(fingerprint, data(n))
    yield (
        "shown relatives, a batch",
        "images",
        every,
        lambda n: partial(
            Shown(torch.randint(n, (n, 10), dtype=torch.int32), 0.8), torch.arange(BATCH), torch.arange(BATCH)
        ),
    )
    yield "pulled relatives, a batch", "images", every, stored
    yield "queue: nearest and push of a batch", "images", fewer, pushed
    yield "k-NN: 256 images against a bank", "images", fewer, voted
    yield "table of relatives, exact", "images", fewer, lambda n: partial(knn.nearest_others, rows_of(n), 10)
    if hasattr(knn, "nearest_by_cells"):
        yield "table of relatives, by cells", "images", fewer, lambda n: partial(knn.nearest_by_cells, rows_of(n), 10)


def of_classes() -> Iterator[Part]:
    """Parts that grow with the number of classes."""
    every = decades(10, 100_000)
    rng = np.random.default_rng(0)

    def groups(n: int) -> Work:
        names, size = [f"c{i}" for i in range(n)], max(1, math.isqrt(n))
        members = {f"g{i}": names[i * size : (i + 1) * size] for i in range(-(-n // size))}
        return lambda: Taxonomy.from_groups(names, members)

    def columns(n: int) -> Work:
        tree = tree_of(n)
        rows = [[names[node] for names, node in zip(tree.names, path, strict=True)] for path in tree.path_table()]
        return lambda: from_columns(rows, tree.levels)

    def confused(n: int) -> Work:
        rows, labels = rows_of(10 * n, 16).numpy(), np.repeat(np.arange(n), 10)
        near = neighbours(rows, most=100)
        return lambda: confusable_pairs(rows, labels, near)

    def made(use: Callable[[Taxonomy], Any], n: int) -> Work:
        tree = tree_of(n)
        return lambda: use(Taxonomy(tree.levels, tree.names, tree.parents))  # nothing is kept from another run

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(n, size=10_000), rng.integers(n, size=10_000)

    yield "label tree from groups", "classes", every, groups
    yield "label tree from columns", "classes", every, columns
    yield (
        "severity of 10,000 predictions",
        "classes",
        every,
        lambda n: made(partial(lambda p, t: hierarchy_scores(t, *p), drawn(n)), n),
    )
    yield (
        "HOPS of 64 images",
        "classes",
        every,
        lambda n: made(partial(lambda s, t: hops(t, rng.integers(n, size=64), s), rng.random((64, n))), n),
    )
    yield (
        "expected heights of 64 images",
        "classes",
        every,
        lambda n: made(partial(lambda s, t: expected_heights(t, s), rng.random((64, n))), n),
    )
    yield (
        "CPCC of class means",
        "classes",
        every,
        lambda n: made(partial(lambda m, t: cpcc(t, m, np.arange(n)), rng.random((n, 32))), n),
    )
    yield "confusable pairs", "classes", every, confused
    yield (
        "k-NN votes of 256 images",
        "classes",
        every,
        lambda n: partial(
            knn.level_rankings,
            torch.rand(BATCH, 20).sort(descending=True).values,
            torch.arange(20 * BATCH).view(BATCH, 20),
            torch.randint(n, (20 * BATCH, 1)),
            torch.tensor([[n - 1]]),
        ),
    )
    yield (
        "accuracy of a batch",
        "classes",
        every,
        lambda n: partial(accuracy_at_k, torch.rand(BATCH, n), torch.randint(n, (BATCH,))),
    )
    yield (
        "20 batches, data.sampler=pxk, 8 a class",
        "classes",
        every,
        lambda n: partial(
            lambda t: deque(islice(rule_sampler("pxk", t, BATCH, 0), 20 * BATCH), maxlen=0),
            np.repeat(np.arange(max(n, 64)), 8),
        ),
    )
    yield (
        "relatives by label, 100,000 images",
        "classes",
        every,
        lambda n: partial(drawn_alike, torch.from_numpy(labels_of(100_000, n)), 10, torch.Generator()),
    )


def of_epochs() -> Iterator[Part]:
    """What is written anew after each epoch."""

    def history(n: int) -> Work:
        return partial(csv_text, [{"epoch": float(i), **{f"m{j}": 0.1 * j for j in range(25)}} for i in range(n)])

    yield "metrics.csv after so many epochs", "epochs", decades(10, 10_000), history


def measure(work: Work) -> float:
    """CPU seconds, the best of three or of what half a second allows."""
    found: list[float] = []
    while len(found) < 3 and sum(found) < 0.5:
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def in_group(_: None) -> dict[str, float]:
    """Seconds of each part that processes do together, in one of them; each has 256 images."""
    torch.manual_seed(distributed.rank())
    z = torch.nn.functional.normalize(torch.randn(2 * BATCH, 128), dim=1).requires_grad_()
    ids, grads = torch.arange(BATCH).repeat(2) + BATCH * distributed.rank(), torch.zeros(4_000_000)
    state = {"rng": torch.zeros(5000, dtype=torch.uint8), "bank": torch.zeros(2000, 64)}
    queue = QueueHeads()
    queue.make_queue(64 * BATCH, DIM)

    def voted() -> None:
        metric, rows = WeightedKNNClassifier(), torch.randn(2000, DIM)
        labels = torch.randint(100, (2000,))
        metric.update(rows, labels, rows[:500], labels[:500])
        metric.compute()

    parts: dict[str, Work] = {
        "SimCLR's loss, forward and backward": lambda: simclr_loss_func(z, ids).backward(),
        "gradients of 4 million weights": lambda: distributed.all_reduce_mean(grads),
        "queue: push": lambda: queue.dequeue_and_enqueue(torch.randn(BATCH, DIM), torch.zeros(BATCH, dtype=torch.long)),
        "online k-NN: 2,000 rows, 500 judged": voted,
        "checkpoint: states of all processes": lambda: distributed.gather_plain(state),
    }
    found = {}
    for name, work in parts.items():
        work()
        start = time.process_time()
        for _ in range(3):
            work()
        found[name] = (time.process_time() - start) / 3
    return found


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The slope of log seconds over log size, of each part's upper hundredfold."""
    found = {}
    for name in dict.fromkeys(row["part"] for row in rows):
        own = [row for row in rows if row["part"] == name]
        most = max(row["size"] for row in own)
        used = [row for row in own if row["size"] * 100 >= most and row["seconds"] > 0]
        used = [row for row in used if row["over"] != "processes" or row["size"] > 1]  # one has nobody to speak with
        sizes, seconds = (np.log([row[key] for row in used]) for key in ("size", "seconds"))
        found[name] = float(np.polyfit(sizes, seconds, 1)[0]) if len(used) > 1 else math.nan
    return found


def picture(rows: list[dict[str, Any]], before: list[dict[str, Any]], path: Path) -> None:
    """Panels for images, classes and processes; broken lines are those of the code before."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(16, 8), dpi=110, layout="constrained")
    for over, axes in zip(("images", "classes", "processes"), canvas.subplots(1, 3), strict=True):
        names = dict.fromkeys(row["part"] for row in rows if row["over"] == over)
        for number, name in enumerate(names):
            for source, style in ((rows, "o-"), (before, "o:")):
                own = sorted((row["size"], row["seconds"]) for row in source if row["part"] == name)
                if own and (source is rows or faster(name, rows, before)):
                    label = name if source is rows else f"{name}, before"
                    axes.loglog(
                        *zip(*own, strict=True),
                        style,
                        color=f"C{number}" if number < 10 else f"{(number - 9) / 8}",
                        ms=3,
                        label=label,
                    )
        axes.set(title=f"growth with {over}", xlabel=over, ylabel="CPU seconds of one process")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=1, frameon=False)
    canvas.savefig(path)


def faster(name: str, rows: list[dict[str, Any]], before: list[dict[str, Any]]) -> bool:
    """Whether the largest size that both have takes half of the time that it took, or less."""
    old, new = ({row["size"]: row["seconds"] for row in each if row["part"] == name} for each in (before, rows))
    both = old.keys() & new.keys()
    return bool(both) and new[max(both)] < old[max(both)] / 2 and old[max(both)] > 1e-3


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("scale"))
    parser.add_argument("--only", default="", help="parts with this text in their name, or the name of an axis")
    parser.add_argument("--before", type=Path, help="rows.jsonl of other code")
    parser.add_argument("--report", action="store_true", help="of the rows that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "rows.jsonl"
    rows = read(file) if file.is_file() else []

    def add(part: str, over: str, size: int, seconds: float) -> None:
        row = {"part": part, "over": over, "size": size, "seconds": float(f"{seconds:.4g}")}
        rows[:] = [each for each in rows if (each["part"], each["size"]) != (part, size)] + [row]
        file.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
        print(f"{part:<44} {size:>12,} {over:<9} {seconds:10.4f} s", flush=True)

    there = {(row["part"], row["size"]): row["seconds"] for row in rows}
    if not given.report:
        for name, over, sizes, make in (*of_images(), *of_classes(), *of_epochs()):
            for size in sizes if given.only in name or given.only == over else []:
                seconds = there.get((name, size), -1.0)
                if seconds < 0:
                    add(name, over, size, seconds := measure(make(size)))
                if seconds > LONG:
                    break
        if given.only in "processes":
            for count, found in zip((1, 2, 4, 8), on_groups(in_group, [1, 2, 4, 8], None), strict=True):
                for name, seconds in found[0].items():
                    add(name, "processes", count, seconds)
    before = read(given.before) if given.before else []
    slopes, earlier = exponents(rows), exponents(before)
    print("\n| part | largest | seconds | exponent |" + (" before |" if before else ""))
    print("|---|---:|---:|---:|" + ("---:|" if before else ""))
    for name, slope in slopes.items():
        last = max((row for row in rows if row["part"] == name), key=lambda row: row["size"])
        line = f"| {name} | {last['size']:,} {last['over']} | {last['seconds']:.3g} | {slope:.2f} |"
        if before:
            old = [row for row in before if row["part"] == name]
            top = max(old, key=lambda row: row["size"], default=None)
            text = f"{earlier[name]:.2f}, {top['seconds']:.3g} s at {top['size']:,}" if top else ""
            line += f" {text if faster(name, rows, before) else ''} |"
        print(line)
    picture(rows, before, given.out / "growth.png")


def read(file: Path) -> list[dict[str, Any]]:
    """Rows of an earlier run."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
