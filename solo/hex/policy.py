"""Policies: which negatives of an anchor belong to its hierarchy, H(i), always a subset of N(i).

A policy is a frozen dataclass. For the epoch and the batch at hand it makes a ``Selector``, or None for an empty set.
Nothing is stored between batches, so that a resumed run sees the same, and nothing has a gradient. Its row in
``solo/hex/catalogue.py`` says the settings that become its fields; ``from_settings`` makes the others.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from solo import distributed
from solo.losses import fused
from solo.losses.pairs import Pairs, RingPairs


class Schedule(Protocol):
    """A value for every epoch (0-based) of a run of ``max_epochs``."""

    def __call__(self, epoch: int, max_epochs: int) -> float: ...


@dataclass(frozen=True)
class Constant:
    """The same value in every epoch."""

    value: float

    def __call__(self, epoch: int, max_epochs: int) -> float:
        return self.value


@dataclass(frozen=True)
class Step:
    """``max(end, start - down * floor(epoch / every))``."""

    start: float  # value of epoch 0
    end: float  # smallest value
    down: float  # what each step takes off
    every: int  # epochs between steps, at least 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"epochs between steps must be at least 1, got {self.every}")

    def __call__(self, epoch: int, max_epochs: int) -> float:
        return max(self.end, self.start - self.down * (epoch // self.every))


@dataclass(frozen=True)
class Cosine:
    """``end + (start - end) * (1 + cos(pi * epoch / max_epochs)) / 2``; ``end`` from ``max_epochs`` on."""

    start: float
    end: float

    def __call__(self, epoch: int, max_epochs: int) -> float:
        progress = min(1.0, epoch / max(1, max_epochs))
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


class Selector(Protocol):
    """Chooses the hierarchy negatives of one batch, block by block."""

    @property
    def threshold(self) -> Tensor | None:
        """What the run logs; None where there is no such number."""

    def __call__(self, similarity: Tensor, rows: slice) -> Tensor:
        """Chosen pairs of a block: cosines (R, N) -> boolean (R, N). The loss intersects them with N(i)."""


class Policy(Protocol):
    """A rule that says which negatives of an anchor are its hierarchy, H(i)."""

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """The rule for this batch in this epoch (0-based); None: H is empty."""


@dataclass(frozen=True)
class Chosen:
    """A ``Selector``, and what rings and kernels ask of it."""

    choose: Callable[[Tensor, slice], Tensor]
    threshold: Tensor | None = None
    # the cosine above which pairs are chosen, one or (M,); None: it asks more of a row than some of its keys tell
    cut: Tensor | float | None = None
    named: bool = False  # it chooses the pairs of one coarse class, too

    def __call__(self, similarity: Tensor, rows: slice) -> Tensor:
        return self.choose(similarity, rows)


@dataclass(frozen=True)
class FixedThreshold:
    """``HEX_fixed``: similarity above a threshold that the schedule lowers."""

    schedule: Schedule  # threshold of each epoch (``Constant``, ``Step`` or ``Cosine``)
    # ``row``: each row scaled to [0, 1], its lowest cosine to 0 and self-similarity to 1 (the release's scaling);
    # ``cosine``: plain
    similarity: Literal["row", "cosine"] = "row"
    warm_epoch: int = 0  # H is empty in the epochs before this one

    def __post_init__(self) -> None:
        if self.similarity not in ("row", "cosine"):
            raise ValueError(f"similarity must be 'row' or 'cosine', got {self.similarity!r}")

    @staticmethod
    def from_settings(settings: Any) -> dict[str, Any]:
        """The fields that are no settings of the section ``hex`` as they are."""
        start, end = settings.distance_thresh, settings.distance_min
        step = Step(start, end, settings.step_down, settings.epoch_step)
        return {"schedule": Cosine(start, end) if settings.step_type == "cos" else step}

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        if epoch < self.warm_epoch:
            return None
        threshold = pairs.anchors.new_full((), self.schedule(epoch, max_epochs))
        if self.similarity == "cosine":
            return Chosen(lambda s, rows: s > threshold, threshold, cut=threshold)

        def cut(lowest: Tensor) -> Tensor:
            # f = (s - lowest) / (1 - lowest) > eps without the division, which a row of ones would not survive.
            return lowest + threshold * (1 - lowest)

        first = pairs.positives_only
        if isinstance(pairs, RingPairs):  # not all keys are seen at once
            known = cut(pairs.per_row(lambda s: s.amin(dim=1, keepdim=True)))[:, 0]
        elif pairs.fused:
            known = cut(fused.lowest_cosine(pairs))
        else:
            return Chosen(lambda s, rows: s > cut(s[:, first:].amin(dim=1, keepdim=True)), threshold)
        return Chosen(lambda s, rows: s > known[rows, None], threshold, cut=known)


@dataclass(frozen=True)
class AdaptivePercentile:
    """``HEX_adaptive``: cosine above the mean, over all anchors of all processes, of each row's quantile."""

    # in [0, 1]; the row holds the cosines with all keys, the anchor itself included (with a queue: those with the
    # queue), and the nearest entry is taken, as in the release
    quantile: float = 0.99
    warm_epoch: int = 10  # H is empty in the epochs before this one

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile must lie in [0, 1], got {self.quantile}")

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        if epoch < self.warm_epoch:
            return None
        total = pairs.anchors.new_zeros(())
        if isinstance(pairs, RingPairs):
            n = len(pairs.anchors) * distributed.world_size()
            kept = pairs.per_row(lambda rows: outermost(rows, self.quantile, n))
            total += row_quantile(kept, self.quantile, n).sum()
        elif pairs.fused:
            total += fused.row_quantile(pairs, self.quantile).sum()
        else:
            for rows in pairs.blocks():
                total += row_quantile(pairs.similarity(rows)[:, pairs.positives_only :], self.quantile).sum()
        threshold = distributed.all_reduce_mean(total) / len(pairs.anchors)
        return Chosen(lambda s, rows: s > threshold, threshold, cut=threshold)


