"""The data sets by name, and what a look at the data can tell: classes, label tree, how files are read. No torch."""

import dataclasses
import functools
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo import plugin
from solo.data.catalogue.rows import ALIASES, ROWS
from solo.data.catalogue.rows import DatasetSpec as DatasetSpec
from solo.data.catalogue.rows import layout_of as layout_of
from solo.data.labels.trees import folder_classes, from_columns, from_paths, read_tree
from solo.data.storage import facts
from solo.data.storage.containers import is_h5, read_index
from solo.data.storage.containers import is_here as is_here
from solo.data.storage.listing import WITH_COLUMNS, Listing, Wanted, list_images
from solo.errors import UserError, did_you_mean, some
from solo.taxonomy import Taxonomy

IMAGENET100 = Path(__file__).parent / "dataset_subset" / "imagenet100_classes.txt"
_OWN = "solo.data.sources.images:own"

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
    """All names, or those of ImageNet-100 (https://arxiv.org/abs/1906.05849), if it is meant and has some of them."""
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
    return max(1, len(facts.class_folders(facts.training_folder(train_path))))


def check_path(spec: DatasetSpec, path: str | None, no_labels: bool = False, data_format: str = "image_folder") -> None:
    """Look at a data folder or HDF5 file without reading an image, so that a wrong path is refused at once.

    Data sets which can be fetched accept a folder that isn't there yet, and none at all, but not one with other images.
    """
    if data_format == "h5":
        if not spec.folders or no_labels:
            what = "unlabelled images (data.no_labels=True)" if no_labels else spec.name
            stored = ", ".join(name for name, row in DATASETS.items() if row.folders)
            raise UserError(f"data.format='h5' reads {stored}, not {what}; set data.format=image_folder")
        if not path or not is_h5(Path(path).expanduser()):
            problem = f"{path or 'nothing'} is no HDF5 file; data.format='h5' needs one in data.train_path"
            raise UserError(f"{problem} (and data.val_path), made by scripts/utils/convert_imgfolder_to_h5.py")
    elif spec.folders:
        folder = facts.training_folder(path)
        classes = facts.class_folders(folder)
        has_files = any(os.path.isfile(folder / name) and not name.startswith(".") for name in os.listdir(folder))
        if (folder / "index.json").is_file() and not classes:
            text = "looks like shards of LitData or MosaicML, which are not read; write WebDataset's tar files"
            raise UserError(f"{folder} {text} and set data.format=webdataset")
        if no_labels and not has_files:
            raise UserError(f"{folder} holds no files; data.no_labels=True expects the images directly in that folder")
        if not no_labels and not classes:
            what = f"{folder} holds {'only files' if has_files else 'nothing'}; expected one folder per class with"
            advice = "Unlabelled images in one flat folder are for pretrain, evaluate and analyze"
            raise UserError(f"{what} images inside. {advice}: data.dataset=custom data.no_labels=True")
    elif path and spec.downloads and spec.layout is None:
        _check_target(spec, Path(path).expanduser())


def _check_target(spec: DatasetSpec, folder: Path) -> None:
    """A wrong path would otherwise get a copy of the data set, and the run another one than what lies there."""

    def has_images(place: Path) -> bool:
        """Whether most of what lies there are images: a picture, or a data set in .npy, may lie beside any data."""
        names = os.listdir(place)[:100]
        return 2 * sum(facts.is_image_name(name) and not name.endswith(".npy") for name in names) > len(names)

    if folder.is_file() and spec.name != "cifar10c":
        raise UserError(f"{folder} is a file; {spec.name} needs the folder that holds its files, or will hold them")
    if folder.is_dir() and spec.taxonomy and facts.class_folders(folder) == list(spec.taxonomy.class_names):
        return
    for place in filter(Path.is_dir, (folder, folder / facts.TRAINING[0])):
        names = [name for name in facts.class_folders(place) if has_images(place / name)]
        if has_images(place) or len(names) > 1:
            found = f"class folders ({names[0]}, {names[1]}, ..)" if len(names) > 1 else "images"
            what = f"{place} holds {found} and no {spec.name}; for these images use data.dataset=custom"
            raise UserError(f"{what}, for {spec.name} the folder that holds it, or will hold it")


def validation_path(spec: DatasetSpec, train_path: str | None) -> str | None:
    """Where the validation images are if only `train_path` is given: there, below it, or in a folder beside it."""
    if not train_path:
        return None
    train = Path(train_path).expanduser()
    if spec.folders and (val := facts.of_split(train, train=False)) != train:
        return str(val)
    if spec.layout is not None:
        both = layout_of(spec).root(train) or layout_of(spec).class_folder(train, train=False) not in (None, train)
        return train_path if both else None
    if spec.name == "custom" and train.name in facts.TRAINING and train.is_dir():
        for folder in map(train.with_name, facts.VALIDATION):
            if folder.is_dir() and facts.class_folders(folder) == facts.class_folders(train) != []:
                return str(folder)
    return None


