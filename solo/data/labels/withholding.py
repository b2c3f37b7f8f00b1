"""What pretraining is not told: labels (`data.label_fraction`) and whole classes (`data.unseen_classes`).

Both draws depend on `data.split_seed` only, so that methods and seeds of training compare on the same images.
"""

from collections.abc import Sequence, Sized
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from solo.data.labels.subsets import Subset, level_targets, places_in_class
from solo.taxonomy import UNKNOWN


class KnownLabels(Dataset[tuple[Any, Any]]):
    """Items `(image or views, target)` with some labels taken away: -1 at those levels.

    `known` is bool `(N, levels)`, coarse first; a finer level is known only where the coarser ones are.

    Attributes:
        labels: int64, `(N,)` or `(N, levels)`: what is left.
        targets: the classes; -1 where the finest label is taken away.
    """

    def __init__(self, dataset: Dataset[tuple[Any, Any]], known: Tensor) -> None:
        labels = level_targets(dataset)
        assert known.shape == (len(labels), 1 if labels.ndim == 1 else labels.shape[1]), "one column a level"
        self.dataset = dataset
        self.known = known[:, 0] if labels.ndim == 1 else known
        self.labels = labels.masked_fill(~self.known, UNKNOWN)
        whole = (self.labels == labels).reshape(len(labels), -1).all(dim=1).tolist()
        leaves = cast(Any, dataset).targets
        self.targets = [int(leaf) if kept else UNKNOWN for leaf, kept in zip(leaves, whole, strict=True)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = self.dataset[index]
        if isinstance(target, Tensor):
            return image, target.masked_fill(~self.known[index], UNKNOWN)
        return image, target if self.known[index] else UNKNOWN


def withhold(
    dataset: Dataset[tuple[Any, Any]],
    unseen: Sequence[int] = (),
    label_fraction: float | Sequence[float] = -1.0,
    seed: int = 42,
) -> Dataset[tuple[Any, Any]]:
    """Leave out the images of classes, then take labels away.

    `label_fraction` is the share of the images that keep their label, for all levels or one a level, coarse first (not
    increasing); 1 or negative: all of them.
    """
    if unseen:
        leaves = np.asarray(cast(Any, dataset).targets)
        dataset = Subset(dataset, np.flatnonzero(~np.isin(leaves, list(unseen))).tolist())
    shares = [label_fraction] if isinstance(label_fraction, (int, float)) else list(label_fraction)
    if all(share < 0 or share == 1 for share in shares):
        return dataset
    levels = level_targets(dataset).reshape(len(cast(Sized, dataset)), -1)
    shares = shares * levels.shape[1] if len(shares) == 1 else shares
    return KnownLabels(dataset, draw_known(levels, shares, seed))


def draw_known(labels: Tensor, shares: Sequence[float], seed: int) -> Tensor:
    """Which labels (N, levels), coarse first, are kept, as bools: the same share of each class (equal rows).

    At least one image of a class unless the share is 0. A larger share keeps what a smaller one keeps, at every level
    and for the same seed. `shares` are of each level, in [0, 1], not increasing; negative: 1.
    """
    generator = np.random.default_rng(seed)
    _, groups = np.unique(labels.numpy(), axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    place, sizes = places_in_class(groups, generator.permutation(len(groups)))
    columns = []
    for share in shares:
        kept = np.rint(sizes * (1.0 if share < 0 else share)).astype(np.int64)
        columns.append(place < (np.maximum(kept, 1) if share else kept)[groups])
    return torch.from_numpy(np.stack(columns, axis=1))
