"""What composes batches: chance, equally many images of each class, some of some classes, a share with labels.

A rule has `count(size)`, batches of `size` images in an epoch, and `batches(size, rng)`, as many batches of image
indexes, none of them twice; its `name` and `limit` (how many images there are for a batch) are for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from solo.data.batches.hierarchical import Hierarchical


class Random:
    """Batches of some of `number` images, by chance."""

    name = "random"

    def __init__(self, number: int) -> None:
        self.number = number
        self.limit = f"there are {number}"

    def count(self, size: int) -> int:
        """Batches of `size` images in an epoch."""
        return self.number // size

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        """As many batches of image indexes."""
        order = rng.permutation(self.number)
        return (order[start : start + size].tolist() for start in range(0, self.count(size) * size, size))


class Balanced:
    """Equally many images of each node, give or take one, in a batch and in an epoch; `nodes` (N,), -1: left out.

    An epoch ends with the smallest node; the others take a random part of their images, another one each time. With
    more nodes than images in a batch, all images of a batch are of different nodes.

    Ends: an epoch of n images of each of C nodes has floor(C n / size) batches, each made by one pass of array
    operations. They take size // C columns of an (n, C) table, and the rest from the columns that are left: those hold
    enough, because size * batches <= C n.
    """

    name = "balanced"

    def __init__(self, nodes: np.ndarray) -> None:
        self.members = _members(nodes)
        self.smallest = min(map(len, self.members))
        self.limit = f"the smallest of {len(self.members)} classes has {self.smallest}"

    def count(self, size: int) -> int:
        """Batches of `size` images in an epoch."""
        return len(self.members) * self.smallest // size

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        """As many batches of image indexes; each stretch of a batch is balanced, too."""
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
    """P different nodes in a batch, K images of each (Hermans et al., https://arxiv.org/abs/1703.07737, section 2).

    Each node's images are cut into groups of K = `per_class`, which divides the batch size. An epoch has the most
    batches that are possible: the largest T for which the nodes, with at most T groups each, have P T groups. Which
    groups and images stay out is random. `nodes` (N,) is -1 for images to leave out.
    """

    def __init__(self, nodes: np.ndarray, per_class: int) -> None:
        self.name = f"pxk with data.per_class={per_class}"
        self.members = _members(nodes)
        self.per_class = per_class
        self.groups = np.array([len(images) // per_class for images in self.members])
        self.limit = f"{int((self.groups > 0).sum())} classes have that many"

    def count(self, size: int) -> int:
        """Batches of `size` images in an epoch. What T batches allow, T - 1 do, so that halving finds the largest."""
        picks = size // self.per_class
        low, high = 0, int(self.groups.sum()) // picks
        while low < high:
            middle = (low + high + 1) // 2
            if np.minimum(self.groups, middle).sum() >= picks * middle:
                low = middle
            else:
                high = middle - 1
        return low

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        """As many batches of image indexes, the K images of a node side by side."""
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

    Ends after `count` passes, and never lacks a node: with R batches to go, no node has more than R turns left and all
    have `picks * R` together. Hence at most `picks` nodes must come, and at least `picks` nodes can. A pass takes a
    turn from `picks` nodes and from all that must come, so that the same holds with R - 1.
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

    Where a tenth of the images has labels, so has a tenth of a random batch: few images to be partners of each other.
    Here they come more often instead. An epoch has as many batches as before; labelled and other images are both gone
    through round after round, so that one comes twice only after all of its kind. The two kinds alternate in a batch,
    so that every stretch of it, one process's for instance, has the share, give or take one image.

    Ends: a round has at least a batch of its kind, which `count` makes sure of.

    Args:
        make: the rule that composes the labelled images, from their numbers among all.
        labelled: bool (N,).
        share: of labelled images in a batch, in (0, 1).
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
        """Images with and without labels in a batch."""
        labelled = min(max(1, round(self.share * size)), size - 1)
        return labelled, size - labelled

    def count(self, size: int) -> int:
        """Batches of `size` images in an epoch."""
        labelled, others = self.parts(size)
        if size < 2 or len(self.others) < others or self.rule.count(labelled) == 0:
            return 0
        return (len(self.labelled) + len(self.others)) // size

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        """As many batches of image indexes."""
        labelled, others = self.parts(size)
        ours = (self.labelled[batch] for _ in count() for batch in self.rule.batches(labelled, rng))
        orders = (rng.permutation(self.others) for _ in count())
        rest = (order[i : i + others] for order in orders for i in range(0, len(order) - others + 1, others))
        # The place of each image in its batch: the n-th of a kind stands where n + 1/2 of that kind are expected.
        place = np.argsort(np.concatenate([(np.arange(n) + 0.5) / n for n in (labelled, others)]), kind="stable")
        for _ in range(self.count(size)):
            yield np.concatenate((next(ours), next(rest)))[place].tolist()


BatchRule = Random | Balanced | PerClass | Hierarchical | Mixed
