"""Policies: which negatives of an anchor belong to its hierarchy, H(i), always a subset of N(i).

A policy is a frozen dataclass. For the epoch and the batch at hand it makes a ``Selector``, or None for an empty set.
Nothing is stored between batches and nothing has a gradient. To add one, write the dataclass and give it a row in
``solo/hex/catalogue.py``, which says the settings that become its fields; ``from_settings`` makes the others.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from solo import distributed
from solo.hex.schedule import Cosine, Schedule, Step
from solo.losses import fused
from solo.losses.pairs import Join, Pairs, RingPairs

Similarity = Literal["row", "cosine"]


class Selector(Protocol):
    """Chooses the hierarchy negatives of one batch, block by block."""

    @property
    def threshold(self) -> Tensor | None:
        """What the run logs; None where there is no such number."""
        ...

    def __call__(self, similarity: Tensor, rows: slice) -> Tensor:
        """Chosen pairs of a block: cosines (R, N) -> boolean (R, N). The loss intersects them with N(i)."""
        ...


class Policy(Protocol):
    """A rule that says which negatives of an anchor are its hierarchy, H(i)."""

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """The rule for this batch in this epoch (0-based); None: H is empty."""
        ...


@dataclass(frozen=True)
class _Above:
    """Pairs whose cosine, or row-scaled cosine, is above one threshold."""

    threshold: Tensor
    similarity: Similarity = "cosine"
    first: int = 0  # the row starts at this key
    lowest: Tensor | None = None  # (M,) lowest cosine of each row, where keys come in parts
    in_parts = True  # asks nothing of a row that some keys don't tell
    named = False  # labels say nothing, see `solo.losses.fused.Choice`

    @property
    def cut(self) -> Tensor:
        """The cosine above which pairs are chosen, () or (M,), where the rows' lowest are known."""
        return self.threshold if self.lowest is None else self.lowest + self.threshold * (1 - self.lowest)

    def __call__(self, similarity: Tensor, rows: slice) -> Tensor:
        if self.similarity == "cosine":
            return similarity > self.threshold
        # f = (s - lowest) / (1 - lowest) > eps without the division, which a row of ones would not survive.
        lowest = (
            similarity[:, self.first :].amin(dim=1, keepdim=True) if self.lowest is None else self.lowest[rows, None]
        )
        return similarity > lowest + self.threshold * (1 - lowest)


@dataclass(frozen=True)
class FixedThreshold:
    """``HEX_fixed``: similarity above a threshold that the schedule lowers."""

    schedule: Schedule  # threshold of each epoch (``Constant``, ``Step`` or ``Cosine``)
    # ``row``: each row scaled to [0, 1], its lowest cosine to 0 and self-similarity to 1 (the release's scaling);
    # ``cosine``: plain
    similarity: Similarity = "row"
    warm_epoch: int = 0  # H is empty in the epochs before this one

    def __post_init__(self) -> None:
        """Refuse an unknown similarity."""
        if self.similarity not in ("row", "cosine"):
            raise ValueError(f"similarity must be 'row' or 'cosine', got {self.similarity!r}")

    @staticmethod
    def from_settings(settings: Any) -> dict[str, Any]:
        """The fields that are no settings of the section ``hex`` as they are."""
        start, end = settings.distance_thresh, settings.distance_min
        step = Step(start, end, settings.step_down, settings.epoch_step)
        return {"schedule": Cosine(start, end) if settings.step_type == "cos" else step}

    def planned(self, epoch: int, max_epochs: int) -> float | None:
        """The threshold of an epoch; None during warm-up."""
        return None if epoch < self.warm_epoch else self.schedule(epoch, max_epochs)

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """Pairs above the threshold of this epoch."""
        threshold = self.planned(epoch, max_epochs)
        if threshold is None:
            return None
        lowest = None
        if self.similarity == "row" and isinstance(pairs, RingPairs):
            lowest = pairs.per_row(lambda s: s.amin(dim=1), torch.minimum)
        elif self.similarity == "row" and pairs.fused:
            lowest = fused.lowest_cosine(pairs)
        return _Above(pairs.anchors.new_full((), threshold), self.similarity, pairs.positives_only, lowest)


@dataclass(frozen=True)
class AdaptivePercentile:
    """``HEX_adaptive``: cosine above the mean, over all anchors of all processes, of each row's quantile."""

    # in [0, 1]; the row holds the cosines with all keys, the anchor itself included (with a queue: those with the
    # queue), and the nearest entry is taken, as in the release
    quantile: float = 0.99
    warm_epoch: int = 10  # H is empty in the epochs before this one

    def __post_init__(self) -> None:
        """Refuse a quantile outside [0, 1]."""
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile must lie in [0, 1], got {self.quantile}")

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """Pairs above this batch's threshold."""
        if epoch < self.warm_epoch:
            return None
        total = pairs.anchors.new_zeros(())
        if isinstance(pairs, RingPairs):
            n = len(pairs.anchors) * distributed.world_size()
            total += row_quantile(pairs.per_row(*outermost(n, self.quantile)), self.quantile, n).sum()
        elif pairs.fused:
            total += fused.row_quantile(pairs, self.quantile).sum()
        else:
            for rows in pairs.blocks():
                total += row_quantile(pairs.similarity(rows)[:, pairs.positives_only :], self.quantile).sum()
        return _Above(distributed.all_reduce_mean(total) / len(pairs.anchors))


