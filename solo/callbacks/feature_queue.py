"""The latest features of an epoch, for every callback that measures them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from solo.distributed import gather_no_grad

Rows = dict[str, Tensor]


class FeatureQueue:
    """Keeps references to the last batches of an epoch, whole ones of at least `rows` images, until it is read."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._batches: list[Rows] = []

    def is_due(self, done: int, batches: float, batch_size: int, processes: int) -> bool:
        """Whether the batch after `done` of `batches` (inf: nobody knows) will still be there when the epoch ends."""
        return done >= batches - self._kept(batch_size, processes) if batches != float("inf") else True

    def add(self, batch: Rows, processes: int) -> None:
        """Keep a batch: name -> (B, ...), detached; forget the oldest ones."""
        self._batches.append(batch)
        size = len(next(iter(batch.values())))
        del self._batches[: -self._kept(size, processes)]

    def read(self) -> Rows:
        """All rows of all processes; empty afterwards. Every process has to call this.

        Returns:
            name -> (N, ...), only names that every batch has; nothing if no batch was kept.
        """
        batches, self._batches = self._batches, []
        names = [name for name in batches[0] if all(name in batch for batch in batches)] if batches else []
        return {name: gather_no_grad(torch.cat([batch[name] for batch in batches])) for name in names}

    def state(self) -> list[Rows]:
        """The batches, to be saved."""
        return list(self._batches)

    def load(self, batches: list[Any]) -> None:
        """The batches that `state` gave."""
        self._batches = [dict(batch) for batch in batches]

    def _kept(self, batch_size: int, processes: int) -> int:
        return max(1, -(-self.rows // (batch_size * processes)))
