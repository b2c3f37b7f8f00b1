"""The row of a run's data set with what only a look at the data can tell: classes, label tree, how files are read.

`resolve_spec` is the one place for it; whoever needs the levels or the classes of `cfg.data` asks it. No torch.
"""

import dataclasses
import functools
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.data.catalogue.registry import DatasetSpec, get_spec, with_tree
from solo.data.labels.trees import folder_classes, from_columns, from_paths, read_tree
from solo.data.storage.containers import h5_images, is_h5
from solo.data.storage.containers import is_here as is_here
from solo.data.storage.facts import ReadingKeys, Sample, Stored, identity, spread
from solo.data.storage.folders import Problems, class_folders, existing_folder, of_split
from solo.data.storage.listing import WITH_COLUMNS, Listing, Wanted, list_images
from solo.errors import UserError
from solo.suggest import did_you_mean
from solo.taxonomy import Taxonomy

Levels = str | tuple[str, ...] | None
_OWN = "solo.data.sources.load:own"


def resolve_spec(data: Mapping[str, Any], fetch: bool = True) -> DatasetSpec:
    """What a run knows of its data set, by the section `data` of a config; keys that are missing count as null.

    For own images (`data.dataset=custom`) the classes and their tree come from `data.train_path`: from folders (all
    images below sub-folders of the class folders: every image folder is a class, and the folders above are its levels),
    or from the label columns of a table. `data.taxonomy` is a file with the tree of the class folders. A look at a
    sample of the images says where black and white are in those of more than 8 bits. Without `fetch` no data set of the
    Hugging Face hub is loaded, and its classes stay unknown. Raises a `UserError` for an unknown data set, or data that
    aren't there or contradict themselves.
    """
    spec, form = get_spec(data["dataset"]), data.get("format") or "image_folder"
    if data.get("channels") not in (None, 1, 3):
        spec = dataclasses.replace(spec, channels=int(data["channels"]))
    if spec.layout and form == "image_folder":
        spec = with_tree(spec, data.get("train_path"))
    written = {key: data.get(key) for key in ("on_error", "unknown_classes", "small_stem")}
    given: dict[str, Any] = {key: value for key, value in written.items() if value is not None}
    given["holdout"] = (float(data.get("holdout") or 0), data.get("train_path"))
    spec = dataclasses.replace(spec, reading=ReadingKeys.of({**data, "channels": spec.channels}), **given)
    path, taxonomy = data.get("train_path"), data.get("taxonomy")
    if form in WITH_COLUMNS:
        if spec.name != "custom":
            raise UserError(f"data.format={form} is for own images; set data.dataset=custom, not {spec.name}")
        spec = dataclasses.replace(spec, source=_OWN, format=form, folders=False, path_column=data.get("path_column"))
        here = fetch or form != "hf" or not path or is_here(path)
        return _of_columns(spec, path, [] if data.get("no_labels") else data.get("label_columns")) if here else spec
    if form == "h5" and path and is_h5(Path(path).expanduser()):
        return _sampled(spec, h5_images(Path(path)))
    if data.get("no_labels") and spec.folders and path and Path(path).expanduser().is_dir():
        folder = of_split(existing_folder(path), train=True)
        from solo.data.storage.reading import flat_images  # and with it Pillow

        problems = Problems()
        return _sampled(spec, [str(folder / name) for name in flat_images(folder, problems)], problems.notes())
    if not spec.folders or form != "image_folder" or data.get("no_labels"):
        if taxonomy:
            what = f"data.taxonomy={taxonomy} needs class folders"
            raise UserError(f"{what}, and data.dataset={spec.name} is not read from any here")
        return spec
    if spec.num_classes is not None and not taxonomy:
        return spec
    if data.get("num_classes") is not None and not (path and Path(path).expanduser().is_dir()):
        return spec  # a config that is only looked at, or own loaders
    folder = of_split(existing_folder(path), train=True)
    levels = data.get("levels")
    key = levels if levels is None or isinstance(levels, str) else tuple(levels)
    changed = os.stat(folder).st_mtime_ns
    tree, nested, files, notes = _look_at_folder(str(folder), key, taxonomy, spec.on_error == "skip", changed)
    known: dict[str, Any] = {"taxonomy": tree, "num_classes": tree.num_classes, "nested": nested}
    spec = dataclasses.replace(spec, source=_OWN, format=form, **known)
    split = [] if str(folder) == str(existing_folder(path)) else [f"{path} holds splits; {folder.name} is trained on"]
    return _sampled(spec, files, [*split, *notes])


def _sampled(spec: DatasetSpec, sources: Sequence[str | Stored], notes: Sequence[str] = ()) -> DatasetSpec:
    """The row with what a sample of own images says."""
    chosen = spread(sources)
    sample = _looked_at(tuple(chosen), spec.reading, "\n".join(map(identity, chosen)))
    if spec.reading.range is None and sample.range is not None:
        spec = dataclasses.replace(spec, reading=dataclasses.replace(spec.reading, range=sample.range))
    return dataclasses.replace(spec, sample=sample, notes=(*notes, *sample.notes(spec.reading)))


