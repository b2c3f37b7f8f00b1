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

Positives = Literal["outside", "inside"]


class Block(NamedTuple):
    """A block of R anchors against all N keys."""

    rows: slice  # which anchors
    similarity: Tensor  # (R, N) cosines
    x: Tensor  # (R, N) logits, similarity / temperature
    negative: Tensor  # (R, N) boolean, N(i)
    positive: Tensor  # (R, N) boolean, P(i)


class Terms(NamedTuple):
    """The terms whose mean is the loss of an anchor: one a positive (``outside``) or one an anchor (``inside``)."""

    row: Tensor  # (K,) row of the term within its block
    column: Tensor | None  # (K,) key of the positive; None where the numerator sums over several
    x: Tensor  # (K,) logit of its numerator
    mean: Tensor  # (K,) log of the mean of exp(logit) over the positives in its numerator
    weight: Tensor  # (K,) share of its anchor's loss; the weights of one anchor sum to 1

    def part(self, which: slice) -> Terms:
        """Those of the terms that stand in a slice."""
        row, column, x, mean, weight = self
        return Terms(row[which], None if column is None else column[which], x[which], mean[which], weight[which])


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
        positives: ``outside``: the mean over an anchor's positives p of the log above (Khosla et al., 2020, L_out);
            ``inside``: one term whose numerator sums over them, inside the log (SimCLR and SupCon of solo-learn). One
            positive: the same, to the last bit.

    Raises:
        ValueError: if the temperature is not above 0, or `positives` unknown.
    """

    def __init__(self, pairs: Pairs, temperature: float, positives: Positives = "outside") -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if positives not in ("outside", "inside"):
            raise ValueError(f"positives must be 'inside' or 'outside' (of the log), got {positives!r}")
        self.pairs, self.positives = pairs, positives
        self.inverse_temperature = 1.0 / temperature
        self.anchors_with_positive = pairs.anchors.new_zeros(())

    def __call__(self, similarity: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Summed loss of a block and its gradient with respect to the similarities (R, N)."""
        positive, negative = self.pairs.masks(rows)
        block = Block(rows, similarity, similarity * self.inverse_temperature, negative, positive)
        row, column = positive.nonzero(as_tuple=True)
        count = torch.bincount(row, minlength=len(positive))
        self.anchors_with_positive += (count > 0).sum()
        summed = self.positives == "inside" and bool((count > 1).any())
        joint = MaskedSoftmax(block.x, positive) if summed else None
        terms = self._terms(block.x, row, column, count.to(block.x.dtype), joint)
        loss, d_terms, grad = self.score(block, terms)
        if joint is None:
            grad[terms.row, terms.column] += d_terms  # no pair is listed twice
        else:
            grad += joint.gradient(torch.zeros_like(joint.lse).index_copy_(0, terms.row, d_terms))
        return loss, grad.mul_(self.inverse_temperature)

    @staticmethod
    def _terms(x: Tensor, row: Tensor, column: Tensor, count: Tensor, joint: MaskedSoftmax | None) -> Terms:
        if joint is None:
            positive = x[row, column]
            return Terms(row, column, positive, positive, (1.0 / count)[row])
        row = (count > 0).nonzero()[:, 0]
        log_sum = joint.lse[row]
        return Terms(row, None, log_sum, log_sum - count[row].log(), torch.ones_like(log_sum))

    def score(self, block: Block, terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
        """The denominator: what a loss with another one overrides.

        Returns:
            The summed loss (), its gradient with respect to the terms' logits (K,), and with respect to the logits
            of whoever else has a part in it, (R, N), zero elsewhere.
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


def info_nce(pairs: Pairs, temperature: float, positives: Positives = "outside") -> Tensor:
    """InfoNCE loss (van den Oord et al., 2018), mean over the anchors that have a positive.

    Args:
        pairs: who is compared with whom.
        temperature: > 0, divides the cosines.
        positives: how several positives of one anchor count, see ``InfoNCERows``.

    Returns:
        Scalar in float32 or better; 0 where no anchor has a positive.
    """
    return blockwise(pairs, InfoNCERows(pairs, temperature, positives))
