"""Losses over all pairs of a batch, a block of rows at a time, and InfoNCE among them.

A ``RowLoss`` gives the gradient of a block with respect to its cosines; value and gradient are made in one forward
pass, and backward only multiplies. Memory: two matrices of the size of the embeddings and a few temporaries of the size
of one block. ``InfoNCERows`` is in log space; HEX subclasses it and splits the denominator (``solo/hex/rows.py``).

In a ring (`RingPairs`) keys come in turns. What a row needs of all of them (a log-sum-exp, a count) is joined over the
turns of a first round; the gradient is made in a later one, in which that of the keys travels with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from solo import distributed
from solo.losses.fused import Choice, fused_sum
from solo.losses.pairs import Pairs, listed, unit
from solo.precision import full_precision

Positives = Literal["outside", "inside"]


class Whole:
    """What a loss asks of its rows: every number is that of the whole row, where keys come in turns, too.

    There it is joined in one round, and given to the later ones.
    """

    def __init__(self, ring: bool = False) -> None:
        self.ring = ring
        self.final = not ring  # what is seen counts, for gradient and records
        self.first = not ring  # numbers of rows count; once for each of them
        self._round, self._rounds = 0, 1
        self._known: dict[tuple[int, int], Tensor] = {}
        self._place = self._asked = 0

    def blocks(self, pairs: Pairs, carried: Tensor | None) -> Iterator[slice]:
        """Blocks of anchors, in each turn of each round; in the last one ``carried`` travels with the keys."""
        if not self.ring:
            yield from pairs.blocks()
            return
        while self._round <= self._rounds:
            self.final = self._round == self._rounds
            for own in pairs.turns(carried if self.final else None):
                self.first = self.final and own
                for rows in pairs.blocks():
                    self._place, self._asked = rows.start, 0
                    yield rows
            self._round += 1

    def __call__(self, part: Tensor, join: Callable[[Tensor, Tensor], Tensor] = torch.add, after: int = 0) -> Tensor:
        """The number (R,) of whole rows, made of that of some keys; ``join`` makes one of those of two sets of keys.

        ``after`` so many others are known one after the other; those of a block are asked for in the same order always.
        """
        if not self.ring:
            return part
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
    """A loss over rows of cosines; ``pairs`` says who is compared with whom."""

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

    In a ring, and by kernels, the gradient of rows that are keys elsewhere is made in the forward pass: the loss has to
    have the same weight on all processes.
    """
    pairs = row_loss.pairs
    return _Blockwise.apply(pairs.anchors, pairs.keys, row_loss.own, row_loss)  # type: ignore[no-any-return]


class Block(NamedTuple):
    """A block of R anchors against all N keys."""

    rows: slice  # which anchors
    similarity: Tensor  # (R, N) cosines
    x: Tensor  # (R, N) logits, similarity / temperature
    negative: Tensor  # (R, N) boolean, N(i)
    positive: Tensor  # (R, N) boolean, P(i)


class Terms(NamedTuple):
    """The terms whose mean is the loss of an anchor: one a positive (``outside``) or one an anchor (``inside``).

    A list of K; where that would mean to wait for a device, the matrix of all R x N pairs, most without a weight.
    """

    row: Tensor | None  # (K,) row of the term within its block; None for the matrix
    column: Tensor | None  # (K,) key of the positive; None where the numerator sums over several, or for the matrix
    x: Tensor  # (K,) or (R, N) logit of its numerator
    mean: Tensor  # of that shape, log of the mean of exp(logit) over the positives in its numerator
    weight: Tensor  # of that shape, share of its anchor's loss; the weights of one anchor sum to 1

    def of(self, per_row: Tensor) -> Tensor:
        """Values of rows (R,) as values of terms: (K,), or (R, 1) for the matrix."""
        return per_row[:, None] if self.row is None else per_row[self.row]

    def part(self, which: slice) -> Terms:
        return Terms._make(None if x is None else x[which] for x in self)


class MaskedSoftmax:
    """Log-sum-exp of each row over the entries in a mask, and its gradient, from one pass of ``exp``.

    Of logits (R, N); `whole` makes numbers of whole rows, where N isn't all keys.
    """

    def __init__(self, x: Tensor, mask: Tensor, whole: Whole = WHOLE) -> None:
        x = x.masked_fill(~mask, -torch.inf)
        largest = x.amax(dim=1)
        largest = largest.masked_fill(largest == -torch.inf, 0)
        self._exp = x.sub_(largest[:, None]).exp_()
        total = self._exp.sum(dim=1)
        lse = largest + total.log()
        self.lse = whole(lse, torch.logaddexp)  # (R,), -inf where the mask is empty
        self._inverse = 1.0 / total.clamp_min(1.0)  # at least 1, unless the row is empty: its largest term is e^0
        if self.lse is not lse:
            self._inverse *= torch.where(total > 0, (lse - self.lse).exp(), 0.0)

    def gradient(self, per_row: Tensor) -> Tensor:
        """Gradient (R, N) of ``sum_i per_row_i * lse_i`` with respect to x; may be asked for once."""
        return self._exp.mul_((per_row * self._inverse)[:, None])


