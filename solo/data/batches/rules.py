"""What composes batches: chance, equally many images of each class, some of some classes, partners at every level.

A rule has `count(size)`, batches of `size` images in an epoch, and `batches(size, rng)`, as many batches of image
indexes, but for `Mixed` none twice; its `name` and `limit` (how many images there are for a batch) are for people.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from solo.errors import UserError


class Random:
    """Batches of some of `number` images, by chance."""

    name = "random"

    def __init__(self, number: int) -> None:
        self.number = number
        self.limit = f"there are {number}"

    def count(self, size: int) -> int:
        return self.number // size

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        order = rng.permutation(self.number)
        return (order[start : start + size].tolist() for start in range(0, self.count(size) * size, size))


class Balanced:
    """Equally many images of each node, give or take one, in each stretch of a batch and in an epoch.

    An epoch ends with the smallest node; the others take a random part of their images, another one each time. `nodes`
    (N,) is -1 for images to leave out. A batch takes size // C rows of a table of n images of each of C nodes, the rest
    from the rows that are left: those hold enough, because size * batches <= C n.
    """

    name = "balanced"

    def __init__(self, nodes: np.ndarray) -> None:
        self.members = _members(nodes)
        self.smallest = min(map(len, self.members))
        self.limit = f"the smallest of {len(self.members)} classes has {self.smallest}"

    def count(self, size: int) -> int:
        return len(self.members) * self.smallest // size

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        count, nodes = self.count(size), len(self.members)
        table = np.stack([rng.choice(images, self.smallest, replace=False) for images in self.members], axis=1)
        each, more = divmod(size, nodes)
        quota = np.full(nodes, count * more // nodes)
        quota[rng.permutation(nodes)[: count * more % nodes]] += 1
        row = np.full(nodes, count * each)
        for batch, chosen in enumerate(_turns(quota, more, count, rng)):
            rounds = table[batch * each : (batch + 1) * each].ravel()
            yield [*rounds.tolist(), *table[row[chosen], chosen].tolist()]
            row[chosen] += 1


class PerClass:
    """P different nodes in a batch, K images of each, side by side (Hermans et al., https://arxiv.org/abs/1703.07737).

    Each node's images are cut into groups of K = `per_class`, which divides the batch size. An epoch has the largest
    number T of batches for which the nodes, with at most T groups each, have P T groups. Which groups and images stay
    out is random. `nodes` (N,) is -1 for images to leave out.
    """

    def __init__(self, nodes: np.ndarray, per_class: int) -> None:
        self.name = f"pxk with data.per_class={per_class}"
        self.members = _members(nodes)
        self.per_class = per_class
        self.groups = np.array([len(images) // per_class for images in self.members])
        self.limit = f"{int((self.groups > 0).sum())} classes have that many"

    def count(self, size: int) -> int:
        picks = size // self.per_class
        most = range(1, int(self.groups.sum()) // picks + 1)  # where so many are too many, so are more
        return bisect_left(most, True, key=lambda number: np.minimum(self.groups, number).sum() < picks * number)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        picks, count = size // self.per_class, self.count(size)
        images = [rng.permutation(own) for own in self.members]
        quota = rng.multivariate_hypergeometric(np.minimum(self.groups, count), picks * count, method="marginals")
        used = np.zeros_like(quota)
        for chosen in _turns(quota, picks, count, rng):
            starts = (used[chosen] * self.per_class).tolist()
            own = [images[node][at : at + self.per_class] for node, at in zip(chosen.tolist(), starts, strict=True)]
            yield np.concatenate(own).tolist()
            used[chosen] += 1


def _turns(quota: np.ndarray, picks: int, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Which nodes have a turn in each of `count` batches: `picks` different ones, node c `quota[c]` times in all.

    Random, in proportion to the turns a node has left; but a node with as many left as there are batches must come.
    None is ever lacking: with R batches to go, no node has more than R turns left and all have `picks * R` together.
    Hence at most `picks` nodes must come, and at least `picks` can; what a batch takes lets the same hold with R - 1.
    """
    left = quota.copy()
    for later in range(count - 1, -1, -1):
        # The smallest of exponential times with these rates: a draw without replacement.
        times = np.divide(rng.standard_exponential(len(left)), left, where=left > 0, out=np.full(len(left), np.inf))
        times[left > later] = -1
        chosen = np.argpartition(times, picks - 1)[:picks] if picks else np.empty(0, dtype=np.int64)
        left[chosen] -= 1
        yield chosen


def _members(nodes: np.ndarray) -> list[np.ndarray]:
    known = np.flatnonzero(nodes >= 0)
    order = known[np.argsort(nodes[known], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(nodes[order])) + 1)


class Mixed:
    """In each batch a share of images with labels, composed by another rule, the rest without, at random.

    An epoch has as many batches as a random one; labelled and other images are both gone through round after round, so
    that one comes twice only after all of its kind. The two kinds alternate in a batch, so that every stretch of it,
    one process's for instance, has the `share`, in (0, 1), give or take one image. `make` is the rule that composes the
    labelled images, from their numbers among all; `labelled` is bool (N,).
    """

    name: str
    limit: str

    def __init__(self, make: Callable[[np.ndarray], BatchRule], labelled: np.ndarray, share: float) -> None:
        self.labelled, self.others = np.flatnonzero(labelled), np.flatnonzero(~labelled)
        self.rule = make(self.labelled)
        self.share = share
        self.name = f"{self.rule.name}, data.labelled_share={share}"
        self.limit = f"{len(self.labelled)} images have labels and {len(self.others)} have none; {self.rule.limit}"

    def parts(self, size: int) -> tuple[int, int]:
        """Images with and without labels in a batch; P x K takes whole groups of K."""
        step = getattr(self.rule, "per_class", 1)
        labelled = step * min(max(1, round(self.share * size / step)), (size - 1) // step)
        return labelled, size - labelled

    def count(self, size: int) -> int:
        labelled, others = self.parts(size)
        if not labelled or len(self.others) < others or self.rule.count(labelled) == 0:
            return 0
        return (len(self.labelled) + len(self.others)) // size

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        labelled, others = self.parts(size)
        ours = (self.labelled[batch] for _ in count() for batch in self.rule.batches(labelled, rng))
        orders = (rng.permutation(self.others) for _ in count())
        rest = (order[i : i + others] for order in orders for i in range(0, len(order) - others + 1, others))
        # The place of each image in its batch: the n-th of a kind stands where n + 1/2 of that kind are expected.
        place = np.argsort(np.concatenate([(np.arange(n) + 0.5) / n for n in (labelled, others)]), kind="stable")
        for _ in range(self.count(size)):
            yield np.concatenate((next(ours), next(rest)))[place].tolist()


class Hierarchical:
    """The batches of Zhang et al., Use All The Labels, section 3.5 (https://arxiv.org/abs/2204.13207), at any depth.

    A random anchor; then an image of its class, one of its parent but not of its class, and so on up to the coarsest
    level; then the next anchor, until the batch is full. All draws are uniform among the images that no batch of the
    epoch has yet. Where none is left at a level, the anchor gets no partner there; so it is at levels where its label
    is unknown. An epoch visits every image but the rest that fills no batch.

    Labels are (N, levels), coarse first, -1 unknown; a `UserError` where a level is unknown and a finer one is not.
    """

    name = "hierarchical"

    def __init__(self, labels: np.ndarray) -> None:
        gaps = (labels[:, 1:] >= 0) & (labels[:, :-1] < 0)
        if gaps.any():
            row = int(np.flatnonzero(gaps.any(axis=1))[0])
            what = f"data.sampler=hierarchical: image {row} has the labels {labels[row].tolist()}"
            raise UserError(f"{what}, coarse first, unknown (-1) above a known one; give the coarse labels, too")
        self.limit = f"there are {len(labels)}"
        order = np.lexsort(labels.T[::-1])
        # Groups are images with equal labels, sorted: those of a node stand side by side.
        self.starts, numbers = _runs(labels[order])
        self.group = np.empty(len(labels), dtype=np.int64)
        self.group[order] = numbers
        self.rings = _rings(labels[order[self.starts]])

    def count(self, size: int) -> int:
        return len(self.group) // size

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        mixed = rng.permutation(len(self.group))
        members = np.split(mixed[np.argsort(self.group[mixed], kind="stable")], self.starts[1:])
        unused, left = [own.tolist() for own in members], np.bincount(self.group)
        draw = random.Random(int(rng.integers(2**62))).random

        def take(low: int, high: int, inner_low: int, inner_high: int) -> int:
            """The group of an image of a ring, drawn uniformly among those that are left; -1 if none is."""
            counts = left[low:high].copy()
            counts[inner_low - low : inner_high - low] = 0
            ends, chance = counts.cumsum(), draw()
            if not ends[-1]:
                return -1
            group = low + int(ends.searchsorted(int(chance * ends[-1]), side="right"))
            left[group] -= 1
            return group

        for _ in range(self.count(size)):
            batch: list[int] = []
            while len(batch) < size:
                anchor = take(0, len(left), 0, 0)
                batch.append(unused[anchor].pop())
                for ring in self.rings[anchor]:
                    group = take(*ring) if len(batch) < size else -1
                    if group >= 0:
                        batch.append(unused[group].pop())
            yield batch


def _runs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal rows start, and the number of each row's run."""
    new = (np.diff(rows, axis=0) != 0).any(axis=1)
    return np.concatenate(([0], np.flatnonzero(new) + 1)), np.concatenate(([0], np.cumsum(new)))


def _rings(paths: np.ndarray) -> list[list[tuple[int, int, int, int]]]:
    """For each group where its partners are, the finest level first; rings without any group are left out.

    A ring (low, high, a, b) are groups low to high - 1 without those of groups a to b - 1.
    """
    spans, rings = [], []
    for level in range(paths.shape[1]):
        starts, node = _runs(paths[:, : level + 1])
        spans.append([*zip(starts[node].tolist(), np.append(starts, len(paths))[node + 1].tolist(), strict=True)])
    for group, levels in enumerate((paths >= 0).sum(axis=1).tolist()):
        nodes = [*dict.fromkeys(spans[level][group] for level in reversed(range(levels)))]
        rings.append([(*outer, *inner) for outer, inner in zip(nodes, [(0, 0), *nodes], strict=False)])
    return rings


BatchRule = Random | Balanced | PerClass | Hierarchical | Mixed
