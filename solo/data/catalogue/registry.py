"""The data sets by name, and a first look at their folders.

Imports no torch, so that configurations can be checked and described in no time. The rows are
in `solo.data.catalogue.rows`.
"""

import dataclasses
import itertools
import os
from pathlib import Path

from solo import plugin
from solo.data.catalogue.rows import ALIASES, ROWS
from solo.data.catalogue.rows import DatasetSpec as DatasetSpec
from solo.data.layouts.layout import Layout, find_layout
from solo.data.storage.containers import is_h5, read_index
from solo.data.storage.folders import (
    DEFAULT_ROOT,
    TRAINING,
    VALIDATION,
    class_folders,
    existing_folder,
    is_image_name,
    of_split,
)
from solo.errors import UserError
from solo.suggest import did_you_mean

IMAGENET100 = Path(__file__).parent / "dataset_subset" / "imagenet100_classes.txt"

DATASETS: dict[str, DatasetSpec] = {row.name: row for row in ROWS}
DATASETS.update({alias: DATASETS[name] for alias, name in ALIASES.items()})


def get_spec(name: str | DatasetSpec) -> DatasetSpec:
    """The row of `name`, or a `UserError` that names the closest ones; a row is returned as it is."""
    if isinstance(name, DatasetSpec):
        return name
    if plugin.is_path(name) and name not in DATASETS:
        found = plugin.load(name, "data.dataset")
        if callable(found) and not isinstance(found, type):
            found = found()
        if not isinstance(found, DatasetSpec):
            what = "give a DatasetSpec of solo.data.catalogue.rows, or a function that returns one"
            raise UserError(f"data.dataset={name} is no data set; {what}")
        DATASETS[name] = dataclasses.replace(found, name=name)
    if name in DATASETS:
        return DATASETS[name]
    hint = did_you_mean(str(name), DATASETS)
    raise UserError(f"data.dataset={name!r} is unknown; {hint}choose one of {', '.join(sorted(DATASETS))}")


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
    """The data set's own number of classes, else that of the sub-folders (HDF5: groups) of an existing `train_path`."""
    if spec.num_classes is not None:
        return spec.num_classes
    if train_path and is_h5(train_path):
        return len(choose_classes(spec.name, list(read_index(Path(train_path)))))
    return max(1, len(class_folders(of_split(existing_folder(train_path), train=True))))


def check_path(spec: DatasetSpec, path: str | None, no_labels: bool = False, data_format: str = "image_folder") -> None:
    """Look at a data folder or HDF5 file without reading an image, so that a wrong path fails at once.

    Data sets which can be fetched accept a folder that isn't there yet, and none at all. Raises a `UserError` if the
    folder is missing, empty, or has no class folders (no files, with `no_labels`); if an HDF5 file is given without
    `data_format="h5"`, or anything else with it; if other images lie where a data set would be fetched into.
    """
    if data_format == "h5":
        if not spec.folders or no_labels:
            what = "unlabelled images (data.no_labels=True)" if no_labels else spec.name
            stored = ", ".join(name for name, row in DATASETS.items() if row.folders)
            raise UserError(f"data.format='h5' reads {stored}, not {what}; set data.format=image_folder")
        if not path or not is_h5(Path(path).expanduser()):
            problem = f"{path or 'nothing'} is no HDF5 file; data.format='h5' needs one in data.train_path"
            raise UserError(f"{problem} (and data.val_path), made by scripts/utils/convert_imgfolder_to_h5.py")
        return
    if not spec.folders:
        if path and spec.downloads and spec.layout is None:
            _check_target(spec, Path(path).expanduser())
        return
    folder = of_split(existing_folder(path), train=True)
    with os.scandir(folder) as entries:
        has_files = any(os.path.isfile(entry.path) and not entry.name.startswith(".") for entry in entries)
    if (folder / "index.json").is_file() and not class_folders(folder):
        text = "looks like shards of LitData or MosaicML, which are not read; write WebDataset's tar files"
        raise UserError(f"{folder} {text} and set data.format=webdataset")
    if no_labels and not has_files:
        raise UserError(f"{folder} holds no files; data.no_labels=True expects the images directly in that folder")
    if not no_labels and not class_folders(folder):
        found = "only files" if has_files else "nothing"
        raise UserError(
            f"{folder} holds {found}; expected one folder per class with images inside. "
            "Unlabelled images in one flat folder are for pretrain, evaluate and analyze: "
            "data.dataset=custom data.no_labels=True"
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
            what = f"{place} holds {found} and no {spec.name}; for these images use data.dataset=custom"
            raise UserError(f"{what}, for {spec.name} the folder that holds it, or will hold it")


def _has_images(folder: Path) -> bool:
    """Whether most of what lies there are images: a single picture may lie beside any data."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in itertools.islice(entries, 100)]
    # Some data sets are stored as .npy.
    return 2 * sum(is_image_name(name) and not name.endswith(".npy") for name in names) > len(names)


def is_there(spec: DatasetSpec, path: str | None, download: bool) -> bool:
    """Whether a data set in its authors' layout lies in a folder; a `UserError` if not, and it can't be fetched."""
    layout, folder = layout_of(spec), _place(path)
    if layout.tree(folder) is not None or layout.tree(folder, train=False) is not None:
        return True
    if not (download and layout.torchvision):
        raise UserError(layout.how_to(folder))
    return False


def obtain(spec: DatasetSpec, path: str | None, download: bool) -> None:
    """Fetch a data set in its authors' layout where it isn't there: classes and label tree come from its files."""
    if not is_there(spec, path, download):
        layout_of(spec).fetch(_place(path))


def validation_path(spec: DatasetSpec, train_path: str | None) -> str | None:
    """Where the validation images are if only `train_path` is given.

    There, in layouts that keep both together, and where it is the folder above `train` and `val`; for own images a
    folder `val`, `validation` or `test` beside `train`, if it holds the same class folders.
    """
    if not train_path:
        return None
    train = Path(train_path).expanduser()
    if spec.folders and (val := of_split(train, train=False)) != train:
        return str(val)
    if spec.layout is not None:
        return train_path if layout_of(spec).holds_both(train) else None
    if spec.name == "custom" and train.name in TRAINING and train.is_dir():
        for folder in map(train.with_name, VALIDATION):
            if folder.is_dir() and class_folders(folder) == class_folders(train) != []:
                return str(folder)
    return None


def _place(path: str | os.PathLike[str] | None) -> Path:
    return Path(path).expanduser() if path else DEFAULT_ROOT


def layout_of(spec: DatasetSpec) -> Layout:
    """The layout that a row of the registry names."""
    assert spec.layout is not None
    return find_layout(spec.layout)


def with_tree(spec: DatasetSpec, path: str | os.PathLike[str] | None) -> DatasetSpec:
    """The row with the tree and number of classes of what lies in `path`; unchanged if nothing does."""
    if spec.layout is None:
        return spec
    tree = layout_of(spec).tree(_place(path))
    return spec if tree is None else dataclasses.replace(spec, taxonomy=tree, num_classes=tree.num_classes)


def query_images(spec: DatasetSpec, path: str | None) -> frozenset[str] | None:
    """Files of the validation images that are queries, the others being the gallery; None without such a split."""
    layout = layout_of(spec)
    root = layout.root(_place(path))
    return frozenset(map(str, layout.queries(root))) if layout.queries and root else None
