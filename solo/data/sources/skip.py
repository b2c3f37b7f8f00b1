"""`data.on_error=skip`: what can't be decoded is replaced, and remembered."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any, cast

import torch
from torch.utils.data import Dataset

from solo.data.labels.subsets import Around
from solo.data.storage.stored import Source, Stored
from solo.errors import BrokenImageError, UserError, printable


class SkipBroken(Around):
    """A data set in which the next readable image, with an unknown label (-1), stands for one that is broken.

    Which ones are broken is shared with the loader's workers, so that no file is tried twice and all of them can be
    listed at the end of a run. All other attributes are the data set's own.

    Args:
        dataset: raises `BrokenImageError` for items that can't be read; may have a list `problems` of its own.
    """

    def __init__(self, dataset: Dataset[tuple[Any, Any]]) -> None:
        super().__init__(dataset)
        self.broken = torch.zeros(len(cast(Sized, dataset)), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.broken)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """The item, or the next readable one without its label.

        Raises:
            UserError: nothing can be read.
        """
        for place in range(index, index + len(self)):
            place %= len(self)
            if self.broken[place]:
                continue
            try:
                image, target = self.dataset[place]
            except BrokenImageError:
                self.broken[place] = True
                continue
            return image, target if place == index else _unknown(target)
        raise nothing_readable(len(self))

    def skipped(self) -> list[str]:
        """What was found broken so far, one line each."""
        names = file_names(self.dataset)
        found = [names[i] if names else f"image {i}" for i in self.broken.nonzero().flatten().tolist()]
        return [*getattr(self.dataset, "problems", []), *map(not_an_image, found)]


def not_an_image(name: str) -> str:
    """The line on a file that was skipped."""
    return f"{printable(name)} can't be read as an image"


def nothing_readable(count: int) -> UserError:
    """When every image of a data set is broken."""
    return UserError(f"none of the {count} images can be read; data.on_error=skip has nothing to go on with")


def _unknown(target: Any) -> Any:
    return torch.full_like(target, -1) if isinstance(target, torch.Tensor) else -1


def file_names(dataset: Any) -> Sequence[str] | None:
    """Paths of the images, where each has a file of its own."""
    if hasattr(dataset, "samples"):
        return [str(sample[0]) for sample in dataset.samples]
    return [str(dataset.root / name) for name in dataset.images] if hasattr(dataset, "root") else None


def image_sources(dataset: Any) -> list[Source] | None:
    """The same, with images in larger files as they are."""
    if hasattr(dataset, "sources"):
        return list(dataset.sources())
    names = file_names(dataset)
    if names is None or not hasattr(dataset, "samples"):
        return None if names is None else list(names)
    pairs = zip(dataset.samples, names, strict=True)
    return [sample[0] if isinstance(sample[0], Stored) else name for sample, name in pairs]


def skipped_files(dataset: Any) -> list[str]:
    """What a data set has skipped so far: the first with a method `skipped` below wrappers with `dataset`."""
    while dataset is not None and not hasattr(dataset, "skipped"):
        dataset = getattr(dataset, "dataset", None)
    return list(dataset.skipped()) if dataset is not None else []
