"""Folders: which classes and image files lie there, and what keeps others from being read. Names only; no torch."""

import functools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from solo.errors import UserError, printable

Parts = tuple[str, ...]

# Where data sets are looked for, and fetched into, without a path.
DEFAULT_ROOT = Path(__file__).parents[2] / "datasets"
# Names of the folders of the two splits.
TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation", "test")

# Made by operating systems, network storage and editors, beside hidden ones.
_SYSTEM_FOLDERS = {"@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin"}
_SYSTEM_FOLDERS |= {"__macosx", "lost+found", "system volume information", "__pycache__"}
# What Pillow knows by name and can't decode, or only with other programs.
_NO_PICTURES = {".bufr", ".emf", ".eps", ".grib", ".h5", ".hdf", ".iim", ".mpeg", ".mpg", ".ps", ".wmf"}


@functools.cache
def _image_suffixes() -> tuple[str, ...]:
    """In lower case: what Pillow with its plug-ins reads, and NumPy's arrays."""
    from PIL import Image  # takes a while, and not everyone looks at images

    Image.init()
    known = {suffix for suffix, format_ in Image.registered_extensions().items() if format_ in Image.OPEN}
    return (*sorted(known - _NO_PICTURES), ".npy")


def is_image_name(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(_image_suffixes())


def is_ignored(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or made by a system."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def existing_folder(path: str | None) -> Path:
    """The path of a folder that is there. Raises a `UserError`: none is given, or it is no folder."""
    if not path:
        raise UserError("data.train_path (or data.val_path) is not set; give the folder that holds the images")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"the data folder {folder} {what}; check data.train_path, data.val_path and data.format")
    return folder


def class_folders(path: str | os.PathLike[str]) -> list[str]:
    """Names of the folders in `path`, sorted: the classes of an image folder. Hidden and system folders are none."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and not is_ignored(entry.name))


def of_split(folder: Path, train: bool) -> Path:
    """The folder of a split, where `folder` is the one above `train` and `val`; else `folder` itself."""
    names = class_folders(folder) if folder.is_dir() else []
    known = [name for name in (TRAINING if train else VALIDATION) if name in names]
    splits = any(name in TRAINING for name in names) and set(names) <= {*TRAINING, *VALIDATION}
    return folder / known[0] if known and splits and len(names) > 1 else folder


@dataclass
class Problems:
    """What can't be read and why: either the first one stops everything, or all are collected."""

    skip: bool = False  # whether to go on
    key: str = "data.on_error"  # that says so
    found: list[str] = field(default_factory=list)  # one line each, beginning with the path
    # what else lies there: a file's suffix, or the name of a system's folder -> how many
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, path: str | Path, reason: str) -> None:
        """Note a problem, which is a `UserError` unless problems are skipped."""
        path = printable(path)
        if not self.skip:
            raise UserError(f"{path} {reason}; repair or remove it, or set {self.key}=skip")
        self.found.append(f"{path} {reason}")

    def leave_out(self, name: str, kind: str | None = None) -> None:
        """Count a file or folder that is no image; what is hidden is expected anywhere."""
        if not name.startswith("."):
            self.left_out[printable(kind or os.path.splitext(name)[1].lower() or "no suffix")] += 1

    def notes(self) -> list[str]:
        """A line on what is left out, if anything is."""
        known = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        kinds = ", ".join(f"{kind} ({count:,})" for kind, count in known[:8])
        more = f" and {len(known) - 8} more kinds" if len(known) > 8 else ""
        return [f"left out, for they are no images: {kinds}{more}"] if kinds else []


def image_folders(
    root: str | Path, problems: Problems, parts: Parts = (), above: frozenset[str] = frozenset()
) -> Iterator[tuple[Parts, list[str]]]:
    """Every folder that holds images: its parts below `root` (none for the root) and the sorted file names.

    Hidden files and folders are left out, links are followed. Each comes after the folder that holds it, in the order
    of names. `problems` is told of folders that can't be listed, of links that lead nowhere, and of what is left out.
    `parts` and `above`, real paths, are the way here.
    """
    real = os.path.realpath(root)
    if real in above:
        problems.add(root, "links to a folder above itself")
        return
    images, folders = [], []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if _is_folder(entry):
                    if is_ignored(entry.name):
                        problems.leave_out(entry.name, entry.name)
                    else:
                        folders.append(entry.name)
                elif is_ignored(entry.name) or not is_image_name(entry.name):
                    problems.leave_out(entry.name)
                elif os.path.isfile(entry.path):
                    images.append(entry.name)
                elif entry.is_symlink():
                    problems.add(entry.path, "is a link to a file that isn't there")
                else:
                    problems.leave_out(entry.name, "pipes, sockets and devices")
    except OSError as error:
        problems.add(root, f"can't be listed ({error.strerror})")
        return
    if images:
        yield parts, sorted(images)
    for name in sorted(folders):
        yield from image_folders(Path(root, name), problems, (*parts, name), above | {real})


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
