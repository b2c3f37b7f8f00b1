"""Relatives that another source than the batch names: a table over the data set, made once, and a bank of embeddings.

A policy here has ``table`` instead of a choice among the negatives of a batch: for each image of the training set the
numbers of others that are its relatives. While training, some of them are drawn in each step and looked up in a
``Bank``, which keeps the last embedding of every image: they can be pulled whether they are in the batch or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solo import distributed
from solo.hex.loss import Elsewhere
from solo.hex.policy import Selector
from solo.losses.pairs import Pairs, unit

# k -> for each of n images the k nearest others, nearest first, (n, k); by whatever eye the settings name.
Nearest = Callable[[int], Tensor]


@dataclass(frozen=True)
class FromTable:
    """Relatives from a table over the data set.

    Attributes:
        warm_epoch: there are none in the epochs before this one, while the bank fills.
    """

    warm_epoch: int = 1

    def selector(self, pairs: Pairs, epoch: int, max_epochs: int) -> Selector | None:
        """None: nobody is looked for among the negatives."""
        return None

    def table(self, nearest: Nearest, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Numbers of each image's relatives.

        Args:
            nearest: asks the eye.
            labels: (n,) at `hex.level`, -1 for unknown.
            generator: of all that is drawn.

        Returns:
            (n, K) integers, -1 where there are fewer.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Neighbours(FromTable):
    """``neighbours``: the nearest images of the data set as another eye sees them, not the network that is trained.

    Attributes:
        among: so many.
        skip: the nearest ones that are left out.
        mutual: only those that count the image among theirs, too.
    """

    among: int = 10
    skip: int = 0
    mutual: bool = False

    def table(self, nearest: Nearest, labels: Tensor, generator: torch.Generator) -> Tensor:
        """See the base class."""
        found = nearest(self.skip + self.among)
        return (reciprocal(found) if self.mutual else found)[:, self.skip :]


@dataclass(frozen=True)
class Shuffled(Neighbours):
    """``shuffled``: a placebo, each image gets the neighbours of another one, which is drawn."""

    def table(self, nearest: Nearest, labels: Tensor, generator: torch.Generator) -> Tensor:
        """See the base class."""
        found = super().table(nearest, labels, generator)
        return found[torch.randperm(len(found), generator=generator)]


@dataclass(frozen=True)
class RandomSet(FromTable):
    """``random``: a placebo, as many images as ``among`` says, drawn at random.

    Attributes:
        among: so many.
    """

    among: int = 10

    def table(self, nearest: Nearest, labels: Tensor, generator: torch.Generator) -> Tensor:
        """See the base class."""
        return torch.randint(len(labels), (len(labels), self.among), generator=generator)


@dataclass(frozen=True)
class Oracle(FromTable):
    """``oracle``: images of the same label, drawn; what could be won at most, and how pure a rule has to be.

    Attributes:
        among: so many.
        purity: share of them that have the label; the others are drawn from all images with another one.
    """

    among: int = 10
    purity: float = 1.0

    def table(self, nearest: Nearest, labels: Tensor, generator: torch.Generator) -> Tensor:
        """See the base class; an image without a label has no relatives."""
        order = labels.argsort(stable=True)
        ranked = labels[order]
        first, end = torch.searchsorted(ranked, labels), torch.searchsorted(ranked, labels, right=True)
        shape = (len(labels), self.among)
        # One of the others of the label: places from `first` on, without the image's own.
        own = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        place = first[:, None] + (torch.rand(shape, generator=generator) * (end - first - 1)[:, None]).long()
        alike = order[place.add_((place >= own[:, None]).long()).clamp_(max=len(order) - 1)]
        stranger = (torch.rand(shape, generator=generator) * (len(labels) - (end - first))[:, None]).long()
        stranger = order[(stranger + (stranger >= first[:, None]) * (end - first)[:, None]).clamp_(max=len(order) - 1)]
        right = torch.rand(shape, generator=generator) < self.purity
        known = (labels >= 0) & (end - first > 1)
        return torch.where(right, alike, stranger).masked_fill(~known[:, None], -1)


def reciprocal(table: Tensor) -> Tensor:
    """Neighbours (n, K) without those, -1 instead, that don't have the image among theirs."""
    rows = torch.arange(len(table))[:, None, None]
    back = [(table[part] == rows[start : start + 4096]).any(dim=2) for start, part in _parts(table)]
    return table.masked_fill(~torch.cat(back), -1)


def _parts(table: Tensor) -> list[tuple[int, Tensor]]:
    return [(start, table[start : start + 4096]) for start in range(0, len(table), 4096)]


class Bank(nn.Module):
    """The last embedding of every image of the data set, in half precision, the same on all processes.

    Checkpoints hold it, so that a resumed run goes on as if it had not stopped. It is no buffer: DDP would send it from
    process to process in each step.

    Args:
        table: (n, K) relatives of each image, -1 for none.
        drawn: how many of them are drawn in a step.
    """

    def __init__(self, table: Tensor, drawn: int) -> None:
        super().__init__()
        self.table, self.drawn = table.to(torch.int32), min(drawn, table.shape[1])
        self.rows: Tensor | None = None

    @torch.no_grad()
    def draw(self, ids: Tensor) -> Elsewhere | None:
        """Embeddings of some relatives of each image (B,): (B, drawn, D), None before any is known."""
        if self.rows is None:
            return None
        self.table = self.table.to(ids.device)
        found = self.table[ids]
        order = torch.rand(found.shape, device=ids.device).masked_fill_(found < 0, -1)
        found = found.gather(1, order.topk(self.drawn, dim=1).indices)
        rows = unit(self.rows[found.clamp_min(0).long()])
        return Elsewhere(rows, (found >= 0) & (rows != 0).any(dim=2))

    @torch.no_grad()
    def store(self, ids: Tensor, embeddings: Tensor) -> None:
        """Keep embeddings (B, D), of any length, of images (B,), those of all processes."""
        ids, embeddings = distributed.gather_no_grad(ids), distributed.gather_no_grad(unit(embeddings).half())
        if self.rows is None:
            self.rows = embeddings.new_zeros(len(self.table), embeddings.shape[1])
        self.rows = self.rows.to(ids.device)
        self.rows[ids] = embeddings

    def get_extra_state(self) -> Tensor:
        """What a checkpoint holds."""
        return torch.empty(0) if self.rows is None else self.rows

    def set_extra_state(self, state: Tensor) -> None:
        """What a checkpoint held."""
        self.rows = state if len(state) else None
