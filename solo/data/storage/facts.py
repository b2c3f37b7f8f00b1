"""What is known of images before one is read: names and folders, where each lies, how they become images, samples."""

from __future__ import annotations

import functools
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from solo.errors import UserError, printable, some

if TYPE_CHECKING:
    from typing_extensions import Self

Parts = tuple[str, ...]
Item = TypeVar("Item")
LOOKED_AT = 128  # files of a sample
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


def training_folder(path: str | None) -> Path:
    """The folder of the training images, `path` or one in it. Raises a `UserError`: none is given, or it is none."""
    if not path:
        raise UserError("data.train_path (or data.val_path) is not set; give the folder that holds the images")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"the data folder {folder} {what}; check data.train_path, data.val_path and data.format")
    return of_split(folder, train=True)


def class_folders(path: str | os.PathLike[str]) -> list[str]:
    """Names of the folders in `path`, sorted: the classes of an image folder. Hidden and system folders are none."""
    with os.scandir(path) as entries:  # `is_dir` fails at a link to itself
        folders = [one.name for one in entries if (os.path.isdir(one.path) if one.is_symlink() else one.is_dir())]
    return sorted(name for name in folders if not is_ignored(name))


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
        kinds = some([f"{kind} ({count:,})" for kind, count in known], 8)
        return [f"left out, for they are no images: {kinds}"] if kinds else []


def image_folders(root: str | Path, problems: Problems) -> Iterator[tuple[Parts, list[str]]]:
    """Every folder that holds images: its parts below `root` (none for the root) and the sorted file names.

    Hidden files and folders are left out, links are followed. `problems` is told of what can't be read or is left out.
    """

    def refused(error: OSError) -> None:
        problems.add(error.filename, f"can't be listed ({error.strerror})")

    above: dict[str, frozenset[str]] = {}  # each folder's own real path and those of the folders that it lies in
    for place, folders, files in os.walk(Path(root), onerror=refused, followlinks=True):
        real, before = os.path.realpath(place), above.get(os.path.dirname(place), frozenset())
        above[place] = before | {real}
        if real in before:
            problems.add(place, "links to a folder above itself")
            folders.clear()
            continue
        for name in filter(is_ignored, folders):
            problems.leave_out(name, name)
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        images = []
        for name in files:
            path = os.path.join(place, name)
            if is_ignored(name) or not is_image_name(name):
                problems.leave_out(name)
            elif os.path.isfile(path):
                images.append(name)
            elif os.path.islink(path):
                problems.add(path, "is a link to a file that isn't there")
            else:
                problems.leave_out(name, "pipes, sockets and devices")
        if images:
            yield Path(place).relative_to(root).parts, sorted(images)


@dataclass(frozen=True, slots=True)  # there may be millions
class Stored:
    """An encoded image file without a path of its own: in a tar file, an HDF5 file, a Hugging Face data set."""

    name: str  # for people
    container: str | None  # the file that it lies in; None where that has no single one
    part: str  # which part of it; without a container, a text that changes with the data
    reader: Callable[..., bytes] = field(compare=False)  # gives the bytes of the image file, as many as there are
    place: tuple[Any, ...] = field(compare=False)  # what it is called with; a `partial` takes three times the memory

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """The bytes of the image file; raises what its reader raises."""
        return self.reader(*self.place)


Source = str | Stored


def identity(source: Source) -> str:
    """A text that changes when what is stored there does, without a look at the image."""
    place, part = (source, "") if isinstance(source, str) else (source.container, source.part)
    if place is None:
        return part
    try:
        stat = os.stat(place)
    except OSError:  # a link to nothing
        return f"{os.path.abspath(place)} missing"
    return f"{os.path.abspath(place)} {stat.st_size} {stat.st_mtime_ns} {part}".rstrip()


@dataclass(frozen=True)
class ReadingKeys:
    """The keys of `data` that say how files are read. The defaults leave 8-bit pictures as they are."""

    channels: int = 3  # 1 or 3: RGB images of Pillow; any other number: arrays
    # the values that are black and white; what lies outside is cut off. Of images with more than 8 bits a value, and of
    # all if white is at most 255. None: 0 to 65,535 in integers, 0 to 1 in floating point, others are refused.
    range: tuple[float, float] | None = None
    exif: bool = True  # turn pictures as their EXIF says and viewers show them; TIFF files Pillow always turns
    background: tuple[int, int, int] = (255, 255, 255)  # red, green, blue behind transparent pictures
    max_pixels: int = 178_956_970  # of one image; larger ones are refused, a small file may unpack to any size

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """From a section `data`, a dict or an OmegaConf node; keys that are missing or null are the defaults."""
        options: dict[str, Any] = {
            key.name: data.get(key.name) for key in fields(cls) if data.get(key.name) is not None
        }
        for key, count in (("range", 2), ("background", 3)):
            if key in options:
                options[key] = tuple(options[key])
                if len(options[key]) != count:
                    raise UserError(f"data.{key}={list(options[key])} has {len(options[key])} numbers; give {count}")
        black, white = options.get("range") or (0, 1)
        if not (math.isfinite(black) and math.isfinite(white) and black < white):
            raise UserError(f"data.range=[{black:g},{white:g}]: black must be below white, for example [0,4095]")
        return cls(**options)


def spread(items: Sequence[Item]) -> list[Item]:
    """At most `LOOKED_AT` of them, the same ones each time, from everywhere."""
    return list(items[:: max(1, math.ceil(len(items) / LOOKED_AT))])
