"""What the readers share: find a data set on disk, read its lists into files and classes, number the classes."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from solo.data.labels.trees import Names, from_paths, numbered
from solo.data.storage.containers import guarded
from solo.data.storage.facts import Problems, class_folders, image_folders, is_image_name
from solo.errors import UserError, explained
from solo.files import parse_json, regular
from solo.taxonomy import Taxonomy

Classes = Mapping[Any, Names]
Images = Callable[[Path, bool], Iterable[tuple[str | Path, Any]]]
# What the sub-folders of the two splits are called where a data set is a folder of class folders.
_SPLITS = {True: ("train", "2021_train", "train_mini", "2021_train_mini"), False: ("val", "test", "2021_valid")}


class About(NamedTuple):
    """A published data set in words: its name, what the unpacked archive is called, where to get it."""

    title: str
    folder: str
    url: str


@dataclass(frozen=True)
class Layout:
    """A data set as its authors publish it, or as a folder with one sub-folder per class, or with `train` and `val`.

    It is looked for in the given folder, below it in `about.folder`, once or twice, and above it if it is called
    `train`, `val`, `test` or like a marker: then the file of the data set was given.
    """

    about: About
    # files and folders that it must have, alternatives apart by `|`; without any, it is published as class folders
    markers: tuple[str, ...] = ()
    # root -> what its files call each class, in official order, and its name path; None: as `images` call them, sorted
    classes: Callable[[Path], Classes] | None = None
    # (root, whether training images are wanted) -> image file and what they call its class
    images: Images | None = None
    levels: Names | None = ("class",)  # names of the label levels
    # name of a class folder -> its name path; None: without its lists it can't be told from another data set
    of_folder: Callable[[str], Names] | None = lambda name: (name,)
    torchvision: str | None = None  # class of torchvision that can fetch it into a folder
    # of which an image may have several; its class is `label+label`, those that can hardly be seen with `?` in front
    several: Names = ()
    # root -> those of the validation images that are looked up in the others
    queries: Callable[[Path], Iterable[Path]] | None = None

    def root(self, path: Path) -> Path | None:
        """The folder that has all markers, if there is one."""
        below = self.about.folder
        above = [path.parent] if path.name in ("train", "val", "test", *self.markers) else []
        for folder in (path, path / below, path / below / below, *above) if self.markers else ():
            if all(_has(folder, marker) for marker in self.markers):
                return folder
        return None

    def class_folder(self, path: Path, train: bool) -> Path | None:
        """The folder whose sub-folders are the classes of this split, if there is one."""
        if self.of_folder is None:
            return None
        for folder in (path, path / self.about.folder):
            for name in _SPLITS[train]:
                if (folder / name).is_dir():
                    return folder / name
        # Its own folders are no classes, where some of it is there.
        if not path.is_dir() or any(_has(path, marker) for marker in self.markers):
            return None
        # The first sub-folder, or a folder `images` in it, holds images: other data sets don't look like that.
        first = [path / name / deeper for name in class_folders(path)[:1] for deeper in ("", "images")]
        return path if any(images_in(place) for place in first if place.is_dir()) else None

    def how_to(self, path: Path) -> str:
        """The message for when nothing was found."""
        inside = "with " + ", ".join(self.markers).replace("|", " or ") if self.markers else "above it"
        folders = "; one folder per class (train/CLASS, test/CLASS) is read as well" if self.of_folder else ""
        fetch = f"no {self.about.title} in {path}; fetch it from {self.about.url}, unpack it"
        return f"{fetch}, and set data.train_path and data.val_path to the folder {inside}{folders}"

    def fetch(self, path: Path) -> None:
        """Let torchvision download it into `path`. Raises a `UserError`: it can't be downloaded."""
        from torchvision import datasets

        with guarded(), explained(f"{self.how_to(path)}; the download failed", "try again", RuntimeError, OSError):
            getattr(datasets, cast(str, self.torchvision))(str(path), download=True)

    def tree(self, path: Path, train: bool = True) -> Taxonomy | None:
        """The label tree, None if there are no data in `path`."""
        found = self._classes(path, train)
        return _tree(tuple(found[1].values()), self.levels) if found else None

    def read(self, path: Path, train: bool) -> tuple[list[str], list[int], Taxonomy]:
        """Image files, their classes, and the tree of these; a `UserError` if they aren't there or damaged."""
        found = self._classes(path, train)
        if found is None:
            raise UserError(self.how_to(path))
        folder, classes = found
        tree = _tree(tuple(classes.values()), self.levels)
        nodes = numbered(classes.values())
        leaves = {place: leaf for leaf, place in enumerate(tree.leaves)}
        leaf_of = {name: leaves[len(way) - 1, nodes[len(way) - 1][way]] for name, way in classes.items()}
        images = self.images if self.root(path) and self.images else _in_class_folders
        files, targets = list[str](), list[int]()  # path objects take three times the memory
        with self._reading(folder):
            for file, name in images(folder, train):
                files.append(str(file))
                targets.append(leaf_of[name])
        if not files:
            raise UserError(f"{self.about.title} in {folder} has no {'training' if train else 'validation'} images")
        return files, targets, tree

    def _classes(self, path: Path, train: bool) -> tuple[Path, Classes] | None:
        root = self.root(path)
        with self._reading(root or path):
            if root is None:
                folder = self.class_folder(path, train)
                if folder is None or self.of_folder is None:
                    return None
                return folder, {name: self.of_folder(name) for name in class_folders(folder)}
            if self.classes:
                classes = self.classes(root)
            else:
                names = {name for images in (True, False) for _, name in cast(Images, self.images)(root, images)}
                classes = {name: (name,) if isinstance(name, str) else name for name in sorted(names)}
            if not classes:
                raise ValueError("its lists name no class")
            for name, names_of in classes.items():
                if not names_of or not all(isinstance(part, str) and part for part in names_of):
                    raise ValueError(f"class {name!r} has the names {names_of!r}")
            return root, classes

    @contextmanager
    def _reading(self, folder: Path) -> Iterator[None]:
        with explained(f"{self.about.title} in {folder} can't be read", "unpack its archives again"):
            try:
                yield
            except KeyError as error:
                raise ValueError(f"no class or image {error}") from error


