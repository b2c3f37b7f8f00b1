"""``Pairs``: who is compared with whom, and who is a positive of whom.

Every contrastive loss reads the batch through this one object: anchors are the rows of this process, keys those of all
processes. Masks are handed out a block of rows at a time, so nothing of size N x N has to live.

Gathered, the keys of all processes and their gradient lie on each of them: 8 GiB for a million rows of 1,024 numbers.
In a ring (Cheng et al., "Breaking the Memory Barrier", CVPR 2025, 2410.17243) keys pass from process to process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from solo import distributed
from solo.precision import at_least_float32

# Elements of one block of similarities: small enough for a CPU's cache, large enough to fill a GPU.
BLOCK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}

# Where a list of the few pairs that matter is faster than whole rows: where their number is known without waiting.
LISTED = {"cpu": True}


def listed(x: Tensor) -> bool:
    """Whether pairs among x are listed, see `LISTED`."""
    return LISTED.get(x.device.type, False)


def unit(z: Tensor) -> Tensor:
    """Rows (..., D) of any floating type, scaled to length 1 in float32 or better.

    A zero row stays zero and gets a zero gradient, where ``F.normalize`` would multiply the gradient by 1e12.
    """
    z = at_least_float32(z)
    # Scaled by the largest entry first: the squares of tiny or huge rows would leave the type's range.
    largest = z.detach().abs().amax(dim=-1, keepdim=True)
    zero = largest == 0
    z = (z / largest.masked_fill(zero, 1)).masked_fill(zero, 0)
    norm = z.square().sum(dim=-1, keepdim=True).masked_fill(zero, 1).sqrt()
    return z / norm


def off_diagonal(c: Tensor) -> Tensor:
    """The entries of a square matrix off its diagonal: (D, D) -> (D - 1, D), in reading order."""
    d = len(c)
    return c.flatten()[:-1].view(d - 1, d + 1)[:, 1:]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Anchors, keys, and the ids and groups that relate them; a ``ValueError`` where shapes don't fit together."""

    ring = False  # all keys are here

    anchors: Tensor  # (M, D) unit rows of this process
    keys: Tensor  # (N, D) unit rows of all processes, gathered with gradient
    anchor_ids: Tensor  # (M,) integers; a key with the same id is a positive
    key_ids: Tensor  # (N,) integers
    offset: int | None  # anchor i is key ``offset + i``; None if anchors are not keys
    anchor_groups: Tensor | None = None  # (M,) coarse labels, -1 for unknown, or None
    key_groups: Tensor | None = None  # (N,) coarse labels, or None
    positives_only: int = 0  # so many first keys are never negatives (MoCo's keys of the batch, before its queue)
    complete: bool = False  # every anchor is known to have a positive, on all processes equally many
    fused: bool = False  # the loss is that of kernels, see `solo.losses.fused`

    @classmethod
    def from_ids(cls, z: Tensor, ids: Tensor, groups: Tensor | None = None, gather: bool = True) -> Pairs:
        """Compare every row of ``z`` (N, D), of any length, with every other row; those with equal ids are positives.

        ``ids`` (N,) are those of images, or class labels for supervised losses, ``groups`` (N,) coarse labels for the
        ``superclass`` policy, -1 for unknown; with ``gather`` the rows of all processes are keys.
        """
        return cls.ids_later(z, ids, groups, gather)()

    @classmethod
    def ids_later(cls, z: Tensor, ids: Tensor, groups: Tensor | None = None, gather: bool = True) -> Later:
        """`from_ids` whose keys travel with what is gathered next; what is returned makes the pairs."""
        if z.ndim != 2 or ids.shape != z.shape[:1] or (groups is not None and groups.shape != ids.shape):
            got = [None if x is None else tuple(x.shape) for x in (z, ids, groups)]
            raise ValueError(f"expected z (N, D), ids (N,) and groups (N,) or None, got {', '.join(map(str, got))}")
        z, ids, groups = unit(z), ids.to(z.device), None if groups is None else groups.to(z.device)
        own = [z, ids, *([] if groups is None else [groups])]
        found = distributed.gather_later(*own) if gather else lambda: own
        first = distributed.rank() * len(z) if gather else 0

        def pairs() -> Pairs:
            keys, key_ids, *more = found()
            return cls(z, keys, ids, key_ids, first, groups, more[0] if more else None)

        return pairs

    @classmethod
    def from_views(
        cls, views: Sequence[Tensor], ids: Tensor | None = None, groups: Tensor | None = None, gather: bool = True
    ) -> Pairs:
        """Compare all views of all images, V tensors (B, D); the other views of the same image are positives.

        Sample ids (B,) are unique over all processes; None numbers the images. The rest is as in ``from_ids``.
        """
        return cls.views_later(views, ids, groups, gather)()

    @classmethod
    def views_later(
        cls, views: Sequence[Tensor], ids: Tensor | None = None, groups: Tensor | None = None, gather: bool = True
    ) -> Later:
        """`from_views` whose keys travel with what is gathered next; what is returned makes the pairs."""
        if len({view.shape for view in views}) != 1:
            raise ValueError(f"views must have one shape (B, D), got {[tuple(view.shape) for view in views]}")
        repeat, batch = len(views), len(views[0])
        if ids is None:
            first = distributed.rank() * batch if gather else 0
            ids = torch.arange(first, first + batch, device=views[0].device)
        groups = None if groups is None else groups.repeat(repeat)
        rows = torch.cat([at_least_float32(view) for view in views])
        pairs = cls.ids_later(rows, ids.repeat(repeat), groups, gather)
        return lambda: replace(pairs(), complete=repeat > 1)

    @classmethod
    def between(cls, anchors: Tensor, keys: Tensor, ids: Tensor, groups: Tensor | None = None) -> Pairs:
        """Compare one set of rows with another; the key of the same image is the positive (NNCLR, MoCo v3).

        Anchors and keys are (B, D), of any length, row by row of the same images with ``ids`` (B,); the keys of all
        processes are used. ``groups`` (B,) are coarse labels, -1 for unknown.
        """
        return cls.between_later([anchors], [keys], ids, groups)()[0]

    @classmethod
    def between_later(
        cls, anchors: Sequence[Tensor], keys: Sequence[Tensor], ids: Tensor, groups: Tensor | None = None
    ) -> Callable[[], list[Pairs]]:
        """`between` of several, all of the same images, whose keys travel together, with what is gathered next."""
        for a, b in zip(anchors, keys, strict=True):
            if a.shape != b.shape:
                raise ValueError(f"anchors {tuple(a.shape)} and keys {tuple(b.shape)} must have one shape (B, D)")
        ids = ids.to(keys[0].device)
        groups = None if groups is None else groups.to(ids.device)
        found = distributed.gather_later(*map(unit, keys), ids, ids if groups is None else groups)

        def pairs() -> list[Pairs]:
            *every, key_ids, known = found()
            labels = (ids, key_ids, None, groups, None if groups is None else known)
            both = zip(anchors, every, strict=True)
            return [cls(unit(rows), others, *labels, complete=True) for rows, others in both]

        return pairs

    @classmethod
    def with_queue(
        cls,
        anchors: Tensor,
        keys: Tensor,
        queue: Tensor,
        groups: Tensor | None = None,
        queue_groups: Tensor | None = None,
    ) -> Pairs:
        """Compare every row with its own key, the positive, and with a queue, the negatives (MoCo v2).

        Anchors and keys are (B, D), of any length, row by row of the same images, the queue (K, D), the same on all
        processes; their coarse labels (B,) and (K,), -1 for unknown.
        """
        if anchors.shape != keys.shape or queue.shape[1:] != keys.shape[1:]:
            got = ", ".join(str(tuple(x.shape)) for x in (anchors, keys, queue))
            raise ValueError(f"expected anchors and keys (B, D) and a queue (K, D), got {got}")
        ids = torch.arange(len(keys), device=anchors.device)
        key_ids = torch.cat([ids, ids.new_full((len(queue),), -1)])
        key_groups = None if groups is None or queue_groups is None else torch.cat([groups, queue_groups])
        both = torch.cat([unit(keys), unit(queue)])
        return cls(unit(anchors), both, ids, key_ids, None, groups, key_groups, len(keys), complete=True)

    def turns(self, carried: Tensor | None = None) -> Iterator[bool]:
        """Once: all keys are here, see `RingPairs`."""
        return iter((True,))

    def blocks(self) -> Iterator[slice]:
        """Slices of anchor rows whose similarities fit the block budget of the device."""
        budget = BLOCK_ELEMENTS.get(self.anchors.device.type, BLOCK_ELEMENTS["cuda"])
        step = max(1, budget // max(1, len(self.keys)))
        return (slice(start, min(start + step, len(self.anchors))) for start in range(0, len(self.anchors), step))

    def similarity(self, rows: slice) -> Tensor:
        """Cosines of a block of anchors with all keys, (R, N), without gradient."""
        with torch.no_grad(), torch.autocast(self.anchors.device.type, enabled=False):
            return self.anchors[rows] @ self.keys.T

    def masks(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Positives P(i) and negatives N(i) of a block of anchors, two boolean (R, N); nobody is a pair of itself."""
        same = self.anchor_ids[rows, None] == self.key_ids
        negative = ~same
        if self.offset is not None:
            same.diagonal(self.offset + rows.start).fill_(False)
        negative[:, : self.positives_only] = False
        return same, negative

    def same_group(self, rows: slice) -> Tensor:
        """Whether anchor and key share a known coarse label, boolean (R, N)."""
        if self.anchor_groups is None or self.key_groups is None:
            cure = "give `groups`, or use data with a label tree, or another policy (adaptive, fixed)"
            raise ValueError(f"the superclass policy needs the coarse labels of the batch, got none: {cure}")
        groups = self.anchor_groups[rows, None]
        return (groups == self.key_groups) & (groups >= 0)


class RingPairs(Pairs):
    """Pairs of which ``keys``, ``key_ids``, ``key_groups`` and ``offset`` are those of the process whose turn it is."""

    ring = True

    @classmethod
    def ids_later(cls, z: Tensor, ids: Tensor, groups: Tensor | None = None, gather: bool = True) -> Later:
        """As in ``Pairs``; of one process, or without ``gather``, the same."""
        own = Pairs.from_ids(z, ids, groups, gather=False)
        if not (gather and distributed.is_distributed()):
            return lambda: own
        groups = own.anchor_groups
        return lambda: cls(own.anchors, own.anchors.detach(), own.anchor_ids, own.anchor_ids, 0, groups, groups)

    def turns(self, carried: Tensor | None = None) -> Iterator[bool]:
        """Show the keys of each process, this one's own first; tells whether it is these.

        What is ``carried``, of the size of the keys, travels with them and is back home in the end.
        """
        names = ("keys", "key_ids", *(("key_groups",) if self.key_groups is not None else ()))
        own = held = [getattr(self, name) for name in names]
        number = distributed.world_size()
        for turn in range(number):
            vars(self).update(zip(names, held, strict=True), offset=None if turn else 0)
            arrived = distributed.pass_on(held) if turn + 1 < number else None  # while this turn is looked at
            yield turn == 0
            held = own if arrived is None else arrived()
            if carried is not None:
                carried.copy_(distributed.pass_on([carried])()[0])
        vars(self).update(zip(names, own, strict=True), offset=0)

    def per_row(self, keep: Callable[[Tensor], Tensor]) -> Tensor:
        """What is kept of rows of cosines, (R, N) -> (R, K), of all keys: of each turn, and of that of two of them."""
        parts = (torch.cat([keep(self.similarity(rows)) for rows in self.blocks()]) for _ in self.turns())
        return reduce(lambda one, other: keep(torch.cat([one, other], dim=1)), parts)


Later = Callable[[], Pairs]
