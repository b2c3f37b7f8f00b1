"""Losses over all pairs of a batch, a block of rows at a time, with the gradient written by hand.

A loss gives the gradient of its block with respect to the similarities; value and gradient are made in one forward
pass, so a block is computed once, and backward only multiplies. Memory: two matrices of the size of the embeddings
and a few temporaries of the size of one block.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo.losses.fused import fused_loss
from solo.losses.pairs import Pairs
from solo.losses.ring import RingPairs, ring_loss


class RowLoss(Protocol):
    """What a loss over rows of similarities provides."""

    def __call__(self, similarity: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Summed loss of a block, and its gradient: (R, N) -> (), (R, N). May overwrite ``similarity``."""
        ...

    def scale(self) -> Tensor:
        """Factor for the sum over all blocks, asked for when the last block is done (1 / number of anchors)."""
        ...


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        keys: Tensor,
        own: Tensor | None,
        d_own: Tensor | None,
        pairs: Pairs,
        row_loss: RowLoss,
        similarity: Callable[[slice], Tensor],
    ) -> Tensor:
        total = anchors.new_zeros(())
        want_anchors, want_keys = ctx.needs_input_grad[:2]
        d_anchors = torch.zeros_like(anchors) if want_anchors else None
        d_keys = torch.zeros_like(keys) if want_keys else None
        with torch.autocast(anchors.device.type, enabled=False):
            for rows in pairs.blocks():
                loss, grad = row_loss(similarity(rows), rows)
                total += loss
                if d_anchors is not None:
                    torch.mm(grad, keys, out=d_anchors[rows])
                if d_keys is not None:
                    d_keys.addmm_(grad.T, anchors[rows])
        factor = row_loss.scale()
        ctx.factor = factor
        ctx.save_for_backward(d_anchors, d_keys, d_own)
        return total * factor

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factor = grad * ctx.factor
        ours = (None if d is None else d * factor for d in ctx.saved_tensors)
        return (*ours, None, None, None, None)


def blockwise(
    pairs: Pairs,
    row_loss: RowLoss,
    similarity: Callable[[slice], Tensor] | None = None,
    own: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:
    """The loss of all rows of ``pairs``, a scalar with gradient to its anchors and keys (first order only).

    Args:
        pairs: who is compared with whom.
        row_loss: loss and gradient of a block.
        similarity: gives the cosines of a block, for a loss that has some already; ``pairs.similarity`` by default.
        own: (M, k) cosines that a row has with nobody else's partners, and where ``row_loss`` leaves its gradient with
            respect to them.
    """
    if pairs.fused:
        return fused_loss(pairs, row_loss)
    if isinstance(pairs, RingPairs):
        return ring_loss(pairs, row_loss)
    arguments = (*own, pairs, row_loss, similarity or pairs.similarity)
    return _Blockwise.apply(pairs.anchors, pairs.keys, *arguments)  # type: ignore[no-any-return]
