"""Data sets of PIL images: arrays, files, HDF5, a flat folder; what is wanted of a source; what can't be decoded."""

from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from solo.data.catalogue.registry import choose_classes
from solo.data.labels.subsets import Around
from solo.data.storage.containers import H5File, read_index
from solo.data.storage.facts import DEFAULT_ROOT, Source, Stored
from solo.data.storage.reading import ImageReading, flat_images
from solo.errors import BrokenImageError, UserError, printable
from solo.taxonomy import Taxonomy

Item = TypeVar("Item")
Transform = Callable[[Any], Any]
Step = Transform | None  # that an image or a target goes through
Split = Literal["pretrain", "train", "val"]


@dataclass(frozen=True)
class Request:
    """What is wanted of a source: `pretrain` is `train` plus whatever unlabelled images there are."""

    split: Split
    path: Path | None
    download: bool
    transform: Step
    target_transform: Step

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


class LabelledImages(Dataset[tuple[Any, Any]]):
    """Items `(image, target)`, after their transforms; `targets` are leaf classes, -1 for unlabelled."""

    reading = ImageReading()  # how files become images

    def __init__(self, targets: Iterable[int], transform: Step = None, target_transform: Step = None) -> None:
        self.targets = [int(target) for target in targets]
        self.transform = transform
        self.target_transform = target_transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = self.read(index)
        target: Any = self.targets[index]
        image = self.transform(image) if self.transform else image
        return image, self.target_transform(target) if self.target_transform else target

    def read(self, index: int) -> Any:
        """The image as it is stored."""
        raise NotImplementedError


class ArrayDataset(LabelledImages):
    """Images in memory, `data` as torchvision's CIFAR calls them: uint8, `(N, H, W)` grey or `(N, H, W, 3)` RGB."""

    groups: np.ndarray | None = None  # images of one (a writer, a font) belong together: `data.holdout` keeps them so

    def __init__(
        self, images: np.ndarray, targets: Iterable[int], transform: Step = None, target_transform: Step = None
    ) -> None:
        super().__init__(targets, transform, target_transform)
        self.data = images

    @property
    def images(self) -> np.ndarray:
        """The same as `data`."""
        return self.data

    def read(self, index: int) -> Image.Image:
        """The image, grey or RGB, as one of Pillow."""
        return Image.fromarray(self.data[index])


class ImageFiles(LabelledImages):
    """Image files, or images inside of larger ones; `samples` (file, class), `classes` (names) as in torchvision."""

    root: Path | None = None  # the folder or file that they come from
    problems: Sequence[str] = ()  # what had to be left out, one line each
    labels: torch.Tensor | None = None  # (N, levels), coarse first, -1 for unknown: targets of items instead of classes

    def __init__(
        self,
        files: Sequence[str | Path | Stored],
        targets: Iterable[int],
        classes: Sequence[str],
        transform: Step = None,
        target_transform: Step = None,
    ) -> None:
        super().__init__(targets, transform, target_transform)
        self.samples = self.imgs = list(zip(files, self.targets, strict=True))
        self.classes = list(classes)
        self.class_to_idx = {name: number for number, name in enumerate(classes)}

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = super().__getitem__(index)
        return image, target if self.labels is None else self.labels[index]

    def read(self, index: int) -> Any:
        """Decode the file. Raises a `BrokenImageError`: it can't be decoded."""
        return self.reading.read(self.samples[index][0])


class CustomDatasetWithoutLabels(ImageFiles):
    """All images directly in `root`, with target -1, at least one; `images`: their sorted names."""

    def __init__(self, root: str | Path, transform: Step = None) -> None:
        self.root = Path(root)
        self.images = flat_images(self.root)
        if not self.images:
            raise UserError(f"{self.root} holds no files that are images; give a folder with images directly inside")
        super().__init__([self.root / name for name in self.images], [-1] * len(self.images), (), transform)


class H5Dataset(ImageFiles):
    """Images of one HDF5 file in solo-learn's layout; classes are its groups, of which `imagenet100` takes its own.

    `samples` are `(class name/image name, class index)`.
    """

    def __init__(
        self, dataset: str, h5_path: str | Path, transform: Step = None, target_transform: Step = None
    ) -> None:
        self._file = H5File(Path(h5_path).expanduser())
        self.root, index = self._file.path, read_index(self._file.path)
        classes = choose_classes(dataset, list(index))
        names = [f"{name}/{image}" for name in classes for image in index[name]]
        targets = [target for target, name in enumerate(classes) for _ in index[name]]
        super().__init__(names, targets, classes, transform, target_transform)

    def read(self, index: int) -> Any:
        """Decode the stored file. Raises a `BrokenImageError`: it can't be decoded."""
        return self.reading.read(self._file.image(str(self.samples[index][0])))

    def sources(self) -> list[Stored]:
        """Where each image lies, for who decodes by himself."""
        return [self._file.image(str(name)) for name, _ in self.samples]


class SkipBroken(Around):
    """The next readable image, with an unknown label (-1), stands for a broken one; workers share which these are."""

    def __init__(self, dataset: Dataset[tuple[Any, Any]]) -> None:
        super().__init__(dataset)
        self.broken = torch.zeros(len(cast(Sized, dataset)), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

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
        names = image_sources(self.dataset)
        found = [str(names[i]) if names else f"image {i}" for i in self.broken.nonzero().flatten().tolist()]
        return [*getattr(self.dataset, "problems", []), *map(not_an_image, found)]


def not_an_image(name: str) -> str:
    """The line on a file that was skipped."""
    return f"{printable(name)} can't be read as an image"


def next_readable(
    first: int, count: int, broken: Callable[[int], Any], read: Callable[[int], Item], mark: Callable[[int], None]
) -> tuple[int, Item]:
    """The place of the first of `count` images, from `first` on and round, that can be read, and what is read there."""
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
    if not hasattr(dataset, "samples"):
        return None
    return [sample if isinstance(sample, Stored) else str(sample) for sample, *_ in dataset.samples]


def skipped_files(dataset: Any) -> list[str]:
    """What a data set has skipped so far: the first with a method `skipped` below wrappers with `dataset`."""
    while dataset is not None and not hasattr(dataset, "skipped"):
        dataset = getattr(dataset, "dataset", None)
    return list(dataset.skipped()) if dataset is not None else []
