"""The row of a run's data set with what only a look at the data can tell: classes, label tree, how files are read.

`resolve_spec` is the one place for it; whoever needs the levels or the classes of `cfg.data` asks it. No torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.data.catalogue.registry import DatasetSpec, get_spec, with_tree
from solo.data.labels.tree_files import read_tree
from solo.data.labels.trees import folder_classes, from_columns, from_paths
from solo.data.storage import hub
from solo.data.storage.folders import (
    TRAINING,
    VALIDATION,
    Problems,
    class_folders,
    existing_folder,
    image_folders,
)
from solo.data.storage.hub import is_here as is_here
from solo.data.storage.shards import label_columns, label_table, read_shards
from solo.data.storage.tables import read_table, table_columns
from solo.errors import UserError
from solo.taxonomy import Taxonomy

Levels = str | tuple[str, ...] | None


def resolve_spec(data: Mapping[str, Any], fetch: bool = True) -> DatasetSpec:
    """What a run knows of its data set.

    For own images (`data.dataset=custom`) the classes and their tree come from `data.train_path`: from folders (all
    images below sub-folders of the class folders: every image folder is a class, and the folders above are its
    levels), or from the label columns of a table. `data.taxonomy` is a file with the tree of the class folders.

    Args:
        data: the section `data` of a config, a dict or an OmegaConf node; keys that are missing count as null.
        fetch: whether a data set of the Hugging Face hub may be loaded; else its classes stay unknown.

    Raises:
        UserError: an unknown data set, or data that aren't there or contradict themselves.
    """
    spec = get_spec(data["dataset"])
    if data.get("channels") not in (None, 1, 3):
        spec = dataclasses.replace(spec, channels=int(data["channels"]))
    if spec.layout and (data.get("format") or "image_folder") == "image_folder":
        spec = with_tree(spec, data.get("train_path"))
    skip = data.get("on_error") == "skip"
    if skip:
        spec = dataclasses.replace(spec, on_error="skip")
    path, taxonomy, form = data.get("train_path"), data.get("taxonomy"), data.get("format") or "image_folder"
    if form == "table":
        return _of_table(_custom(spec, form), path, data)
    if form == "webdataset":
        return _of_shards(_custom(spec, form), path, data)
    if form == "hf":
        return _of_hub(_custom(spec, form), path, data, fetch)
    if form == "timm":
        return dataclasses.replace(
            _custom(spec, form), source="solo.data.sources.own_images:timm_reader", folders=False
        )
    if not spec.folders or form != "image_folder" or data.get("no_labels"):
        return _without_tree(spec, taxonomy)
    if spec.num_classes is not None and not taxonomy:
        return spec
    if data.get("num_classes") is not None and not (path and Path(path).expanduser().is_dir()):
        return spec  # a config that is only looked at, or own loaders
    folder = existing_folder(path)
    levels = data.get("levels")
    key = levels if levels is None or isinstance(levels, str) else tuple(levels)
    tree, nested = _folder_tree(str(folder), key, taxonomy, skip, os.stat(folder).st_mtime_ns)
    source = "solo.data.sources.own_images:nested_folder" if nested else "solo.data.sources.own_images:class_folder"
    return dataclasses.replace(spec, taxonomy=tree, num_classes=tree.num_classes, source=source)


def unseen_classes(
    spec: DatasetSpec, num_classes: int, wanted: int | Sequence[str] | None, seed: int
) -> dict[int, str]:
    """The classes that `data.unseen_classes` leaves out, by index; names where the label tree has some.

    Args:
        spec: from `resolve_spec`.
        num_classes: of the run.
        wanted: names or indices (a text of digits is an index unless a class has that name), or how many to draw.
        seed: of the draw.

    Raises:
        UserError: a class that isn't there, or none would be left.
    """
    names = spec.taxonomy.class_names if spec.taxonomy else tuple(str(leaf) for leaf in range(num_classes))
    if isinstance(wanted, int):
        if wanted >= len(names):
            raise UserError(f"data.unseen_classes={wanted} leaves none of {len(names)} classes to learn from; lower it")
        found = random.Random(seed).sample(range(len(names)), wanted)
    else:
        found = [_class_index(names, str(name)) for name in wanted or ()]
    if len(set(found)) == len(names):
        raise UserError(f"data.unseen_classes names all {len(names)} classes; leave some to learn from")
    return {leaf: names[leaf] for leaf in sorted(set(found))}


def _class_index(names: Sequence[str], name: str) -> int:
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise UserError(
        f"data.unseen_classes: {name!r} is no class; {hint}give names ({shown}) or indices 0 to {len(names) - 1}"
    )


def _custom(spec: DatasetSpec, form: str) -> DatasetSpec:
    if spec.name != "custom":
        raise UserError(f"data.format={form} is for own images; set data.dataset=custom, not {spec.name}")
    return spec


def _without_tree(spec: DatasetSpec, taxonomy: str | None) -> DatasetSpec:
    if taxonomy:
        raise UserError(
            f"data.taxonomy={taxonomy} needs class folders, and data.dataset={spec.name} is not read from any here"
        )
    return spec


@functools.lru_cache(maxsize=16)
def _folder_tree(root: str, levels: Levels, taxonomy: str | None, skip: bool, changed_ns: int) -> tuple[Taxonomy, bool]:
    """The tree of a folder, and whether its classes are nested folders; asked several times in a run."""
    names = levels if isinstance(levels, tuple) else None
    classes_found = class_folders(root)
    train = next((name for name in classes_found if name in TRAINING), None)
    if train and len(classes_found) > 1 and all(name in (*TRAINING, *VALIDATION) for name in classes_found):
        raise UserError(f"{root} holds the splits {', '.join(classes_found)}, not classes; give {root}/{train}")
    if taxonomy:
        return read_tree(taxonomy, class_folders(root), names), False
    if levels != "flat":
        folders = []
        for parts, _ in image_folders(root, Problems(skip)):
            if len(parts) == 1 and levels is None:
                break  # images directly in a class folder: one level, whatever lies deeper
            folders.append(parts)
        else:
            classes = folder_classes(parts for parts in folders if parts)
            if classes:
                tree = from_paths(classes, names)
                return tree, tree.num_levels > 1
    if not classes_found:
        raise UserError(f"{root} holds no folder; expected one folder per class with images inside")
    return Taxonomy.flat(classes_found), False


def _of_table(spec: DatasetSpec, path: str | None, data: Mapping[str, Any]) -> DatasetSpec:
    if not path:
        raise UserError("data.train_path is not set; give the table with the paths and labels of the images")
    file = Path(path).expanduser()
    table = read_table(file)
    path_column, columns = table_columns(table, file, data.get("path_column"), data.get("label_columns"))
    spec = dataclasses.replace(
        spec, source="solo.data.sources.own_images:table", folders=False, path_column=path_column
    )
    return _with_columns(spec, table, [] if data.get("no_labels") else columns, str(file))


def _of_shards(spec: DatasetSpec, path: str | None, data: Mapping[str, Any]) -> DatasetSpec:
    if not path:
        raise UserError("data.train_path is not set; give a tar file, a folder of them, or name-{000..099}.tar")
    spec = dataclasses.replace(spec, source="solo.data.sources.own_images:webdataset", folders=False)
    samples = list(read_shards(path).values())
    if data.get("no_labels"):
        return dataclasses.replace(spec, num_classes=1)
    table = label_table(samples)
    return _with_columns(spec, table, label_columns(table, path, data.get("label_columns")), path)


def _of_hub(spec: DatasetSpec, path: str | None, data: Mapping[str, Any], fetch: bool) -> DatasetSpec:
    if not path:
        raise UserError("data.train_path is not set; give the name of a data set on the hub, or a folder")
    wanted = data.get("path_column")
    spec = dataclasses.replace(spec, source="solo.data.sources.own_images:hub", folders=False, path_column=wanted)
    if not fetch and not hub.is_here(path):
        return spec
    found = hub.read_hub(path)
    hub.image_column(found, path, wanted)
    columns = [] if data.get("no_labels") else hub.label_columns(found, path, data.get("label_columns"))
    return _with_columns(spec, hub.label_table(found, columns), columns, path)


def _with_columns(
    spec: DatasetSpec, table: Mapping[str, Sequence[str]], columns: Sequence[str], where: str
) -> DatasetSpec:
    """The tree that label columns, coarse first, describe; without any, one class of everything."""
    if not columns:
        return dataclasses.replace(spec, num_classes=1)
    try:
        tree, _ = from_columns(list(zip(*(table[column] for column in columns), strict=True)), columns)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return dataclasses.replace(spec, taxonomy=tree, num_classes=tree.num_classes)
