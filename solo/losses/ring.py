"""Losses over the rows of all processes of which each holds only its own: keys pass from process to process.

Gathered, the keys of all processes and their gradient lie on each of them: 8 GiB for a million rows of 1,024 numbers.
In a ring a process holds a few sets of its own size. What a row needs of all keys (a log-sum-exp, a count) is joined
over the turns of a first round; the gradient is made in another one, in which that of the keys travels with them. Rings
of devices for contrastive losses: Cheng et al., "Breaking the Memory Barrier", CVPR 2025, 2410.17243.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo import distributed
from solo.losses.pairs import Later, Pairs

Join = Callable[[Tensor, Tensor], Tensor]


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

        Args:
            carried: of the size of the keys, travels with them and is back home in the end.
        """
        names = ("keys", "key_ids", *(("key_groups",) if self.key_groups is not None else ()))
        own = [self.keys, self.key_ids, *([] if self.key_groups is None else [self.key_groups])]
        held = own
        number = distributed.world_size()
        for turn in range(number):
            vars(self).update(zip(names, held, strict=True), offset=None if turn else 0)
            arrived = distributed.pass_on(held) if turn + 1 < number else None  # while this turn is looked at
            yield turn == 0
            held = own if arrived is None else arrived()
            if carried is not None:
                carried.copy_(distributed.pass_on([carried])()[0])
        vars(self).update(zip(names, own, strict=True), offset=0)

    def per_row(self, part: Callable[[Tensor], Tensor], join: Join) -> Tensor:
        """A function of a row's cosines, (R, N) -> (R, ...), of all keys: that of each turn, joined."""
        found: Tensor | None = None
        for _ in self.turns():
            new = torch.cat([part(self.similarity(rows)) for rows in self.blocks()])
            found = new if found is None else join(found, new)
        assert found is not None
        return found


class Whole:
    """What a loss asks of its rows when all of their keys are there: every number is that of the whole row.

    Attributes:
        final: what is seen counts, for gradient and records.
        first: numbers of rows count; once for each of them.
    """

    final = first = True

    def __call__(self, part: Tensor, join: Join = torch.add, after: int = 0) -> Tensor:
        """The number (R,) of whole rows, made of some keys.

        Args:
            part: of these keys.
            join: makes one number of those of two sets of keys.
            after: how many other numbers have to be known one after the other before this one.
        """
        return part


class InParts(Whole):
    """The same when keys come in turns: a number is joined in one round, and given to the later ones."""

    def __init__(self) -> None:
        self.round, self.rounds = 0, 1
        self.final = self.first = False
        self._known: dict[tuple[int, int], Tensor] = {}
        self._place, self._asked = 0, 0

    def start(self, rows: slice, own: bool) -> None:
        """The numbers of a block are asked for, always in the same order."""
        self._place, self._asked = rows.start, 0
        self.final = self.round == self.rounds
        self.first = self.final and own

    def __call__(self, part: Tensor, join: Join = torch.add, after: int = 0) -> Tensor:
        """See above."""
        key = (self._place, self._asked)
        self._asked += 1
        self.rounds = max(self.rounds, after + 1)
        if after < self.round:
            return self._known[key]
        if after == self.round:
            self._known[key] = join(self._known[key], part) if key in self._known else part.clone()
        return part


class _RingLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, pairs: RingPairs, row_loss: Any) -> Tensor:
        whole, total = row_loss.whole, anchors.new_zeros(())
        d_anchors, d_keys = torch.zeros_like(anchors), torch.zeros_like(anchors)
        with torch.autocast(anchors.device.type, enabled=False):
            while not whole.final:
                last = whole.round == whole.rounds
                for own in pairs.turns(d_keys if last else None):
                    for rows in pairs.blocks():
                        whole.start(rows, own)
                        loss, grad = row_loss(pairs.similarity(rows), rows)
                        if last:
                            total += loss
                            d_anchors[rows].addmm_(grad, pairs.keys)
                            d_keys.addmm_(grad.T, anchors[rows])
                whole.round += 1
        factor: Tensor = row_loss.scale()
        ctx.save_for_backward(d_anchors.add_(d_keys).mul_(factor))
        return total * factor

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.saved_tensors[0] * grad, None, None


def ring_loss(pairs: RingPairs, row_loss: Any) -> Tensor:
    """The loss of all rows, as ``blockwise`` has it; ``row_loss.whole`` is an ``InParts``.

    The gradient of rows that are keys elsewhere is made in the forward pass, so the loss has to have the same weight on
    all processes.
    """
    return _RingLoss.apply(pairs.anchors, pairs, row_loss)  # type: ignore[no-any-return]