@dataclass(frozen=True)
class Superclass:
    """``superclass``: anchor and negative share the coarse label (Table 10's "Sup"); unknown labels share nothing."""

    warm_epoch: int = 0  # H is empty in the epochs before this one

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        return None if epoch < self.warm_epoch else Chosen(lambda s, rows: pairs.same_group(rows), None, math.inf, True)


@dataclass(frozen=True)
class WithNamed:
    """Another policy's choice, and whatever shares a known coarse label: labels first, then emergence."""

    policy: Policy  # the other policy; its warm-up is that of both

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        found = self.policy.selector(pairs, epoch, max_epochs)
        if found is None:
            return None
        cut = getattr(found, "cut", None)
        return Chosen(lambda s, rows: found(s, rows) | pairs.same_group(rows), found.threshold, cut=cut, named=True)


@dataclass(frozen=True)
class WarmUp:
    """Another policy, after some epochs in which H is empty."""

    policy: Policy  # the other policy
    epochs: int  # their number

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        return None if epoch < self.epochs else self.policy.selector(pairs, epoch, max_epochs)


@dataclass(frozen=True)
class EveryNegative:
    """``HCL``: H(i) = N(i), the hard-negative loss of Robinson et al., ICLR 2021, which knows no hierarchy."""

    warm_epoch: int = 0  # H is empty in the epochs before this one

    chosen: ClassVar[bool] = True

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        if epoch < self.warm_epoch:
            return None
        cut = -math.inf if self.chosen else math.inf
        return Chosen(lambda s, _: torch.full_like(s, self.chosen, dtype=torch.bool), cut=cut)


@dataclass(frozen=True)
class NoNegative(EveryNegative):
    """H(i) is empty: plain InfoNCE, or with the variant ``release`` the decoupled loss (DCL, Yeh et al., ECCV 2022)."""

    chosen = False  # before `warm_epoch` it is plain InfoNCE


