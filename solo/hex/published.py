"""Rules of other papers: who among the negatives of a batch is a relative. `hex.policy_kwargs` has their fields.

Each is a policy as in ``solo/hex/policy``; its row in ``solo/hex/catalogue`` says what is done with whom it finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from solo import distributed
from solo.hex.policy import Selector, row_quantile
from solo.losses.pairs import Pairs


@dataclass(frozen=True)
class _OfPairs:
    """A rule's answer for a batch."""

    rule: FalseNegatives | Ring
    pairs: Pairs
    low: float = 0.0
    threshold: None = None

    def __call__(self, similarity: Tensor, rows: slice) -> Tensor:
        return self.rule.chosen(similarity, rows, self)


@dataclass(frozen=True)
class FalseNegatives:
    """``fnc``: the nearest few that are near enough to any view of the anchor (Huynh et al., WACV 2022, 2011.11765).

    Dropped they are *eliminated*, pulled they are *attracted*; the support views are the anchor's other views in the
    batch.
    """

    nearest: int = 10  # at most so many of a row
    least: float = 0.7  # cosine
    warm_epoch: int = 1

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """None while it warms up, then the rule of the class."""
        return None if epoch < self.warm_epoch else _OfPairs(self, pairs)

    def chosen(self, similarity: Tensor, rows: slice, of: _OfPairs) -> Tensor:
        """The largest cosine over the anchor's views, of negatives only."""
        positive, negative = of.pairs.masks(rows)
        other = of.pairs.keys[positive.to(torch.uint8).argmax(dim=1)]
        view = torch.where(positive.any(dim=1, keepdim=True), other @ of.pairs.keys.T, similarity)
        best = torch.maximum(similarity, view).masked_fill(~negative, -torch.inf)
        top = best.topk(min(self.nearest, best.shape[1]), dim=1)
        return torch.zeros_like(negative).scatter_(1, top.indices, top.values > self.least)


@dataclass(frozen=True)
class Ring:
    """``ring``: negatives are neither too easy nor too hard (Wu et al., ICLR 2021, 2010.02037): the others are dropped.

    Bounds are quantiles of the anchor's row; the lower one rises from 0 to ``low`` over the run.
    """

    low: float = 0.5
    high: float = 0.99
    warm_epoch: int = 0

    def __post_init__(self) -> None:
        """Refuse bounds that are none."""
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"low and high must be 0 <= low < high <= 1, got {self.low} and {self.high}")

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """None while it warms up, then the rule of the class."""
        return None if epoch < self.warm_epoch else _OfPairs(self, pairs, self.low * min(1.0, epoch / max_epochs))

    def chosen(self, similarity: Tensor, rows: slice, of: _OfPairs) -> Tensor:
        """Who is outside of the ring."""
        row = similarity[:, of.pairs.positives_only :]
        low, high = (row_quantile(row, bound)[:, None] for bound in (of.low, self.high))
        return (similarity < low) | (similarity > high)


@dataclass(frozen=True)
class Components:
    """``components``: who hangs together by nearest neighbours in the batch (Zheng et al., ICCV 2021, 2110.04770).

    An edge joins the first view of each image with its nearest neighbour; WCL has a second head, here the loss has one.
    """

    warm_epoch: int = 1

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """The components, found once a batch."""
        if epoch < self.warm_epoch:
            return None
        if pairs.offset is None:
            raise ValueError("components join the rows of a batch with each other; take a method that compares these")
        nearest = []
        for rows in pairs.blocks():
            nearest.append(pairs.similarity(rows).masked_fill_(~pairs.masks(rows)[1], -torch.inf).argmax(dim=1))
        _, image = torch.unique(pairs.key_ids, return_inverse=True)
        place = torch.arange(len(image), device=image.device)
        first = torch.full_like(place, len(image)).scatter_reduce_(0, image, place, "amin")[: int(image.max()) + 1]
        return _SameComponent(pairs, components(image[distributed.gather_no_grad(torch.cat(nearest))[first]])[image])


@dataclass(frozen=True)
class _SameComponent:
    pairs: Pairs
    of: Tensor
    threshold: None = None

    def __call__(self, similarity: Tensor, rows: slice) -> Tensor:
        return self.of[self.pairs.offset :][rows, None] == self.of


def components(end: Tensor) -> Tensor:
    """Which nodes (n,) hang together by edges from each to the node ``end`` (n,): the smallest of them."""
    label = torch.arange(len(end), device=end.device)
    while True:
        least = torch.minimum(label, label[end])
        new = least.scatter_reduce(0, end, least, "amin")
        new = new[new]
        if torch.equal(new, label):
            return label
        label = new
