"""`data.on_error=skip`: what can't be decoded is replaced, and remembered."""

from collections.abc import Callable, Sequence, Sized
from typing import Any, TypeVar, cast

import torch
from torch.utils.data import Dataset

from solo.data.labels.subsets import Around
from solo.data.storage.facts import Source, Stored
from solo.errors import BrokenImageError, UserError, printable

Item = TypeVar("Item")


class SkipBroken(Around):
    """A data set in which the next readable image, with an unknown label (-1), stands for one that is broken.

    Broken is what raises a `BrokenImageError`; that is shared with the loader's workers, so that no file is tried twice
    and all of them can be listed at the end of a run. All other attributes are the data set's own, also a list
    `problems`.
    """

    def __init__(self, dataset: Dataset[tuple[Any, Any]]) -> None:
        super().__init__(dataset)
        self.broken = torch.zeros(len(cast(Sized, dataset)), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.broken)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """The item, or the next readable one, if there is one, without its label."""
        broken = self.broken
        place, (image, target) = next_readable(
            index, len(self), broken.__getitem__, self.dataset.__getitem__, lambda at: broken.__setitem__(at, True)
        )
        if place == index:
            return image, target
        return image, torch.full_like(target, -1) if isinstance(target, torch.Tensor) else -1

    def skipped(self) -> list[str]:
        """What was found broken so far, one line each."""
        names = file_names(self.dataset)
        found = [names[i] if names else f"image {i}" for i in self.broken.nonzero().flatten().tolist()]
        return [*getattr(self.dataset, "problems", []), *map(not_an_image, found)]


def not_an_image(name: str) -> str:
    """The line on a file that was skipped."""
    return f"{printable(name)} can't be read as an image"


def next_readable(
    first: int, count: int, broken: Callable[[int], Any], read: Callable[[int], Item], mark: Callable[[int], None]
) -> tuple[int, Item]:
    """The place of the first image from `first` on, round and round, that can be read, and what is read there.

    `broken` says of a place whether it is known not to be readable, `mark` is told of those for which `read` raises a
    `BrokenImageError`. Raises a `UserError` if there is none among `count`.
    """
    for place in (number % count for number in range(first, first + count)):
        if not broken(place):
            try:
                return place, read(place)
            except BrokenImageError:
                mark(place)
    raise UserError(f"none of the {count} images can be read; data.on_error=skip has nothing to go on with")


def image_sources(dataset: Any) -> list[Source] | None:
    """What each image of a data set is read from: a path, or an image in a larger file; None for other data sets."""
    if hasattr(dataset, "sources"):
        return list(dataset.sources())
    if hasattr(dataset, "samples"):
        return [sample if isinstance(sample, Stored) else str(sample) for sample, *_ in dataset.samples]
    return [str(dataset.root / name) for name in dataset.images] if hasattr(dataset, "root") else None


def file_names(dataset: Any) -> Sequence[str] | None:
    """The sources of a data set's images as texts for people; None where unknown."""
    sources = image_sources(dataset)
    return None if sources is None else list(map(str, sources))


def skipped_files(dataset: Any) -> list[str]:
    """What a data set has skipped so far: the first with a method `skipped` below wrappers with `dataset`."""
    while dataset is not None and not hasattr(dataset, "skipped"):
        dataset = getattr(dataset, "dataset", None)
    return list(dataset.skipped()) if dataset is not None else []
