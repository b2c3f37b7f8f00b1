"""Batches of which a fixed share has labels, for training sets where few images have any."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from solo.data.batches.balanced import BatchRule


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
        ours, rest = self._labelled(labelled, rng), self._others(others, rng)
        # The place of each image in its batch: the n-th of a kind stands where n + 1/2 of that kind are expected.
        place = np.argsort(np.concatenate([(np.arange(n) + 0.5) / n for n in (labelled, others)]), kind="stable")
        for _ in range(self.count(size)):
            yield np.concatenate((next(ours), next(rest)))[place].tolist()

    def _labelled(self, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        while True:
            for batch in self.rule.batches(size, rng):
                yield self.labelled[batch]

    def _others(self, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        while True:
            order = rng.permutation(self.others)
            for start in range(0, len(order) - size + 1, size):
                yield order[start : start + size]