def _place(path: str | os.PathLike[str] | None) -> Path:
    return Path(path).expanduser() if path else facts.DEFAULT_ROOT


def is_there(spec: DatasetSpec, path: str | None, download: bool) -> bool:
    """Whether it lies in a folder; a `UserError` if not, and it can't be fetched."""
    layout, folder = layout_of(spec), _place(path)
    there = any(layout.tree(folder, train) is not None for train in (True, False))
    if not there and not (download and layout.torchvision):
        raise UserError(layout.how_to(folder))
    return there


def obtain(spec: DatasetSpec, path: str | None, download: bool) -> None:
    """Fetch it where it isn't there: classes and label tree come from its files."""
    if not is_there(spec, path, download):
        layout_of(spec).fetch(_place(path))


def with_tree(spec: DatasetSpec, path: str | os.PathLike[str] | None) -> DatasetSpec:
    """The row with the tree and number of classes of what lies in `path`; unchanged if nothing does."""
    tree = layout_of(spec).tree(_place(path)) if spec.layout else None
    return spec if tree is None else dataclasses.replace(spec, taxonomy=tree, num_classes=tree.num_classes)


def query_images(spec: DatasetSpec, path: str | None) -> frozenset[str] | None:
    """Files of the validation images that are queries, the others being the gallery; None without such a split."""
    layout = layout_of(spec)
    root = layout.root(_place(path))
    return frozenset(map(str, layout.queries(root))) if layout.queries and root else None


def resolve_spec(data: Mapping[str, Any], fetch: bool = True) -> DatasetSpec:
    """What a run knows of its data set, by the section `data` of a config; keys that are missing count as null.

    For own images (`data.dataset=custom`) the classes and their tree come from `data.train_path`: from folders (every
    folder with images is a class, those above are its levels), label columns, or the file `data.taxonomy`, and black
    and white from a sample. Without `fetch` no data set of the Hugging Face hub is loaded, and its classes stay
    unknown.
    """
    spec, form = get_spec(data["dataset"]), data.get("format") or "image_folder"
    path, taxonomy, no_labels = (data.get(key) for key in ("train_path", "taxonomy", "no_labels"))
    there = bool(path) and Path(str(path)).expanduser().is_dir()
    given = {key: data[key] for key in ("on_error", "unknown_classes", "small_stem") if data.get(key) is not None}
    given["channels"] = spec.channels if data.get("channels") in (None, 1, 3) else int(data["channels"])
    given["reading"] = facts.ReadingKeys.of({**data, "channels": given["channels"]})
    spec = with_tree(spec, path) if form == "image_folder" else spec
    spec = dataclasses.replace(spec, holdout=(float(data.get("holdout") or 0), path), **given)
    if form in WITH_COLUMNS:
        if spec.name != "custom":
            raise UserError(f"data.format={form} is for own images; set data.dataset=custom, not {spec.name}")
        spec = dataclasses.replace(spec, source=_OWN, format=form, folders=False, path_column=data.get("path_column"))
        if form == "hf" and path and not fetch and not is_here(path):
            return spec
        columns = [] if no_labels else data.get("label_columns")
        found = list_images(form, path, Wanted(True, spec.path_column, columns, spec.on_error == "skip"))
        try:
            tree = from_columns(found.rows, found.columns)[0] if found.columns else None
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        count = tree.num_classes if tree else 1
        spec = dataclasses.replace(spec, path_column=found.path_column, taxonomy=tree, num_classes=count)
        return _sampled(spec, found.images, _repeated(found) if form == "table" else ())
    if form == "h5" and path and is_h5(Path(path).expanduser()):
        return _sampled(spec, list_images(form, path).images)
    if no_labels and spec.folders and there:
        from solo.data.storage.reading import flat_images  # and with it Pillow

        folder, problems = facts.training_folder(path), facts.Problems()
        return _sampled(spec, [str(folder / name) for name in flat_images(folder, problems)], problems.notes())
    if not spec.folders or form != "image_folder" or no_labels:
        if taxonomy:
            raise UserError(f"data.taxonomy={taxonomy} needs class folders; data.dataset={spec.name} has none here")
        return spec
    if (spec.num_classes is not None and not taxonomy) or (data.get("num_classes") is not None and not there):
        return spec  # these are known, or a config is only looked at, or loaders are the user's own
    folder, levels = facts.training_folder(path), data.get("levels")
    levels = levels if levels is None or isinstance(levels, str) else tuple(levels)
    changed = os.stat(folder).st_mtime_ns
    tree, files, notes = _look_at_folder(str(folder), levels, taxonomy, spec.on_error == "skip", changed)
    given = {"taxonomy": tree, "num_classes": tree.num_classes, "nested": tree.num_levels > 1 and not taxonomy}
    spec = dataclasses.replace(spec, source=_OWN, format=form, **given)
    split = [] if folder == Path(str(path)).expanduser() else [f"{path} holds splits; {folder.name} is trained on"]
    return _sampled(spec, files, [*split, *notes])


