"""InfoNCE over ``Pairs``, in log space.

``InfoNCERows`` is the one kernel: HEX subclasses it and splits the denominator (``solo/hex/loss.py``).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from solo import distributed
from solo.losses.blockwise import blockwise
from solo.losses.pairs import Pairs

Positives = Literal["each", "joint"]


class Block(NamedTuple):
    """A block of R anchors against all N keys.

    Attributes:
        rows: which anchors.
        similarity: (R, N) cosines.
        x: (R, N) logits, similarity / temperature.
        negative: (R, N) boolean, N(i).
    """

    rows: slice
    similarity: Tensor
    x: Tensor
    negative: Tensor


class Terms(NamedTuple):
    """The terms whose mean is the loss of an anchor: one a positive (``each``) or one an anchor (``joint``).

    Attributes:
        row: (K,) row of the term within its block.
        column: (K,) key of the positive; None for ``joint``.
        x: (K,) logit of its numerator.
        weight: (K,) share of its anchor's loss; the weights of one anchor sum to 1.
    """

    row: Tensor
    column: Tensor | None
    x: Tensor
    weight: Tensor


class MaskedSoftmax:
    """Log-sum-exp of each row over the entries in a mask, and its gradient, from one pass of ``exp``.

    Args:
        x: (R, N) logits.
        mask: (R, N) boolean.

    Attributes:
        lse: (R,), -inf where the mask is empty.
    """

    def __init__(self, x: Tensor, mask: Tensor) -> None:
        x = x.masked_fill(~mask, -torch.inf)
        largest = x.amax(dim=1)
        largest = largest.masked_fill(largest == -torch.inf, 0)
        self._exp = x.sub_(largest[:, None]).exp_()
        total = self._exp.sum(dim=1)
        self.lse = largest + total.log()
        self._inverse = 1.0 / total.clamp_min(1.0)  # at least 1, unless the row is empty: its largest term is e^0

    def gradient(self, per_row: Tensor) -> Tensor:
        """Gradient (R, N) of ``sum_i per_row_i * lse_i`` with respect to x; may be asked for once."""
        return self._exp.mul_((per_row * self._inverse)[:, None])


class InfoNCERows:
    """``-log( exp(x_p) / (exp(x_p) + sum_{k in N(i)} exp(x_ik)) )`` with ``x = s / temperature``, a block at a time.

    Args:
        pairs: who is compared with whom.
        temperature: > 0.
        positives: ``each``: the mean over an anchor's positives p; ``joint``: one term whose numerator sums over
            them (the log is outside of the sum, as in SimCLR and SupCon of solo-learn). One positive: the same.

    Raises:
        ValueError: if the temperature is not above 0.
    """

    def __init__(self, pairs: Pairs, temperature: float, positives: Positives = "each") -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.pairs, self.positives = pairs, positives
        self.inverse_temperature = 1.0 / temperature
        self.anchors_with_positive = pairs.anchors.new_zeros(())

    def __call__(self, similarity: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Summed loss of a block and its gradient with respect to the similarities (R, N)."""
        positive, negative = self.pairs.masks(rows)
        block = Block(rows, similarity, similarity * self.inverse_temperature, negative)
        joint = MaskedSoftmax(block.x, positive) if self.positives == "joint" else None
        terms = self._terms(block.x, positive, joint)
        loss, d_terms, grad = self.score(block, terms)
        if joint is None:
            grad[terms.row, terms.column] = d_terms  # P(i) and N(i) are disjoint: nothing is overwritten
        else:
            grad += joint.gradient(torch.zeros_like(joint.lse).index_copy_(0, terms.row, d_terms))
        return loss, grad.mul_(self.inverse_temperature)

    def _terms(self, x: Tensor, positive: Tensor, joint: MaskedSoftmax | None) -> Terms:
        if joint is not None:
            row = (joint.lse != -torch.inf).nonzero()[:, 0]  # NaN has to come through
            self.anchors_with_positive += len(row)
            return Terms(row, None, joint.lse[row], torch.ones_like(joint.lse[row]))
        row, column = positive.nonzero(as_tuple=True)
        count = torch.bincount(row, minlength=len(x)).to(x.dtype)
        self.anchors_with_positive += (count > 0).sum()
        return Terms(row, column, x[row, column], (1.0 / count)[row])

    def score(self, block: Block, terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
        """The denominator: what a loss with another one overrides.

        Returns:
            The summed loss (), its gradient with respect to the terms' logits (K,), and with respect to the logits
            of the negatives (R, N), zero elsewhere.
        """
        negatives = MaskedSoftmax(block.x, block.negative)
        lse = negatives.lse[terms.row]
        log_denominator = torch.logaddexp(terms.x, lse)
        share = terms.weight * (lse - log_denominator).exp()
        loss = (terms.weight * (log_denominator - terms.x)).sum()
        return loss, -share, negatives.gradient(sum_per_row(share, terms, negatives.lse))

    def scale(self) -> Tensor:
        """1 / (anchors with a positive, per process): an anchor without one has no term."""
        return 1.0 / distributed.per_process(self.anchors_with_positive)


def sum_per_row(values: Tensor, terms: Terms, like: Tensor) -> Tensor:
    """Sum the values (K,) of the terms of each row: -> (R,), shaped as ``like``."""
    return torch.zeros_like(like).index_add_(0, terms.row, values)


def info_nce(pairs: Pairs, temperature: float, positives: Positives = "each") -> Tensor:
    """InfoNCE loss (van den Oord et al., 2018), mean over the anchors that have a positive.

    Args:
        pairs: who is compared with whom.
        temperature: > 0, divides the cosines.
        positives: how several positives of one anchor count, see ``InfoNCERows``.

    Returns:
        Scalar in float32 or better; 0 where no anchor has a positive.
    """
    return blockwise(pairs, InfoNCERows(pairs, temperature, positives))
