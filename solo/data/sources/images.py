"""Data sets of PIL images: arrays, files with labels, an HDF5 file, a flat folder; and what is wanted of a source."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from solo.data.catalogue.registry import choose_classes
from solo.data.storage.folders import DEFAULT_ROOT
from solo.data.storage.containers import OpenH5, h5_image, read_index
from solo.data.storage.reading import ImageReading, flat_images
from solo.data.storage.facts import Stored
from solo.errors import UserError
from solo.taxonomy import Taxonomy

Transform = Callable[[Any], Any]
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


class LabelledImages(Dataset[tuple[Any, Any]]):
    """Items `(image, target)`, after their transforms; a subclass says how an image is read.

    `targets` has the leaf class of each image, -1 for unlabelled; `reading` says how files become images.
    """

    reading = ImageReading()

    def __init__(
        self, targets: Iterable[int], transform: Transform | None = None, target_transform: Transform | None = None
    ) -> None:
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
    """Images in memory: uint8, `(N, H, W)` grey or `(N, H, W, 3)` RGB.

    Attributes:
        groups: images of one belong together (a writer, a font), and `data.holdout` leaves them together; or None.
    """

    groups: np.ndarray | None = None

    def __init__(
        self,
        images: np.ndarray,
        targets: Iterable[int],
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        super().__init__(targets, transform, target_transform)
        self.images = images

    @property
    def data(self) -> np.ndarray:
        """`images`, as torchvision's CIFAR calls them."""
        return self.images

    @data.setter
    def data(self, images: np.ndarray) -> None:
        self.images = images

    def read(self, index: int) -> Image.Image:
        """The image, grey or RGB, as one of Pillow."""
        return Image.fromarray(self.images[index])


class ImageFiles(LabelledImages):
    """Image files, or images inside of larger ones; `samples` (file, class), `classes` (names) as in torchvision."""

    def __init__(
        self,
        files: Sequence[str | Path | Stored],
        targets: Sequence[int],
        classes: Sequence[str],
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        super().__init__(targets, transform, target_transform)
        self.samples = list(zip(files, self.targets, strict=True))
        self.classes = list(classes)

    @property
    def imgs(self) -> list[tuple[str | Path | Stored, int]]:
        """`samples`, by torchvision's other name."""
        return self.samples

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class name."""
        return {name: number for number, name in enumerate(self.classes)}

    def read(self, index: int) -> Any:
        """Decode the file. Raises a `BrokenImageError`: it can't be decoded."""
        return self.reading.read(self.samples[index][0])


class CustomDatasetWithoutLabels(LabelledImages):
    """All images directly in `root`, with target -1, at least one; `images`: their sorted names."""

    def __init__(self, root: str | Path, transform: Transform | None = None) -> None:
        self.root = Path(root)
        self.images = flat_images(self.root)
        if not self.images:
            raise UserError(f"{self.root} holds no files that are images; give a folder with images directly inside")
        super().__init__([-1] * len(self.images), transform)

    def read(self, index: int) -> Any:
        """Decode the file; raises as `ImageFiles.read`."""
        return self.reading.read(self.root / self.images[index])


class H5Dataset(LabelledImages):
    """Images of one HDF5 file in solo-learn's layout; classes are its groups, sorted by name.

    For the data set `imagenet100` its classes are taken out of a larger file. `samples` are `(class name/image name,
    class index)`. Raises a `UserError` where h5py is missing, the file can't be read or has another layout.
    """

    def __init__(
        self,
        dataset: str,
        h5_path: str | Path,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        self.root = Path(h5_path).expanduser()
        index = read_index(self.root)
        self.classes = choose_classes(dataset, list(index))
        self.samples = [
            (f"{name}/{image}", target) for target, name in enumerate(self.classes) for image in index[name]
        ]
        super().__init__([target for _, target in self.samples], transform, target_transform)
        self._file = OpenH5(self.root)

    def read(self, index: int) -> Any:
        """Decode the stored file. Raises a `BrokenImageError`: it can't be decoded."""
        return self.reading.read(h5_image(self._file, self.samples[index][0]))

    def sources(self) -> list[Stored]:
        """Where each image lies, for who decodes by himself."""
        return [h5_image(self._file, name) for name, _ in self.samples]
