"""The order of a training set: random, or batches composed by their labels; and what each process gets of it.

An order is a function of (seed, epoch) and hands out `(index, seed)` pairs. A rule (see `rules`) composes *global*
batches, those of all processes together; each process takes its own stretch of every batch.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import torch
from torch.utils.data import DistributedSampler

from solo import distributed
from solo.data.batches.rules import Balanced, BatchRule, Hierarchical, Mixed, PerClass, Random
from solo.errors import UserError
from solo.taxonomy import Taxonomy

_AT_ONCE = 65_536  # samples of an order that are Python's numbers at a time: these need more memory than a tensor
# Keeps the streams of neighbouring seeds apart: epochs stay far below it.
_EPOCHS_PER_SEED = 1_000_003


class SeededSampler(DistributedSampler[tuple[int, int]]):
    """What this process gets of a new permutation of `size` samples in each epoch, with a seed for each sample.

    That is every n-th sample, as many in each process; with `whole` all of them. A `DistributedSampler` by type only:
    Lightning would shuffle and split any other order. The `epoch` goes up by itself and can be set, as Lightning does.
    """

    def __init__(self, size: int, seed: int, whole: bool = False) -> None:
        self.size, self.seed, self.whole = size, seed, whole
        self.start_at(0, 0)

    def start_at(self, epoch: int, samples: int) -> None:
        """Choose the next permutation, without its first `samples` of all processes: a resumed run has seen them."""
        self.epoch, self.done = epoch, samples

    def total(self) -> int:
        """Samples of all processes together."""
        return self.size

    def __len__(self) -> int:
        return self.total() // (1 if self.whole else distributed.world_size())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rank, processes = (0, 1) if self.whole else (distributed.rank(), distributed.world_size())
        done, self.done = self.done, 0
        return self.order(done + rank, len(self) * processes, processes)

    def next_generator(self) -> torch.Generator:
        """Of the epoch's random numbers; the epoch goes up."""
        generator = torch.Generator().manual_seed((self.seed * _EPOCHS_PER_SEED + self.epoch) % 2**63)
        self.epoch += 1
        return generator

    def order(self, start: int = 0, end: int | None = None, step: int = 1) -> Iterator[tuple[int, int]]:
        """Samples of the epoch that comes next, in their order, each with its seed: all, or a slice of them."""
        generator = self.next_generator()
        order = torch.randperm(self.size, generator=generator)
        seeds = torch.randint(2**62, (self.size,), generator=generator)
        for numbers, own in zip(*(torch.split(x[start:end:step], _AT_ONCE) for x in (order, seeds)), strict=True):
            yield from zip(numbers.tolist(), own.tolist(), strict=True)


def seeded_sampler(size: int, batch_size: int, seed: int | None) -> SeededSampler:
    """The order of a training set; without a seed torch's generator draws it. A `UserError` where a batch has more."""
    if batch_size > size:
        what = f"optimizer.batch_size={batch_size} is larger than the training set of {size} images"
        raise UserError(f"{what}, so an epoch would have no batch; use a batch size of at most {size} or more data")
    return SeededSampler(size, int(torch.randint(2**62, ())) if seed is None else seed)


