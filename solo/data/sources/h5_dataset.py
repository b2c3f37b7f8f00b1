"""Images out of one HDF5 file, in solo-learn's layout (`solo.data.storage.h5_file`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from solo.data.catalogue.registry import choose_classes
from solo.data.sources.images import LabelledImages, Transform
from solo.data.storage.h5_file import open_h5, read_index


@dataclass(frozen=True)
class H5Image:
    """One image of the file."""

    dataset: H5Dataset
    part: str

    def __str__(self) -> str:
        return f"{self.container}: {self.part}"

    @property
    def container(self) -> str:
        """The HDF5 file."""
        return str(self.dataset.root)

    def read(self) -> bytes:
        """Its bytes."""
        return self.dataset.content(self.part)


class H5Dataset(LabelledImages):
    """Items `(RGB image, class index)`; classes are the file's groups, sorted by name.

    Args:
        dataset: `imagenet100` takes its classes out of a larger file; any other name takes all groups.
        h5_path: the file.
        transform: applied to each PIL image.
        target_transform: applied to each class index.

    Attributes:
        classes: names of the groups, sorted.
        samples: `(class name/image name, class index)`.
        targets: class indices.

    Raises:
        UserError: h5py is missing, the file can't be read or has another layout.
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
        self._file: Any = None
        self._owner = -1

    def read(self, index: int) -> Image.Image:
        """Decode the stored file.

        Raises:
            BrokenImageError: it can't be decoded.
        """
        entry = H5Image(self, self.samples[index][0])
        return self.reading.read(entry)

    def sources(self) -> list[H5Image]:
        """Where each image lies, for who decodes by himself."""
        return [H5Image(self, name) for name, _ in self.samples]

    def content(self, name: str) -> bytes:
        """The stored image file of that name."""
        return bytes(self._open()[name][()].tobytes())

    def _open(self) -> Any:
        """This process's own handle: one that was opened before a fork reads other processes' bytes."""
        if self._owner != os.getpid():
            self._file, self._owner = open_h5(self.root), os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_owner": -1}