def lines(path: Path, columns: int = 1) -> Iterator[list[str]]:
    """The lines of a text file, each cut at the first blanks into `columns` pieces; empty lines are left out."""
    with regular(path).open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                pieces = line.strip().split(maxsplit=columns - 1)
                if len(pieces) != columns:
                    raise ValueError(f"{path.name}: {line.strip()!r} has {len(pieces)} columns instead of {columns}")
                yield pieces


def listed(lists: str, train: str, val: str, file: str = "{}", columns: int = 1) -> Images:
    """Images of text files, `lists` with the words of a split: name of the `file` and class, or class/name."""

    def images(root: Path, training: bool) -> Iterator[tuple[Path, str]]:
        for word in (train if training else val).split():
            for name, *more in lines(root / lists.format(word), columns):
                name = name.lstrip("/")
                yield root / file.format(name), more[0] if more else name.rpartition("/")[0]

    return images


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return parse_json(regular(path).read_bytes())


def beside(root: Path, folder: str, name: str) -> Path:
    """What has that name, beside a folder or in it."""
    return root / folder / name if (root / folder / name).exists() else root / name


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, sorted."""
    return sorted(file for file in folder.iterdir() if is_image_name(file.name))


@functools.lru_cache(maxsize=8)  # a run asks several times for the same tree
def _tree(paths: tuple[Names, ...], levels: Names | None) -> Taxonomy:
    depth = max(map(len, paths), default=0)
    # Class folders of a data set with several levels may say one of them only.
    return from_paths(paths, levels if levels is None or len(levels) == depth else ("class",))


def _has(folder: Path, marker: str) -> bool:
    return any((folder / name).exists() for name in marker.split("|"))


def _in_class_folders(folder: Path, train: bool) -> Iterator[tuple[str, str]]:
    for name in class_folders(folder):
        for parts, files in image_folders(folder / name, Problems()):
            yield from ((os.path.join(folder, name, *parts, file), name) for file in files)