class RuleSampler(SeededSampler):
    """Batch after batch of a rule, with a seed for each image.

    Process `r`, which takes every n-th item, gets images `r * batch_size` to `(r + 1) * batch_size - 1` of each global
    batch: what a rule puts side by side stays together. A `UserError` where the rule can't make a single batch.
    """

    def __init__(self, rule: BatchRule, batch_size: int, seed: int) -> None:
        self.rule, self.batch_size = rule, batch_size
        super().__init__(self.total(), seed)  # says at once when there are too few images

    def total(self) -> int:
        size = self.batch_size * distributed.world_size()
        count = self.rule.count(size)
        if count == 0:
            what = f"data.sampler={self.rule.name} can't make a batch of {size} images (optimizer.batch_size times"
            cure = "use a smaller batch or data.sampler=random"
            raise UserError(f"{what} processes) without taking one twice: {self.rule.limit}; {cure}")
        return count * size

    def order(self, start: int = 0, end: int | None = None, step: int = 1) -> Iterator[tuple[int, int]]:
        generator = self.next_generator()
        size = self.batch_size * distributed.world_size()
        first = int(torch.randint(2**62, (), generator=generator))
        seeds = torch.randint(2**62, (self.total() // size, size), generator=generator)
        batches = zip(self.rule.batches(size, np.random.default_rng(first)), seeds, strict=True)
        keyed = (list(zip(batch, row.tolist(), strict=True)) for batch, row in batches)
        places = (keys[place :: self.batch_size] for keys in keyed for place in range(self.batch_size))
        yield from islice(chain.from_iterable(places), start, end, step)


def rule_sampler(
    kind: str,
    labels: np.ndarray,
    batch_size: int,
    seed: int,
    taxonomy: Taxonomy | None = None,
    level: int | None = None,
    per_class: int = 4,
    labelled_share: float | None = None,
) -> RuleSampler:
    """The sampler of a training set: `hierarchical`, `balanced`, `pxk` or `random`.

    Labels are (N,), or (N, levels) coarse first, -1 unknown; the taxonomy tells classes from nodes above them. Of
    `balanced` and `pxk`, `level` is that of the nodes (default: the classes; images without a label there are left
    out), `per_class` the images of each node in a batch; for `labelled_share` see `Mixed`. Raises a `UserError` where
    no image has a label, all have one and a share is asked for, or there isn't a single batch.
    """
    table = np.asarray(labels).reshape(len(labels), -1)
    classes = table[:, -1]
    if table.shape[1] > 1 and taxonomy is not None:
        rows, which = np.unique(table, axis=0, return_inverse=True)
        classes = np.array([taxonomy.leaf_of(row) for row in rows.tolist()])[which.reshape(-1)]
    nodes = table[:, 0] if kind == "hierarchical" else classes if level is None else table[:, level]
    if not (nodes >= 0).any() and (kind != "random" or labelled_share is not None):
        advice = "use data.sampler=random" if labelled_share is None else "leave data.labelled_share out"
        raise UserError(f"data.sampler={kind} needs labels, and no image has one; {advice}")

    rules: dict[str, Callable[[np.ndarray], BatchRule]] = {
        "random": lambda images: Random(len(images)),
        "hierarchical": lambda images: Hierarchical(table[images]),
        "balanced": lambda images: Balanced(nodes[images]),
        "pxk": lambda images: PerClass(nodes[images], per_class),
    }
    if labelled_share is None:
        return RuleSampler(rules[kind](np.arange(len(table))), batch_size, seed)
    if (classes >= 0).all():
        what = f"data.labelled_share={labelled_share} is for training images of which some have no class, and here all"
        raise UserError(f"{what} {len(table)} have one; leave it out, or take labels away with data.label_fraction")
    return RuleSampler(Mixed(rules[kind], classes >= 0, labelled_share), batch_size, seed)


def describe(sampler: RuleSampler, labels: np.ndarray, levels: Sequence[str]) -> str:
    """A sentence on an epoch and on a batch of one process, beside a batch of a random order."""
    size = sampler.batch_size
    first = next(sampler.rule.batches(size, np.random.default_rng(sampler.seed)))
    by_chance = np.random.default_rng(sampler.seed).permutation(len(labels))[:size]
    pairs = zip(levels, partners(labels[first]), partners(labels[by_chance]), strict=True)
    parts = [f"{own:.1f} of the same {level} (by chance {chance:.1f})" for level, own, chance in pairs]
    shares = f"up to {sampler.total():,} of {len(labels):,} images an epoch"
    return f"data.sampler={sampler.rule.name}: {shares}; partners of an image in a batch: {', '.join(parts)}"


def partners(labels: np.ndarray) -> list[float]:
    """How many others of its label an image finds in a batch of labels, (B,) or (B, levels): the mean at each level."""
    found = []
    for column in np.asarray(labels).reshape(len(labels), -1).T:
        _, counts = np.unique(column[column >= 0], return_counts=True)
        found.append(float((counts * (counts - 1)).sum()) / max(1, int(counts.sum())))
    return found


class EvaluationShare(DistributedSampler[int]):
    """What one of n processes evaluates: every n-th sample, as many in each; the last ones may be beyond the end.

    A `DistributedSampler` by type only, see `SeededSampler`; torch's own would count some samples twice.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return -(-self.size // distributed.world_size())

    def __iter__(self) -> Iterator[int]:
        processes = distributed.world_size()
        return iter(range(distributed.rank(), len(self) * processes, processes))