@dataclass(frozen=True)
class FalseNegatives:
    """``fnc``: the nearest few that are near enough to any view of the anchor (Huynh et al., WACV 2022, 2011.11765).

    Dropped they are *eliminated*, pulled they are *attracted*; support views are the anchor's others in the batch.
    """

    nearest: int = 10  # at most so many of a row
    least: float = 0.7  # cosine

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector:
        def choose(similarity: Tensor, rows: slice) -> Tensor:
            positive, negative = pairs.masks(rows)
            other = pairs.keys[positive.to(torch.uint8).argmax(dim=1)]
            view = torch.where(positive.any(dim=1, keepdim=True), other @ pairs.keys.T, similarity)
            best = torch.maximum(similarity, view).masked_fill(~negative, -torch.inf)
            top = best.topk(min(self.nearest, best.shape[1]), dim=1)
            return torch.zeros_like(negative).scatter_(1, top.indices, top.values > self.least)

        return Chosen(choose)


@dataclass(frozen=True)
class Ring:
    """``ring``: negatives are neither too easy nor too hard (Wu et al., ICLR 2021, 2010.02037): the others are dropped.

    Bounds are quantiles of the anchor's row; the lower one rises from 0 to ``low`` over the run.
    """

    low: float = 0.5
    high: float = 0.99

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"low and high must be 0 <= low < high <= 1, got {self.low} and {self.high}")

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector:
        lower = self.low * min(1.0, epoch / max_epochs)

        def choose(similarity: Tensor, rows: slice) -> Tensor:
            row = similarity[:, pairs.positives_only :]
            low, high = (row_quantile(row, bound)[:, None] for bound in (lower, self.high))
            return (similarity < low) | (similarity > high)

        return Chosen(choose)


@dataclass(frozen=True)
class Components:
    """``components``: who hangs together by nearest neighbours in the batch (Zheng et al., ICCV 2021, 2110.04770).

    An edge joins the first view of each image with its nearest neighbour; WCL has a second head, here the loss has one.
    """

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector:
        if pairs.offset is None:
            raise ValueError("components join the rows of a batch with each other; take a method that compares these")
        nearest = []
        for rows in pairs.blocks():
            nearest.append(pairs.similarity(rows).masked_fill_(~pairs.masks(rows)[1], -torch.inf).argmax(dim=1))
        _, image = torch.unique(pairs.key_ids, return_inverse=True)
        place = torch.arange(len(image), device=image.device)
        first = torch.full_like(place, len(image)).scatter_reduce_(0, image, place, "amin")[: int(image.max()) + 1]
        of = components(image[distributed.gather_no_grad(torch.cat(nearest))[first]])[image]
        return Chosen(lambda s, rows: of[pairs.offset :][rows, None] == of)


def components(end: Tensor) -> Tensor:
    """Which nodes (n,) hang together by edges from each to the node ``end`` (n,): the smallest of them."""
    label, before = torch.arange(len(end), device=end.device), None
    while before is None or not torch.equal(label, before):
        least, before = torch.minimum(label, label[end]), label
        new = least.scatter_reduce(0, end, least, "amin")
        label = new[new]
    return label


def row_quantile(rows: Tensor, quantile: float, number: int | None = None) -> Tensor:
    """``torch.quantile(..., interpolation="nearest")`` of each row by partial selection: (R, N) -> (R,).

    Rows may be what ``outermost`` has kept of them, of ``number`` entries.
    """
    n = number or rows.shape[1]
    kept = outermost(rows, quantile, n)
    return kept.amax(dim=1) if round(quantile * (n - 1)) < n // 2 else kept.amin(dim=1)


def outermost(rows: Tensor, quantile: float, number: int) -> Tensor:
    """Of parts of rows of `number` entries, (R, N), those that the quantile may be the innermost of, (R, K)."""
    rank = round(quantile * (number - 1))  # half to even, as torch
    low = rank < number // 2
    count = rank + 1 if low else number - rank
    return rows.topk(min(count, rows.shape[1]), dim=1, largest=not low, sorted=False).values
