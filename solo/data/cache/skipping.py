"""What image files have in common, whether they are kept once decoded or not: reading rows, and passing over some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo.data.sources.skip import next_readable, not_an_image
from solo.data.storage.stored import Source
from solo.taxonomy import UNKNOWN


class SkippingFiles:
    """Image files, of which those that can't be read are passed over, if `skip` says so.

    A class of one's own says how one is read (`_image`), and remembers, for all processes, which ones can't be.
    """

    files: list[Source]
    targets: Tensor
    skip: bool
    problems: list[str]  # of the data set, one line each

    def __len__(self) -> int:
        return len(self.files)

    def fetch(self, rows: Sequence[int]) -> list[Tensor]:
        """uint8 `(C, H, W)` each.

        Raises:
            BrokenImageError: a file can't be decoded, without `skip`.
            UserError: none can, with it.
        """
        return [self._readable(row) if self.skip else self._image(row) for row in rows]

    def labels(self, rows: Tensor) -> Tensor:
        """Targets of rows that were fetched, -1 for those that another image stands for."""
        broken = torch.from_numpy(self._broken(rows.tolist())) & self.skip
        found = self.targets[rows]
        return found.masked_fill(broken.reshape(-1, *[1] * (found.ndim - 1)), UNKNOWN)

    def skipped(self) -> list[str]:
        """What was found broken so far, by all processes, one line each."""
        if not self.skip:
            return []
        broken = np.flatnonzero(self._broken()).tolist()
        return [*self.problems, *(not_an_image(str(self.files[row])) for row in broken)]

    def _readable(self, row: int) -> Tensor:
        return next_readable(row, len(self), lambda place: self._broken([place])[0], self._image, self._mark_broken)[1]

    def _image(self, row: int) -> Tensor:
        """uint8 `(C, H, W)`; raises `BrokenImageError`."""
        raise NotImplementedError

    def _broken(self, rows: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
        """Bools, of these rows or of all: found not to be readable."""
        raise NotImplementedError

    def _mark_broken(self, row: int) -> None:
        raise NotImplementedError