@dataclass(frozen=True)
class _SameGroup:
    pairs: Pairs
    threshold: Tensor | None = None
    in_parts = True
    cut, named = math.inf, True

    def __call__(self, similarity: Tensor, rows: slice) -> Tensor:
        return self.pairs.same_group(rows)


@dataclass(frozen=True)
class Superclass:
    """``superclass``: anchor and negative share the coarse label (Table 10's "Sup"); unknown labels share nothing."""

    warm_epoch: int = 0  # H is empty in the epochs before this one

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """Pairs of one coarse class."""
        return None if epoch < self.warm_epoch else _SameGroup(pairs)


@dataclass(frozen=True)
class _Either:
    """What a selector chooses, and the pairs of one coarse class."""

    chosen: Selector
    pairs: Pairs

    named = True

    @property
    def threshold(self) -> Tensor | None:
        return self.chosen.threshold

    @property
    def cut(self) -> Tensor | float:
        found: Tensor | float = self.chosen.cut  # type: ignore[attr-defined]  # who has none is refused
        return found

    def __call__(self, similarity: Tensor, rows: slice) -> Tensor:
        return self.chosen(similarity, rows) | self.pairs.same_group(rows)


@dataclass(frozen=True)
class WithNamed:
    """Another policy's choice, and whatever shares a known coarse label: labels first, then emergence."""

    policy: Policy  # the other policy; its warm-up is that of both

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """The union of what labels name and what the other policy finds."""
        chosen = self.policy.selector(pairs, epoch, max_epochs)
        return None if chosen is None else _Either(chosen, pairs)


@dataclass(frozen=True)
class WarmUp:
    """Another policy, after some epochs in which H is empty."""

    policy: Policy  # the other policy
    epochs: int  # their number

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """None in the epochs of the warm-up, then the other policy's."""
        return None if epoch < self.epochs else self.policy.selector(pairs, epoch, max_epochs)


@dataclass(frozen=True)
class _Alike:
    """The same answer for every pair."""

    chosen: bool
    threshold: Tensor | None = None
    in_parts = True
    named = False

    @property
    def cut(self) -> float:
        return -math.inf if self.chosen else math.inf

    def __call__(self, similarity: Tensor, rows: slice) -> Tensor:
        return torch.full_like(similarity, self.chosen, dtype=torch.bool)


@dataclass(frozen=True)
class EveryNegative:
    """``HCL``: H(i) = N(i), the hard-negative loss of Robinson et al., ICLR 2021, which knows no hierarchy."""

    warm_epoch: int = 0  # H is empty in the epochs before this one

    chosen: ClassVar[bool] = True

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """A selector that takes all pairs, or none."""
        return None if epoch < self.warm_epoch else _Alike(self.chosen)


@dataclass(frozen=True)
class NoNegative(EveryNegative):
    """H(i) is empty: plain InfoNCE, or with the variant ``release`` the decoupled loss (DCL, Yeh et al., ECCV 2022)."""

    chosen = False  # before `warm_epoch` it is plain InfoNCE


def row_quantile(rows: Tensor, quantile: float, number: int | None = None) -> Tensor:
    """``torch.quantile(..., interpolation="nearest")`` of each row by partial selection: (R, N) -> (R,).

    Args:
        rows: (R, N), or what ``outermost`` has kept of it.
        quantile: in [0, 1].
        number: N, where the rows are not whole.
    """
    n = number or rows.shape[1]
    rank = round(quantile * (n - 1))  # half to even, as torch
    if rank < n // 2:
        return rows.topk(rank + 1, dim=1, largest=False, sorted=False).values.amax(dim=1)
    return rows.topk(n - rank, dim=1, sorted=False).values.amin(dim=1)


def outermost(number: int, quantile: float) -> tuple[Callable[[Tensor], Tensor], Join]:
    """What is kept of parts of rows of `number` entries to know their quantile, and how two of these are joined."""
    rank = round(quantile * (number - 1))
    low = rank < number // 2
    count = rank + 1 if low else number - rank

    def keep(part: Tensor) -> Tensor:
        return part.topk(min(count, part.shape[1]), dim=1, largest=not low, sorted=False).values

    return keep, lambda one, other: keep(torch.cat([one, other], dim=1))
