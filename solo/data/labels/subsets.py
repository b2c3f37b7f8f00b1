"""Data sets around others: what passes for the one inside, a share of it, items with their index or without labels."""

from collections.abc import Collection, Sequence, Sized
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from solo.errors import UserError, explained
from solo.taxonomy import UNKNOWN

Array = np.ndarray[Any, np.dtype[Any]]
Pairs = Dataset[tuple[Any, Any]]  # items (image or views, target)


class Around(Dataset[Any]):
    """A data set around another one, which passes for it: in `isinstance`, and its attributes can be read and set.

    So `loader.dataset.transform = mine` reaches the data set that makes the items. `vars(self)` sets an attribute of
    the outer one that the inner one has, too.
    """

    _HIDDEN: ClassVar[Collection[str]] = ()  # attributes of the inner one that aren't true of this one

    def __init__(self, dataset: Dataset[Any]) -> None:
        vars(self)["dataset"] = dataset

    def __getattr__(self, name: str) -> Any:
        inner = vars(self).get("dataset")  # not there yet, while it is unpickled
        if inner is None or name.startswith("__") or name in self._HIDDEN:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) or hasattr(type(self), name) or not hasattr(self.dataset, name):
            super().__setattr__(name, value)
        else:
            vars(self)["_changed"] = vars(self).get("_changed", 0) + 1
            setattr(self.dataset, name, value)

    @property
    def changes(self) -> int:
        """How often somebody has set an attribute of what is inside."""
        return int(vars(self).get("_changed", 0)) + int(getattr(self.dataset, "changes", 0))

    @property  # type: ignore[misc, override]
    def __class__(self) -> type:
        """The inner one's, for `isinstance`; `type` tells the truth."""
        return cast(type, self.dataset.__class__)

    def __reduce__(self) -> tuple[Any, ...]:
        return object.__new__, (type(self),), vars(self)

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


class Subset(Around):
    """The samples `indices` of a data set, in that order; `targets`, `samples`, `imgs` and `data` follow."""

    _HIDDEN = ("images", "labels", "sources", "skipped", "broken", "problems")

    def __init__(self, dataset: Dataset[Any], indices: Sequence[int]) -> None:
        super().__init__(dataset)
        targets = cast(Any, dataset).targets
        vars(self)["indices"] = [int(i) for i in indices]
        vars(self)["targets"] = [int(targets[i]) for i in self.indices]

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if name == "data":
            return found[self.indices]
        return [found[i] for i in self.indices] if name in ("samples", "imgs") else found

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


class Indexed(Around):
    """A data set whose items begin with their index: `(index, *item)`."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return (index, *self.dataset[index])


def take_fraction(dataset: Dataset[Any], fraction: float, seed: int = 42) -> Dataset[Any]:
    """A share of the data set with the class frequencies of the whole, always the same for one seed.

    All of it if the fraction is 1, zero or negative; -1 (unlabelled) counts as a class of its own.
    """
    from sklearn.model_selection import train_test_split

    if fraction <= 0 or fraction == 1:
        return dataset
    if fraction > 1:
        raise UserError(f"data.fraction={fraction} is above 1; give a share in (0, 1), or -1 for all of the data")
    targets = np.asarray(cast(Any, dataset).targets)
    what = f"data.fraction={fraction} of {len(targets)} images in {len(np.unique(targets))} classes"
    with explained(f"{what} can't keep the class frequencies", "use a larger fraction", ValueError):
        kept, _ = train_test_split(np.arange(len(targets)), train_size=fraction, stratify=targets, random_state=seed)
    return Subset(dataset, kept)


def hold_out(dataset: Dataset[Any], share: float, held: bool) -> Subset:
    """The part of a training set that is held out, or the rest: always the same, so that both fit together.

    Where the data set has `groups` (N,), whole groups are drawn until they make up the share; else that share of each
    class. Images without a class (-1) are never held out.
    """
    targets = np.asarray(cast(Any, dataset).targets)
    order = np.random.default_rng(0).permutation(len(targets))
    groups = getattr(dataset, "groups", None)
    if groups is not None:
        _, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
        drawn = np.argsort(first)  # groups in the order in which their first images were drawn
        chosen = drawn[np.cumsum(counts[drawn]) <= share * len(targets)]
        out = np.isin(groups, np.unique(groups)[chosen])
    else:
        _, classes = np.unique(targets, return_inverse=True)
        place, sizes = _places_in_class(classes, order)
        out = (place < np.rint(share * sizes)[classes]) & (targets >= 0)
    if not out.any() or out.all():
        raise UserError(f"data.holdout={share} of {len(targets)} training images leaves one part empty; change it")
    return Subset(dataset, np.flatnonzero(out if held else ~out).tolist())


def _places_in_class(classes: Array, order: Array) -> tuple[Array, Array]:
    """Which one of its class each image is, in an order of all of them; and how many each class (N,) has."""
    order, sizes, place = order[np.argsort(classes[order], kind="stable")], np.bincount(classes), np.empty_like(order)
    place[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place, sizes


def level_targets(dataset: Dataset[Any]) -> Tensor:
    """The targets of all items of a data set, int64 `(N,)` or `(N, levels)`, without opening an image."""
    if isinstance(dataset, Subset):
        return level_targets(dataset.dataset)[dataset.indices]
    labels = getattr(dataset, "labels", None)
    if isinstance(labels, Tensor):
        return labels
    leaves = np.array(list(cast(Any, dataset).targets), dtype=np.int64)
    transform = getattr(dataset, "target_transform", None)
    if transform is None:
        return torch.from_numpy(leaves)
    kinds, which = np.unique(leaves, return_inverse=True)
    return torch.stack([transform(leaf) for leaf in kinds.tolist()])[which]


class KnownLabels(Dataset[tuple[Any, Any]]):
    """Items `(image or views, target)` with labels that aren't `known`, bool `(N, levels)`, taken away: -1.

    What is left are the `labels`, int64 `(N,)` or `(N, levels)`; `targets` are the classes.
    """

    def __init__(self, dataset: Pairs, known: Tensor) -> None:
        labels = level_targets(dataset)
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
    dataset: Pairs, unseen: Sequence[int] = (), label_fraction: float | Sequence[float] = -1.0, seed: int = 42
) -> Pairs:
    """Leave out the images of `unseen` classes, then take labels away.

    `label_fraction` of the images keep them: one share, or one a level, coarse first; 1 or negative is all.
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
    and for one seed. `shares` are of each level, not increasing; negative is 1.
    """
    _, groups = np.unique(labels.numpy(), axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    place, sizes = _places_in_class(groups, np.random.default_rng(seed).permutation(len(groups)))
    columns = []
    for share in shares:
        kept = np.rint(sizes * (1.0 if share < 0 else share)).astype(np.int64)
        columns.append(place < (np.maximum(kept, 1) if share else kept)[groups])
    return torch.from_numpy(np.stack(columns, axis=1))
