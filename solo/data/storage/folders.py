"""Folders: which classes and image files lie there, and what keeps others from being read. Names only; no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from solo.errors import UserError

Parts = tuple[str, ...]

# What Pillow reads without plug-ins, the same list as torchvision's ImageFolder, and NumPy's arrays.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".npy")
# Where data sets are looked for, and fetched into, without a path.
DEFAULT_ROOT = Path(__file__).parents[2] / "datasets"
# Names of the folders of the two splits.
TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation", "test")


def existing_folder(path: str | None) -> Path:
    """The path of a folder that is there.

    Raises:
        UserError: none is given, or it is no folder.
    """
    if not path:
        raise UserError("data.train_path (or data.val_path) is not set; give the folder that holds the images")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"the data folder {folder} {what}; check data.train_path, data.val_path and data.format")
    return folder


def class_folders(path: str | os.PathLike[str]) -> list[str]:
    """Names of the folders in `path`, sorted, without hidden ones: the classes of an image folder."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


@dataclass
class Problems:
    """What can't be read and why: either the first one stops everything, or all are collected.

    Attributes:
        skip: whether to go on.
        found: one line each, beginning with the path.
    """

    skip: bool = False
    found: list[str] = field(default_factory=list)

    def add(self, path: str | Path, reason: str) -> None:
        """Note a problem.

        Raises:
            UserError: unless problems are skipped.
        """
        if not self.skip:
            raise UserError(f"{path} {reason}; repair or remove it, or set data.on_error=skip")
        self.found.append(f"{path} {reason}")


def image_folders(root: str | Path, problems: Problems) -> Iterator[tuple[Parts, list[str]]]:
    """Every folder that holds images: its parts below `root` (none for the root) and the sorted file names.

    Hidden files and folders are left out, links are followed. Sub-folders come in the order of their names, each after
    the folder that holds it, so that whoever has seen enough may stop.

    Args:
        root: an existing folder.
        problems: told of folders that can't be listed and of links that lead nowhere.
    """
    yield from _walk(Path(root), (), problems, frozenset())


def _walk(folder: Path, parts: Parts, problems: Problems, above: frozenset[str]) -> Iterator[tuple[Parts, list[str]]]:
    real = os.path.realpath(folder)
    if real in above:
        problems.add(folder, "links to a folder above itself")
        return
    images, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.name.lower().endswith(IMAGE_EXTENSIONS):
                    if entry.is_symlink() and not os.path.exists(entry.path):
                        problems.add(entry.path, "is a link to a file that isn't there")
                    else:
                        images.append(entry.name)
    except OSError as error:
        problems.add(folder, f"can't be listed ({error.strerror})")
        return
    if images:
        yield parts, sorted(images)
    for name in sorted(folders):
        yield from _walk(folder / name, (*parts, name), problems, above | {real})