class InfoNCERows(RowLoss):
    """``-log( exp(x_p) / (exp(x_p) + sum_{k in N(i)} exp(x_ik)) )`` with ``x = s / temperature``, a block at a time.

    With positives ``outside``, the mean over an anchor's positives p of the log above (Khosla et al., 2020, L_out);
    ``inside``, one term whose numerator sums over them (SimCLR and SupCon of solo-learn). One positive: the same bits.
    """

    def __init__(self, pairs: Pairs, temperature: float, positives: Positives = "outside") -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if positives not in ("outside", "inside"):
            raise ValueError(f"positives must be 'inside' or 'outside' (of the log), got {positives!r}")
        super().__init__(pairs)
        self.positives, self.inverse_temperature = positives, 1.0 / temperature
        self.anchors_with_positive = pairs.anchors.new_zeros(())
        self.whole = Whole(pairs.ring)
        self.lists = listed(pairs.anchors) and not pairs.ring  # positives, and whatever else is a small share of a row

    def __call__(self, rows: slice) -> tuple[Tensor, Tensor]:
        similarity = self.pairs.similarity(rows)
        positive, negative = self.pairs.masks(rows)
        block = Block(rows, similarity, similarity * self.inverse_temperature, negative, positive)
        terms, joint = self._listed(block) if self.lists else self._unlisted(block)
        loss, d_terms, grad = self.score(block, terms)
        if terms.row is not None and not self.whole.first:
            loss = torch.zeros_like(loss)
        if joint is not None:
            grad += joint.gradient(self.per_row(terms, d_terms, len(grad)))
        elif terms.row is None:
            grad += d_terms
        else:
            grad[terms.row, terms.column] += d_terms  # no pair is listed twice
        return loss, grad.mul_(self.inverse_temperature)

    def _listed(self, block: Block) -> tuple[Terms, MaskedSoftmax | None]:
        row, column = block.positive.nonzero(as_tuple=True)
        number = torch.bincount(row, minlength=len(block.positive))
        self.anchors_with_positive += (number > 0).sum()
        count = number.to(block.x.dtype)
        if self.positives == "outside" or not bool((number > 1).any()):
            positive = block.x[row, column]
            return Terms(row, column, positive, positive, (1.0 / count)[row]), None
        joint = MaskedSoftmax(block.x, block.positive)
        row = (number > 0).nonzero()[:, 0]
        log_sum = joint.lse[row]
        return Terms(row, None, log_sum, log_sum - count[row].log(), torch.ones_like(log_sum)), joint

    def _unlisted(self, block: Block) -> tuple[Terms, MaskedSoftmax | None]:
        """The same without the number of positives, for which a device would have to be asked."""
        count = self.whole(block.positive.sum(dim=1).to(block.x.dtype))
        if self.whole.first:
            self.anchors_with_positive += (count > 0).sum()
        if self.positives == "outside":
            weight = block.positive.to(block.x.dtype).div_(count.clamp_min(1)[:, None])
            return Terms(None, None, block.x, block.x, weight), None
        joint = MaskedSoftmax(block.x, block.positive, self.whole)
        log_sum = joint.lse.masked_fill(count == 0, 0)
        row = torch.arange(len(count), device=count.device)
        return Terms(row, None, log_sum, log_sum - count.clamp_min(1).log(), (count > 0).to(count.dtype)), joint

    def score(self, block: Block, terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
        """The summed loss (), and its gradients: what a loss with another denominator overrides.

        With respect to the terms' logits (K,), and to those of whoever else has a part in it, (R, N), zero elsewhere.
        """
        negatives = MaskedSoftmax(block.x, block.negative, self.whole)
        lse = terms.of(negatives.lse)
        log_denominator = torch.logaddexp(terms.x, lse)
        share = terms.weight * (lse - log_denominator).exp()
        loss = (terms.weight * (log_denominator - terms.x)).sum()
        return loss, -share, negatives.gradient(self.per_row(terms, share, len(block.x)))

    def per_row(self, terms: Terms, values: Tensor, rows: int) -> Tensor:
        """Values of terms, summed over all terms of each of the rows: (R,)."""
        if terms.row is None:
            return self.whole(values.sum(dim=1), after=1)
        return values.new_zeros(rows).index_add_(0, terms.row, values)

    def choice(self) -> Choice:
        """Who is a hierarchy negative, for kernels; a `UserError` where they can't do what is asked."""
        return Choice()

    def see(self, numbers: Tensor, terms: Tensor) -> None:
        """Record what kernels have seen of each anchor, (8, M) and (6, M), see `solo.losses.fused_kernels`."""
        self.anchors_with_positive += (numbers[4] > 0).sum()

    def scale(self) -> Tensor:
        """1 / (anchors with a positive, per process): an anchor without one has no term."""
        anchors = self.pairs.anchors
        if self.pairs.complete:
            return 1.0 / anchors.new_full((), max(1, len(anchors)))
        return 1.0 / distributed.per_process(self.anchors_with_positive)


def info_nce(pairs: Pairs, temperature: float, positives: Positives = "outside") -> Tensor:
    """InfoNCE loss (van den Oord et al., 2018), mean over the anchors that have a positive; 0 where none has.

    In float32 or better. The temperature, above 0, divides the cosines; ``positives`` are as in ``InfoNCERows``.
    """
    return blockwise(InfoNCERows(pairs, temperature, positives))


def simclr_loss_func(z: Tensor, indexes: Tensor, temperature: float = 0.1) -> Tensor:
    """SimCLR's NT-Xent loss (Chen et al., 2020): rows with equal index attract, all others repel.

    ``-mean_i log( pos_i / (pos_i + neg_i) )``, as in solo-learn. Projections ``z`` (V * N, D) of all views, of any
    length, are gathered over processes with gradient; ``indexes`` (V * N,) are sample ids, or labels for SupCon.
    """
    return info_nce(Pairs.from_ids(z, indexes), temperature, positives="inside")


def nnclr_loss_func(nn: Tensor, p: Tensor, temperature: float = 0.1) -> Tensor:
    """NNCLR's loss (Dwibedi et al., 2021): cross-entropy of ``cos(nn_i, p_j) / temperature`` over all j, with target i.

    Of neighbours ``nn`` and the other view's predictions ``p``, (N, D) of any length; ``p`` is gathered with gradient.
    """
    ids = torch.arange(len(p), device=p.device) + distributed.rank() * len(p)
    return info_nce(Pairs.between(nn, p, ids), temperature)


def mocov3_loss_func(query: Tensor, key: Tensor, temperature: float = 0.2) -> Tensor:
    """MoCo v3's loss (Chen et al., 2021): ``2 * temperature`` times NNCLR's, of predictions and momentum projections.

    (N, D) each, of any length; keys are gathered over processes, without gradient (on one process with, as solo-learn).
    """
    key = key.detach() if distributed.world_size() > 1 else key
    return 2 * temperature * nnclr_loss_func(query, key, temperature)


@full_precision
def mocov2plus_loss_func(query: Tensor, key: Tensor, queue: Tensor, temperature: float = 0.1) -> Tensor:
    """MoCo v2's loss (Chen et al., 2020): cross-entropy of ``[query.key, query.queue] / temperature``, target the key.

    Queries and keys are (N, D), the queue (D, K), the same on all processes, all of length 1 already.
    """
    positive = (query * key).sum(dim=1, keepdim=True)  # (N, 1)
    logits = torch.cat([positive, query @ queue], dim=1) / temperature  # (N, 1 + K)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


@full_precision
def siglip_loss_func(z1: Tensor, z2: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss (Zhai et al., 2023): for each pair of views by itself, whether they are of the same image.

    ``-mean_i sum_j log sigmoid( y_ij * (exp(log_scale) * cos(z1_i, z2_j) + bias) )``, y = 1 for i = j, else -1. j runs
    over the projections of all processes, gathered with gradient; (N, D) here, of any length. ``log_scale``, of the
    inverse temperature, and ``bias`` are scalars or (1,); a bias starts well at minus the log of the number of images.
    """
    z1, z2 = unit(z1), unit(z2)
    logits = log_scale.exp() * z1 @ distributed.gather(z2).T + bias  # (N, all N)
    own = log_scale.exp() * (z1 * z2).sum(dim=1) + bias
    # -log sigmoid(-x) is softplus(x), and -log sigmoid(x) is softplus(x) - x.
    return (F.softplus(logits).sum(dim=1) - own).mean()
