"""Relatives that are shown: the second view of an image is one of another image, that is its relative."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solo.data.batches.loaders import SeededDataset
from solo.data.views.plan import uniforms

VIEW = 1  # which view of an image may be that of a relative, 0-based
_STREAM = 2**20  # of random numbers, beyond those of the views


@dataclass(frozen=True)
class Shown:
    """Whose view is the second one of each image."""

    table: Tensor  # int (n, K) numbers of each image's relatives, -1 for none
    share: float  # chance that one of them is shown, in [0, 1]; an image without relatives is shown itself

    def __call__(self, rows: Tensor, seeds: Tensor) -> Tensor:
        """Numbers of the images shown (B,), a function of the images' own (B,) and of their samples' seeds (B,)."""
        found = self.table[rows].long()
        chance, which = uniforms(seeds, _STREAM, 2).unbind(dim=1)
        number = (found >= 0).sum(dim=1)
        place = (which * number).long()
        known_first = (found < 0).to(torch.uint8).argsort(dim=1, stable=True)
        drawn = found.gather(1, known_first.gather(1, place[:, None]))[:, 0]
        return torch.where((chance < self.share) & (number > 0), drawn, rows)


class ShowsRelatives(SeededDataset):
    """Items `(index, views, target)` as they are, but with a second view of the image that is shown."""

    def __init__(self, dataset: Any, shown: Shown) -> None:
        super().__init__(dataset)
        self.shown = shown

    def __getitem__(self, item: int | tuple[int, int]) -> Any:
        found = super().__getitem__(item)
        if isinstance(item, tuple):
            index, seed = item
            other = int(self.shown(torch.tensor([index]), torch.tensor([seed])))
            if other != index:
                views = list(found[1])
                views[VIEW] = super().__getitem__((other, seed))[1][VIEW]
                found = (found[0], views, *found[2:])
        return found
