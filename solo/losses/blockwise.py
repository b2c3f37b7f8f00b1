"""Losses over all pairs of a batch, a block of rows at a time, with the gradient written by hand.

A loss gives the gradient of its block with respect to the similarities; value and gradient are made in one forward
pass, so a block is computed once, and backward only multiplies. Memory: two matrices of the size of the embeddings
and a few temporaries of the size of one block.

In a ring (`RingPairs`) keys come in turns. What a row needs of all of them (a log-sum-exp, a count) is joined over the
turns of a first round; the gradient is made in a later one, in which that of the keys travels with them.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo.losses.fused import fused_sum
from solo.losses.pairs import Join, Pairs


class Whole:
    """What a loss asks of its rows when all of their keys are there: every number is that of the whole row.

    Attributes:
        final: what is seen counts, for gradient and records.
        first: numbers of rows count; once for each of them.
    """

    final = first = True

    def blocks(self, pairs: Pairs, carried: Tensor | None) -> Iterator[slice]:
        """Blocks of anchors, as often as numbers are joined; in the end ``carried`` travels with the keys."""
        return pairs.blocks()

    def __call__(self, part: Tensor, join: Join = torch.add, after: int = 0) -> Tensor:
        """The number (R,) of whole rows, made of that of some keys; ``join`` makes one of those of two sets of keys.

        ``after`` so many other numbers are known one after the other.
        """
        return part


class InParts(Whole):
    """The same when keys come in turns: a number is joined in one round, and given to the later ones."""

    def __init__(self) -> None:
        self.final = self.first = False
        self._round, self._rounds = 0, 1
        self._known: dict[tuple[int, int], Tensor] = {}
        self._place = self._asked = 0

    def blocks(self, pairs: Pairs, carried: Tensor | None) -> Iterator[slice]:
        """All blocks in each turn of each round; the numbers of a block are asked for always in the same order."""
        while self._round <= self._rounds:
            self.final = self._round == self._rounds
            for own in pairs.turns(carried if self.final else None):
                self.first = self.final and own
                for rows in pairs.blocks():
                    self._place, self._asked = rows.start, 0
                    yield rows
            self._round += 1

    def __call__(self, part: Tensor, join: Join = torch.add, after: int = 0) -> Tensor:
        key = (self._place, self._asked)
        self._asked += 1
        self._rounds = max(self._rounds, after + 1)
        if after < self._round:
            return self._known[key]
        if after == self._round:
            self._known[key] = join(self._known[key], part) if key in self._known else part.clone()
        return part


WHOLE = Whole()


class RowLoss:
    """A loss over rows of similarities; ``pairs`` says who is compared with whom."""

    whole: Whole = WHOLE
    # (M, k) cosines that a row has with nobody else's partners, and where the gradient with respect to them is left
    own: Tensor | None = None
    d_own: Tensor | None = None

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def __call__(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Summed loss of a block of R anchors, and its gradient with respect to its cosines: (), (R, N)."""
        raise NotImplementedError

    def scale(self) -> Tensor:
        """Factor for the sum over all blocks, asked for when the last block is done; 1 if weights hold everything."""
        return self.pairs.anchors.new_ones(())


def _sum(row_loss: RowLoss, d_anchors: Tensor | None, d_keys: Tensor | None) -> Tensor:
    """The summed loss of all rows, a block at a time; adds its gradients to those that are wanted."""
    pairs, total = row_loss.pairs, row_loss.pairs.anchors.new_zeros(())
    for rows in row_loss.whole.blocks(pairs, d_keys):
        loss, grad = row_loss(rows)
        if not row_loss.whole.final:
            continue
        total += loss
        if d_anchors is not None:
            d_anchors[rows].addmm_(grad, pairs.keys)
        if d_keys is not None:
            d_keys.addmm_(grad.T, pairs.anchors[rows])
    return total


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, keys: Tensor, own: Tensor | None, row_loss: RowLoss) -> Tensor:
        pairs, (want_anchors, want_keys) = row_loss.pairs, ctx.needs_input_grad[:2]
        d_anchors = torch.zeros_like(anchors) if want_anchors else None
        d_keys = torch.zeros_like(keys) if want_keys or (pairs.ring and want_anchors) else None
        with torch.autocast(anchors.device.type, enabled=False):
            total = (fused_sum if pairs.fused else _sum)(row_loss, d_anchors, d_keys)
        if pairs.ring and d_anchors is not None and d_keys is not None:  # the anchors are keys elsewhere
            d_anchors, d_keys = d_anchors.add_(d_keys), None
        ctx.factor = factor = row_loss.scale()
        ctx.save_for_backward(d_anchors, d_keys, row_loss.d_own)
        return total * factor

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factor = grad * ctx.factor
        return (*(None if d is None else d * factor for d in ctx.saved_tensors), None)


def blockwise(row_loss: RowLoss) -> Tensor:
    """The loss of all rows, a scalar with gradient to the anchors and keys of its pairs (first order only).

    In a ring, and by kernels, the gradient of rows that are keys elsewhere is made in the forward pass, so the loss has
    to have the same weight on all processes.
    """
    pairs = row_loss.pairs
    return _Blockwise.apply(pairs.anchors, pairs.keys, row_loss.own, row_loss)  # type: ignore[no-any-return]
