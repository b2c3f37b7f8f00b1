"""Batches in which images have partners at every level of the label tree."""

import random
from collections.abc import Iterator

import numpy as np

from solo.errors import UserError

# Images of groups lo to hi - 1 without those of groups a to b - 1.
Ring = tuple[int, int, int, int]


class Hierarchical:
    """The batches of Zhang et al., Use All The Labels, section 3.5 (https://arxiv.org/abs/2204.13207), at any depth.

    A random anchor; then an image of its class, one of its parent but not of its class, and so on up to the coarsest
    level; then the next anchor, until the batch is full. All draws are uniform among the images that no batch of the
    epoch has yet. Where none is left at a level, the anchor gets no partner there; so it is at levels where its label
    is unknown. An epoch visits every image but the rest that fills no batch.

    Ends: each pass of the inner loop takes at least its anchor, and all batches together have at most as many images as
    there are. A pass has at most one draw a level, and a draw is at most five walks of log2(groups) + 1 steps.

    Labels are (N, levels), coarse first, -1 unknown. Raises a `UserError` where a level is unknown and a finer one is
    not.
    """

    name = "hierarchical"

    def __init__(self, labels: np.ndarray) -> None:
        known = labels >= 0
        if (known[:, 1:] & ~known[:, :-1]).any():
            row = int(np.flatnonzero((known[:, 1:] & ~known[:, :-1]).any(axis=1))[0])
            what = f"data.sampler=hierarchical: image {row} has the labels {labels[row].tolist()}"
            raise UserError(f"{what}, coarse first, unknown (-1) above a known one; give the coarse labels, too")
        self.limit = f"there are {len(labels)}"
        order = np.lexsort(labels.T[::-1])
        new = (np.diff(labels[order], axis=0) != 0).any(axis=1)
        self.starts = np.concatenate(([0], np.flatnonzero(new) + 1))
        self.group = np.empty(len(labels), dtype=np.int64)
        self.group[order] = np.concatenate(([0], np.cumsum(new)))
        self.sizes = np.bincount(self.group)
        # Groups are images with equal labels, sorted: those of a node stand side by side.
        self.rings = _rings(labels[order[self.starts]])

    def count(self, size: int) -> int:
        """Batches of `size` images in an epoch."""
        return len(self.group) // size

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
        """As many batches of image indexes; an anchor and its partners stand side by side."""
        mixed = rng.permutation(len(self.group))
        images = mixed[np.argsort(self.group[mixed], kind="stable")].tolist()
        starts, unused = self.starts.tolist(), _Counts(self.sizes)
        draw = random.Random(int(rng.integers(2**62))).random
        everything = (0, len(starts), 0, 0)
        for _ in range(self.count(size)):
            batch: list[int] = []
            while len(batch) < size:
                anchor = unused.take(everything, draw())
                batch.append(images[starts[anchor] + unused.left[anchor]])
                for ring in self.rings[anchor]:
                    group = unused.take(ring, draw()) if len(batch) < size else -1
                    if group >= 0:
                        batch.append(images[starts[group] + unused.left[group]])
            yield batch


def _rings(paths: np.ndarray) -> list[list[Ring]]:
    """For each group where its partners are, the finest level first; rings without any group are left out."""
    count, depth = paths.shape
    spans = np.empty((depth, count, 2), dtype=np.int64)
    for level in range(depth):
        new = (np.diff(paths[:, : level + 1], axis=0) != 0).any(axis=1)
        edges = np.concatenate(([0], np.flatnonzero(new) + 1, [count]))
        node = np.concatenate(([0], np.cumsum(new)))
        spans[level] = np.stack((edges[node], edges[node + 1]), axis=1)
    rings: list[list[Ring]] = []
    for group, levels in enumerate((paths >= 0).sum(axis=1).tolist()):
        inner, own = (0, 0), []
        for level in range(levels - 1, -1, -1):
            low, high = spans[level, group].tolist()
            if (low, high) != inner:
                own.append((low, high, *inner))
            inner = low, high
        rings.append(own)
    return rings


class _Counts:
    """How many images of each group are left, with sums over ranges of groups and draws in log(groups) steps.

    The sums are kept in a binary indexed tree (Fenwick, A new data structure for cumulative frequency tables, 1994).
    """

    def __init__(self, sizes: np.ndarray) -> None:
        self.left = sizes.tolist()
        total = np.concatenate(([0], np.cumsum(sizes)))
        ends = np.arange(len(sizes) + 1)
        self.sums = (total - total[ends & (ends - 1)]).tolist()  # sums[i]: of the lowest bit of i groups before i
        self.top = 1 << (len(sizes).bit_length() - 1)

    def before(self, group: int) -> int:
        """Images in the groups before this one."""
        total = 0
        while group:
            total += self.sums[group]
            group &= group - 1
        return total

    def take(self, ring: Ring, chance: float) -> int:
        """Take an image out of a ring and return its group, -1 if none is left; `chance` in [0, 1) says which."""
        low, high, inner_low, inner_high = ring
        if high - low == 1:
            group = low if self.left[low] else -1
        else:
            first = self.before(low)
            skipped_from = self.before(inner_low) if inner_high else 0
            skipped = self.before(inner_high) - skipped_from if inner_high else 0
            free = self.before(high) - first - skipped
            place = first + int(chance * free)
            place += skipped if skipped and place >= skipped_from else 0
            group, step = (0, self.top) if free else (-1, 0)
            while step:  # down to the group of the image at that place, groups counted one after the other
                further = group + step
                if further < len(self.sums) and self.sums[further] <= place:
                    group, place = further, place - self.sums[further]
                step >>= 1
        if group >= 0:
            self.left[group] -= 1
            above = group + 1
            while above < len(self.sums):
                self.sums[above] -= 1
                above += above & -above
        return group
