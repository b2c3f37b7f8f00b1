"""The data sets by name, and a first look at their folders.

Imports no torch, so that configurations can be checked and described in no time. The rows are
in `solo.data.catalogue.rows`.
"""

from __future__ import annotations

import difflib
import itertools
import os
from pathlib import Path

from solo.data.catalogue.rows import ALIASES, ROWS, DatasetSpec
from solo.errors import UserError

__all__ = [
    "DATASETS",
    "DEFAULT_ROOT",
    "IMAGE_EXTENSIONS",
    "DatasetSpec",
    "check_path",
    "choose_classes",
    "class_folders",
    "count_classes",
    "existing_folder",
    "get_spec",
    "obtain",
    "validation_path",
]

# What Pillow reads without plug-ins, the same list as torchvision's ImageFolder, and NumPy's arrays.
IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".npy")
# Where data sets are looked for, and fetched into, without a path.
DEFAULT_ROOT = Path(__file__).parents[2] / "datasets"

# Names of the folders of the two splits.
TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation", "test")

IMAGENET100 = Path(__file__).parent / "dataset_subset" / "imagenet100_classes.txt"

DATASETS: dict[str, DatasetSpec] = {row.name: row for row in ROWS}
DATASETS.update({alias: DATASETS[name] for alias, name in ALIASES.items()})


def get_spec(name: str | DatasetSpec) -> DatasetSpec:
    """The row of `name`; a row, e.g. one that `resolve_spec` has completed, is returned as it is.

    Raises:
        UserError: if there is none; names the closest ones.
    """
    if isinstance(name, DatasetSpec):
        return name
    if name in DATASETS:
        return DATASETS[name]
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), DATASETS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"data.dataset={name!r} is unknown; {hint}choose one of {', '.join(sorted(DATASETS))}")