@functools.lru_cache(maxsize=16)
def _looked_at(sources: tuple[str | Stored, ...], reading: ReadingKeys, state: str) -> Sample:
    from solo.data.storage.reading import look_at  # and with it Pillow, which a look at a config has no use for

    return look_at(sources, reading)


def unseen_classes(
    spec: DatasetSpec, num_classes: int, wanted: int | Sequence[str] | None, seed: int
) -> dict[int, str]:
    """The classes that `data.unseen_classes` leaves out, by index; names where the label tree has some.

    `wanted` are names or indices (a text of digits is an index unless a class has that name), or how many to draw.
    Raises a `UserError` for a class that isn't there, or where none would be left.
    """
    names = spec.taxonomy.class_names if spec.taxonomy else tuple(str(leaf) for leaf in range(num_classes))
    if isinstance(wanted, int):
        if wanted >= len(names):
            raise UserError(f"data.unseen_classes={wanted} leaves none of {len(names)} classes to learn from; lower it")
        found = random.Random(seed).sample(range(len(names)), wanted)
    else:
        found = []
        for name in map(str, wanted or ()):
            if name in names:
                found.append(names.index(name))
            elif name.isdigit() and int(name) < len(names):
                found.append(int(name))
            else:
                shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
                give = f"{did_you_mean(name, names)}give names ({shown}) or indices 0 to {len(names) - 1}"
                raise UserError(f"data.unseen_classes: {name!r} is no class; {give}")
    if len(set(found)) == len(names):
        raise UserError(f"data.unseen_classes names all {len(names)} classes; leave some to learn from")
    return {leaf: names[leaf] for leaf in sorted(set(found))}


@functools.lru_cache(maxsize=16)
def _look_at_folder(
    root: str, levels: Levels, taxonomy: str | None, skip: bool, changed_ns: int
) -> tuple[Taxonomy, bool, list[str], list[str]]:
    """Tree of a folder of classes, whether it is one of nested folders, some of its files, and what to say.

    One walk through all names, kept: a run asks several times.
    """
    names = levels if isinstance(levels, tuple) else None
    found = list_images("image_folder", root, Wanted(skip=skip))
    folders, files = [parts for parts in dict.fromkeys(found.rows) if parts], spread(found.images)
    notes = found.problems.notes()
    if taxonomy:
        return read_tree(taxonomy, class_folders(root), names), False, files, notes
    if levels is None:
        # A folder with images and with image folders may be a class with more of its images, or a node with children.
        direct, deeper = {parts[0] for parts in folders if len(parts) == 1}, {p[0] for p in folders if len(p) > 1}
        both = sorted(direct & deeper)
        if both:
            levels = "flat"
            notes.append(
                f"{len(both):,} class folders hold images beside folders with images ({', '.join(both[:3])}), so that "
                "only the first folders are classes; data.levels=folders makes a label tree of all folders"
            )
    if levels != "flat":
        classes = folder_classes(folders)
        if classes:
            tree = from_paths(classes, names)
            return tree, tree.num_levels > 1, files, notes
    classes_found = class_folders(root)
    if not classes_found:
        raise UserError(f"{root} holds no folder; expected one folder per class with images inside")
    return Taxonomy.flat(classes_found), False, files, notes


def _of_columns(spec: DatasetSpec, path: str | None, label_columns: Sequence[str] | None) -> DatasetSpec:
    """The tree that label columns, coarse first, describe; without any, one class of everything."""
    wanted = Wanted(True, spec.path_column, label_columns, spec.on_error == "skip")
    found = list_images(spec.format, path, wanted)
    spec = dataclasses.replace(spec, num_classes=1, path_column=found.path_column)
    if found.columns:
        try:
            tree, _ = from_columns(found.rows, found.columns)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        spec = dataclasses.replace(spec, taxonomy=tree, num_classes=tree.num_classes)
    return _sampled(spec, found.images, _repeated(found) if spec.format == "table" else ())


def _repeated(found: Listing) -> list[str]:
    """A line on files that stand in several rows, most of all with different labels."""
    seen: dict[str, int] = {}
    contradicting: dict[str, tuple[int, int]] = {}
    for number, (file, labels) in enumerate(zip(found.images, found.rows, strict=True)):
        first = seen.setdefault(file, number)
        if found.rows[first] != labels:
            contradicting.setdefault(file, (first, number))
    if not contradicting:
        again, what = len(found.images) - len(seen), "rows that repeat the file and the labels of an earlier one"
        return [f"{what}, and count again: {again:,}"] if again else []
    file, places = next(iter(contradicting.items()))
    shown = " and ".join(f"{' > '.join(found.rows[place])} in row {place + 1}" for place in places)
    return [
        f"{len(contradicting):,} files stand in several rows with different labels ({file}: {shown}), and each row is "
        "an image of its own; several labels of one image can't be learned"
    ]
