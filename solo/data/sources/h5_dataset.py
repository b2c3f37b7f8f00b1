"""Images out of one HDF5 file, in solo-learn's layout (`solo.data.storage.h5_file`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from solo.data.catalogue.registry import choose_classes
from solo.data.sources.images import LabelledImages, Transform
from solo.data.storage.h5_file import OpenH5, h5_image, read_index
from solo.data.storage.stored import Stored


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
        self._file = OpenH5(self.root)

    def read(self, index: int) -> Any:
        """Decode the stored file.

        Raises:
            BrokenImageError: it can't be decoded.
        """
        return self.reading.read(h5_image(self._file, self.samples[index][0]))

    def sources(self) -> list[Stored]:
        """Where each image lies, for who decodes by himself."""
        return [h5_image(self._file, name) for name, _ in self.samples]