def class_folders(path: str | os.PathLike[str]) -> list[str]:
    """Names of the folders in `path`, sorted, without hidden ones: the classes of an image folder."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def choose_classes(dataset: str, names: list[str]) -> list[str]:
    """The classes of a data set out of those that are there.

    ImageNet-100 is the 100 classes of `dataset_subset/imagenet100_classes.txt` (Tian et al., Contrastive Multiview
    Coding, ECCV 2020: https://arxiv.org/abs/1906.05849); where none of them is there, all are taken.
    """
    if dataset != "imagenet100":
        return names
    wanted = set(IMAGENET100.read_text(encoding="utf-8").split())
    return [name for name in names if name in wanted] or names


def count_classes(spec: DatasetSpec, train_path: str | None = None) -> int:
    """The number of leaf classes: the data set's own, else that of the sub-folders (HDF5: groups) of `train_path`.

    Raises:
        UserError: if it has to be counted and `train_path` is neither a folder nor an HDF5 file.
    """
    if spec.num_classes is not None:
        return spec.num_classes
    from solo.data.sources.h5_file import is_h5, read_index

    if train_path and is_h5(train_path):
        return len(read_index(spec.name, Path(train_path)))
    return max(1, len(class_folders(existing_folder(train_path))))


def check_path(spec: DatasetSpec, path: str | None, no_labels: bool = False, data_format: str = "image_folder") -> None:
    """Look at a data folder or HDF5 file without reading an image, so that a wrong path fails at once.

    Data sets which can be fetched accept a folder that isn't there yet, and none at all.

    Raises:
        UserError: if the folder is missing, empty, or has no class folders (no files, with `no_labels`); if an HDF5
            file is given without `data_format="h5"`, or anything else with it; if other images lie where a data set
            would be fetched into.
    """
    if data_format == "h5":
        _check_h5(spec, path, no_labels)
        return
    if not spec.folders:
        if path and spec.downloads and spec.layout is None:
            _check_target(spec, Path(path).expanduser())
        return
    folder = existing_folder(path)
    with os.scandir(folder) as entries:
        has_files = any(entry.is_file() and not entry.name.startswith(".") for entry in entries)
    if no_labels and not has_files:
        raise UserError(f"{folder} holds no files; data.no_labels=True expects the images directly in that folder")
    if not no_labels and not class_folders(folder):
        found = "only files" if has_files else "nothing"
        raise UserError(
            f"{folder} holds {found}; expected one folder per class with images inside. "
            "Unlabelled images in one flat folder need data.dataset=custom data.no_labels=True"
        )


def _check_target(spec: DatasetSpec, folder: Path) -> None:
    """A wrong path would otherwise get a copy of the data set, and the run another one than what lies there."""
    if folder.is_file():
        if spec.name == "cifar10c":
            return
        raise UserError(f"{folder} is a file; {spec.name} needs the folder that holds its files, or will hold them")
    if folder.is_dir() and spec.taxonomy and class_folders(folder) == list(spec.taxonomy.class_names):
        return
    for place in (folder, folder / TRAINING[0]):
        if not place.is_dir():
            continue
        names = [name for name in class_folders(place) if _has_images(place / name)]
        if _has_images(place) or len(names) > 1:
            found = f"class folders ({names[0]}, {names[1]}, ..)" if len(names) > 1 else "images"
            raise UserError(
                f"{place} holds {found} and no {spec.name}; for these images use data.dataset=custom, for {spec.name} "
                "the folder that holds it, or will hold it"
            )


def _has_images(folder: Path) -> bool:
    """Whether most of what lies there are images: a single picture may lie beside any data."""
    with os.scandir(folder) as entries:
        names = [entry.name.lower() for entry in itertools.islice(entries, 100)]
    kinds = tuple(set(IMAGE_EXTENSIONS) - {".npy"})  # in which some data sets are stored
    return 2 * sum(name.endswith(kinds) for name in names) > len(names)


def obtain(spec: DatasetSpec, path: str | None, download: bool) -> None:
    """Look for a data set in its authors' layout; fetch it if that is allowed and possible.

    Done before a model is built, because the number of classes and the label tree come from the files.

    Raises:
        UserError: it isn't there, and can't be fetched.
    """
    from solo.data.layouts.layout import layout_of

    layout, folder = layout_of(spec), Path(path).expanduser() if path else DEFAULT_ROOT
    if layout.tree(folder) is None and layout.tree(folder, train=False) is None:
        if not (download and layout.torchvision):
            raise UserError(layout.how_to(folder))
        layout.fetch(folder)


def validation_path(spec: DatasetSpec, train_path: str | None) -> str | None:
    """Where the validation images are if only `train_path` is given.

    There, in layouts that keep both together; for own images a folder `val`, `validation` or `test` beside `train`, if
    it holds the same class folders.
    """
    if spec.layout is None:
        return _beside(Path(train_path).expanduser()) if train_path and spec.name == "custom" else None
    if not train_path:
        return None
    from solo.data.layouts.layout import layout_of

    return train_path if layout_of(spec).holds_both(Path(train_path).expanduser()) else None


def _beside(train: Path) -> str | None:
    if train.name not in TRAINING or not train.is_dir():
        return None
    for name in VALIDATION:
        folder = train.with_name(name)
        if folder.is_dir() and class_folders(folder) == class_folders(train) != []:
            return str(folder)
    return None


def _check_h5(spec: DatasetSpec, path: str | None, no_labels: bool) -> None:
    from solo.data.sources.h5_file import is_h5

    if not spec.folders or no_labels:
        what = "unlabelled images (data.no_labels=True)" if no_labels else spec.name
        stored = ", ".join(name for name, row in DATASETS.items() if row.folders)
        raise UserError(f"data.format='h5' reads {stored}, not {what}; set data.format=image_folder")
    if not path or not is_h5(Path(path).expanduser()):
        raise UserError(
            f"{path or 'nothing'} is no HDF5 file; data.format='h5' needs one in data.train_path (and data.val_path), "
            "made by scripts/utils/convert_imgfolder_to_h5.py"
        )


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
