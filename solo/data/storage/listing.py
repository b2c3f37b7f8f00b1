"""What lies where a user's own images are: every image, and the words that say what it shows. No torch."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solo.data.storage import hub
from solo.data.storage.folders import Parts, Problems, image_folders
from solo.data.storage.h5_file import h5_images
from solo.data.storage.shards import label_table, read_shards
from solo.data.storage.tables import choose_labels, read_table, table_columns
from solo.errors import UserError


@dataclass(frozen=True)
class Listing:
    """Images in an order that doesn't change."""

    images: list[Any]  # paths, or images inside of larger files
    rows: list[Parts]  # of each image the cells of the label columns, coarse first, or the folders that it lies in
    columns: Parts | None = None  # names of these columns; None: folders say it
    path_column: str | None = None  # of a table or hub, the column with the images
    problems: Problems = field(default_factory=Problems)  # what can't be read, and what was left out


@dataclass(frozen=True)
class Wanted:
    """Which images and labels are asked for."""

    train: bool = True  # the training images of what has several splits, else the validation images
    path_column: str | None = None  # with the images; None: the one that has some
    label_columns: Sequence[str] | None = None  # coarse first; None: the only one that may be meant
    skip: bool = False  # whether what can't be read is left out


def list_images(form: str, path: str | Path | None, wanted: Wanted | None = None) -> Listing:
    """The images of `data.format=form`, at least one; a folder's stand in their own order of folders and names."""
    reader, what = READERS[form]
    if not path:
        raise UserError(f"data.train_path is not set; give {what}")
    return reader(Path(path), wanted or Wanted())


def _of_columns(
    images: Sequence[Any], table: Mapping[str, Sequence[str]], columns: Sequence[str], path_column: str | None = None
) -> Listing:
    rows: list[Parts] = list(zip(*(table[name] for name in columns), strict=True)) or [()] * len(images)
    return Listing(list(images), rows, tuple(columns), path_column)


def _folder(root: Path, wanted: Wanted) -> Listing:
    found = Listing([], [], problems=Problems(wanted.skip))
    for parts, names in image_folders(root, found.problems):
        found.images.extend(os.path.join(root, *parts, name) for name in names)
        found.rows.extend([parts] * len(names))
    return found


def _table(path: Path, wanted: Wanted) -> Listing:
    file = path.expanduser()
    table = read_table(file)
    images, columns = table_columns(table, file, wanted.path_column, wanted.label_columns)
    return _of_columns([str(file.parent / Path(name).expanduser()) for name in table[images]], table, columns, images)


def _shards(path: Path, wanted: Wanted) -> Listing:
    problems = Problems(wanted.skip)
    samples = list(read_shards(path, problems).values())
    table = label_table(samples) if wanted.label_columns != [] else {}
    likely = ["cls"] if "cls" in table else list(table)
    columns = choose_labels(list(table), wanted.label_columns, likely, path)
    found = _of_columns([sample.image for sample in samples], table, columns)
    found.problems.found.extend(problems.found)
    return found


def _hub(path: Path, wanted: Wanted) -> Listing:
    name = str(path)
    data = hub.read_hub(name, wanted.train)
    images = hub.image_column(data, name, wanted.path_column)
    columns = choose_labels(list(data.features), wanted.label_columns, hub.likely_labels(data), name)
    return _of_columns(hub.images(data, images, name), hub.label_table(data, columns), columns, images)


def _h5(path: Path, wanted: Wanted) -> Listing:
    images = h5_images(path)
    return Listing(list(images), [(image.part.partition("/")[0],) for image in images])


READERS: dict[str, tuple[Callable[[Path, Wanted], Listing], str]] = {
    "image_folder": (_folder, "the folder that holds the images"),
    "table": (_table, "the table with the paths and labels of the images"),
    "webdataset": (_shards, "a tar file, a folder of them, or name-{000..099}.tar"),
    "hf": (_hub, "the name of a data set on the hub, or a folder"),
    "h5": (_h5, "the HDF5 file"),
}
# What holds images and columns of labels.
WITH_COLUMNS = ("table", "webdataset", "hf")
