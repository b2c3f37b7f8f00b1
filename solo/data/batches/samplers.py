"""Batches composed by their labels: hierarchical, class-balanced, or P classes with K images each.

A rule composes *global* batches, those of all processes together, as a pure function of the seed and the epoch; each
process takes its own stretch of every batch. No image comes twice in an epoch, unless labelled images are to come more
often (`Mixed`). `composition` says what a batch holds.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import torch

from solo import distributed
from solo.data.batches.balanced import Balanced, BatchRule, Mixed, PerClass, Random
from solo.data.batches.hierarchical import Hierarchical
from solo.data.batches.loaders import SeededSampler
from solo.errors import UserError
from solo.taxonomy import Taxonomy


class RuleSampler(SeededSampler):
    """Batch after batch of a rule, with a seed for each image.

    The order is such that process `r` of `n`, which takes every n-th item from the r-th on, gets images `r *
    batch_size` to `(r + 1) * batch_size - 1` of each global batch: what a rule puts side by side stays together. Raises
    a `UserError` where the rule can't make a single batch for as many processes as there are when it is asked.
    """

    def __init__(self, rule: BatchRule, batch_size: int, seed: int) -> None:
        super().__init__(0, seed)
        self.rule = rule
        self.batch_size = batch_size
        self.size = len(self)  # says at once when there are too few images

    def __len__(self) -> int:
        size = self.batch_size * distributed.world_size()
        count = self.rule.count(size)
        if count == 0:
            raise UserError(
                f"data.sampler={self.rule.name} can't make a batch of {size} images (optimizer.batch_size times "
                f"processes) without taking one twice: {self.rule.limit}; use a smaller batch or data.sampler=random"
            )
        return count * size

    def order(self, start: int = 0, end: int | None = None, step: int = 1) -> Iterator[tuple[int, int]]:
        """The epoch's batches one after the other: all samples, or a slice of them."""
        generator = self.next_generator()
        size = self.batch_size * distributed.world_size()
        first = int(torch.randint(2**62, (), generator=generator))
        seeds = torch.randint(2**62, (len(self) // size, size), generator=generator)
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
    level = 0 if kind == "hierarchical" else level
    nodes = _classes(table, taxonomy) if level is None else table[:, level]
    if not (nodes >= 0).any() and (kind != "random" or labelled_share is not None):
        advice = "use data.sampler=random" if labelled_share is None else "leave data.labelled_share out"
        raise UserError(f"data.sampler={kind} needs labels, and no image has one; {advice}")

    def rule(images: np.ndarray) -> BatchRule:
        if kind == "random":
            return Random(len(images))
        if kind == "hierarchical":
            return Hierarchical(table[images])
        return Balanced(nodes[images]) if kind == "balanced" else PerClass(nodes[images], per_class)

    if labelled_share is None:
        return RuleSampler(rule(np.arange(len(table))), batch_size, seed)
    labelled = _classes(table, taxonomy) >= 0
    if labelled.all():
        raise UserError(
            f"data.labelled_share={labelled_share} is for training images of which some have no class, and here all "
            f"{len(table)} have one; leave it out, or take labels away with data.label_fraction"
        )
    return RuleSampler(Mixed(rule, labelled, labelled_share), batch_size, seed)


def _classes(table: np.ndarray, taxonomy: Taxonomy | None) -> np.ndarray:
    if table.shape[1] == 1 or taxonomy is None:
        return np.asarray(table[:, -1])
    rows, which = np.unique(table, axis=0, return_inverse=True)
    leaves = np.array([taxonomy.leaf_of(row) for row in rows.tolist()])
    return np.asarray(leaves[which.reshape(-1)])


def describe(sampler: RuleSampler, labels: np.ndarray, levels: Sequence[str]) -> str:
    """A sentence on an epoch and on a batch of one process, beside a batch of a random order."""
    size = sampler.batch_size
    first = next(sampler.rule.batches(size, np.random.default_rng(sampler.seed)))
    by_chance = np.random.default_rng(sampler.seed).permutation(len(labels))[:size]
    pairs = zip(levels, composition(labels[first]), composition(labels[by_chance]), strict=True)
    of = "{:.1f} of the same {} (by chance {:.1f})"
    parts = [of.format(own.partners, level, chance.partners) for level, own, chance in pairs]
    shares = f"up to {len(sampler):,} of {len(labels):,} images an epoch"
    return f"data.sampler={sampler.rule.name}: {shares}; partners of an image in a batch: {', '.join(parts)}"


class LevelComposition(NamedTuple):
    """A batch at one level: mean number of partners of an image with a label, share without any, different nodes."""

    partners: float
    alone: float
    nodes: int


def composition(labels: np.ndarray) -> list[LevelComposition]:
    """What a batch of labels, (B,) or (B, levels), holds at each level; partners of an image have the same label."""
    found = []
    for column in np.asarray(labels).reshape(len(labels), -1).T:
        _, counts = np.unique(column[column >= 0], return_counts=True)
        known = max(1, int(counts.sum()))
        partners, alone = float((counts * (counts - 1)).sum()) / known, float((counts == 1).sum()) / known
        found.append(LevelComposition(partners, alone, len(counts)))
    return found
