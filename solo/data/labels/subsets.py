"""Wrappers around a data set: a seeded share of it, and items that carry their index."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from solo.errors import UserError


class Subset(Dataset[Any]):
    """The samples `indices` of a data set, in that order; `targets` follows."""

    def __init__(self, dataset: Dataset[Any], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = [int(i) for i in indices]
        targets = _targets(dataset)
        self.targets = [int(targets[i]) for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


class Indexed(Dataset[tuple[Any, ...]]):
    """Items `(index, *item)`."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    @property
    def targets(self) -> Sequence[int]:
        """Leaf classes of all samples."""
        return _targets(self.dataset)

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return (index, *self.dataset[index])


def take_fraction(dataset: Dataset[Any], fraction: float, seed: int = 42) -> Dataset[Any]:
    """A share of the data set with the class frequencies of the whole, always the same for one seed.

    Args:
        dataset: has `targets`; -1 (unlabelled) counts as a class of its own.
        fraction: in (0, 1); all of it if 1, zero or negative.
        seed: of the draw.

    Raises:
        UserError: if the fraction is above 1 or too small for one image per class.
    """
    from sklearn.model_selection import train_test_split

    if fraction <= 0 or fraction == 1:
        return dataset
    if fraction > 1:
        raise UserError(f"data.fraction={fraction} is above 1; give a share in (0, 1), or -1 for all of the data")
    targets = np.asarray(_targets(dataset))
    rows = np.arange(len(targets))
    try:
        kept, _ = train_test_split(rows, train_size=fraction, stratify=targets, random_state=seed)
    except ValueError as error:
        raise UserError(
            f"data.fraction={fraction} of {len(rows)} images in {len(np.unique(targets))} classes can't keep the class "
            f"frequencies ({error}); use a larger fraction"
        ) from error
    return Subset(dataset, kept)


def level_targets(dataset: Dataset[Any]) -> Tensor:
    """The targets of all items of a data set of `solo.data.sources.load.load`, without opening an image.

    Returns:
        int64, `(N,)` or `(N, levels)`.
    """
    if isinstance(dataset, Subset):
        return level_targets(dataset.dataset)[dataset.indices]
    labels = getattr(dataset, "labels", None)
    if isinstance(labels, Tensor):
        return labels
    leaves = np.array(list(_targets(dataset)), dtype=np.int64)
    transform = getattr(dataset, "target_transform", None)
    if transform is None:
        return torch.from_numpy(leaves)
    kinds, which = np.unique(leaves, return_inverse=True)
    return torch.stack([transform(leaf) for leaf in kinds.tolist()])[which]


def _targets(dataset: Dataset[Any]) -> Sequence[int]:
    return cast("Sequence[int]", cast(Any, dataset).targets)
