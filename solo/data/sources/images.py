"""Data sets of PIL images: arrays, files with labels, a flat folder without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from solo.data.storage.reading import ImageReading, flat_images
from solo.data.storage.stored import Stored
from solo.errors import UserError

Transform = Callable[[Any], Any]


class LabelledImages(Dataset[tuple[Any, Any]]):
    """Items `(image, target)`; a subclass says how an image is read.

    Args:
        targets: of each image the leaf class, -1 for unlabelled.
        transform, target_transform: applied to each PIL image and target.

    Attributes:
        reading: how files become images.
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
        return (
            self.transform(image) if self.transform else image,
            self.target_transform(target) if self.target_transform else target,
        )

    def read(self, index: int) -> Any:
        """The image as it is stored."""
        raise NotImplementedError


class ArrayDataset(LabelledImages):
    """Images in memory.

    Args:
        images: uint8, `(N, H, W)` grey or `(N, H, W, 3)` RGB.
        targets: `N` leaf classes.
        transform, target_transform: applied to each PIL image and target.

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
        """Decode the file.

        Raises:
            BrokenImageError: it can't be decoded.
        """
        return self.reading.read(self.samples[index][0])


class CustomDatasetWithoutLabels(LabelledImages):
    """All images directly in `root`, with target -1; other files are left out.

    Attributes:
        images: file names, sorted.

    Raises:
        UserError: if there is none.
    """

    def __init__(self, root: str | Path, transform: Transform | None = None) -> None:
        self.root = Path(root)
        self.images = flat_images(self.root)
        if not self.images:
            raise UserError(f"{self.root} holds no files that are images; give a folder with images directly inside")
        super().__init__([-1] * len(self.images), transform)

    def read(self, index: int) -> Any:
        """Decode the file; raises as `ImageFiles.read`."""
        return self.reading.read(self.root / self.images[index])
