"""What is wanted of a source of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from solo.data.sources.images import Transform
from solo.data.storage.folders import DEFAULT_ROOT
from solo.taxonomy import Taxonomy

Split = Literal["pretrain", "train", "val"]


@dataclass(frozen=True)
class Request:
    """What is wanted of a source: `pretrain` is `train` plus whatever unlabelled images there are."""

    split: Split
    path: Path | None
    download: bool
    transform: Transform | None
    target_transform: Transform | None

    @property
    def root(self) -> Path:
        """The given folder or the one inside the package."""
        return self.path or DEFAULT_ROOT


class LevelTargets:
    """Target transform: leaf class -> `(levels,)` LongTensor, coarse first; -1 gives -1 at all levels."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        unknown = (-1,) * taxonomy.num_levels
        self.table = torch.tensor([*taxonomy.path_table(), unknown])  # index -1 is the last row

    def __call__(self, target: int) -> torch.Tensor:
        """The path to the leaf `target`."""
        return self.table[int(target)]