def _sampled(spec: DatasetSpec, sources: Sequence[str | facts.Stored], notes: Sequence[str] = ()) -> DatasetSpec:
    """The row with what a sample of own images says."""
    from solo.data.storage.reading import look_at  # and with it Pillow, which a look at a config has no use for

    chosen = facts.spread(sources)
    side, reading, said = look_at(tuple(chosen), spec.reading, "\n".join(map(facts.identity, chosen)))
    return dataclasses.replace(spec, side=side, reading=reading, notes=(*notes, *said))


@functools.lru_cache(maxsize=16)
def _look_at_folder(
    root: str, levels: str | tuple[str, ...] | None, taxonomy: str | None, skip: bool, changed_ns: int
) -> tuple[Taxonomy, list[str], list[str]]:
    """Tree of a folder of classes, some of its files, and what to say."""
    names = levels if isinstance(levels, tuple) else None
    found = list_images("image_folder", root, Wanted(skip=skip))
    folders = [parts for parts in dict.fromkeys(found.rows) if parts]
    files = facts.spread(found.images)
    notes = found.problems.notes()
    if taxonomy:
        return read_tree(taxonomy, facts.class_folders(root), names), files, notes
    if levels is None:
        # A folder with images and with image folders may be a class with more of its images, or a node with children.
        deeper = {parts[0] for parts in folders if len(parts) > 1}
        if both := sorted(parts[0] for parts in folders if len(parts) == 1 and parts[0] in deeper):
            levels = "flat"
            what = f"{len(both):,} class folders hold images beside folders with images ({', '.join(both[:3])})"
            more = "only the first folders are classes; data.levels=folders makes a label tree of all folders"
            notes.append(f"{what}, so that {more}")
    if levels != "flat" and (classes := folder_classes(folders)):
        return from_paths(classes, names), files, notes
    if not facts.class_folders(root):
        raise UserError(f"{root} holds no folder; expected one folder per class with images inside")
    return Taxonomy.flat(facts.class_folders(root)), files, notes


def _repeated(found: Listing) -> list[str]:
    """A line on files that stand in several rows, most of all with different labels."""
    first, differing = dict[str, int](), dict[str, tuple[int, int]]()
    for number, file in enumerate(found.images):
        if found.rows[first.setdefault(file, number)] != found.rows[number]:
            differing.setdefault(file, (first[file], number))
    if differing:
        file, rows = next(iter(differing.items()))
        shown = " and ".join(f"{' > '.join(found.rows[number])} in row {number + 1}" for number in rows)
        what = f"{len(differing):,} files stand in several rows with different labels ({file}: {shown})"
        return [f"{what}, and each row is an image of its own; several labels of one image can't be learned"]
    again = len(found.images) - len(first)
    return [f"rows that repeat the file and the labels of an earlier one, and count again: {again:,}"] if again else []


def unseen_classes(
    spec: DatasetSpec, num_classes: int, wanted: int | Sequence[str] | None, seed: int
) -> dict[int, str]:
    """Index and name of the classes that are left out: `wanted` are names, indices in digits, or how many to draw."""
    names = spec.taxonomy.class_names if spec.taxonomy else tuple(map(str, range(num_classes)))
    if isinstance(wanted, int):
        if wanted >= len(names):
            raise UserError(f"data.unseen_classes={wanted} leaves none of {len(names)} classes to learn from; lower it")
        return {leaf: names[leaf] for leaf in sorted(random.Random(seed).sample(range(len(names)), wanted))}
    found = set()
    for name in map(str, wanted or ()):
        leaf = names.index(name) if name in names else int(name) if name.isdigit() else len(names)
        if leaf >= len(names):
            give = f"{did_you_mean(name, names)}give names ({some(names, 10)}) or indices 0 to {len(names) - 1}"
            raise UserError(f"data.unseen_classes: {name!r} is no class; {give}")
        found.add(leaf)
    if len(found) == len(names):
        raise UserError(f"data.unseen_classes names all {len(names)} classes; leave some to learn from")
    return {leaf: names[leaf] for leaf in sorted(found)}
