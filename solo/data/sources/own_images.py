"""Sources of a user's own images: folders, tables, and whatever timm's readers know.

They fill what `resolve_spec` says: labels are found by name in `spec.taxonomy`, for validation data as
for training data. Own code can hand any `torch.utils.data.Dataset` to the loaders instead; its items are
`(PIL image, int)`, views and index are added by wrappers:

    from solo.data.pretrain_dataloader import (
        build_transform_pipeline, dataset_with_index, prepare_dataloader, prepare_n_crop_transform)

    view = build_transform_pipeline("custom", cfg.augmentations[0])
    images = dataset_with_index(MyDataset)(..., transform=prepare_n_crop_transform([view], [2]))
    loader = prepare_dataloader(images, batch_size=256)
    trainer.fit(METHODS["simclr"](cfg), loader)  # cfg.data.num_classes says how many labels there are
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from solo.data.catalogue.registry import DatasetSpec
from solo.data.labels.trees import folder_labels, from_columns
from solo.data.sources.images import ImageFiles, LabelledImages
from solo.data.sources.request import Request
from solo.data.storage import hub as hf
from solo.data.storage.folders import Parts, Problems, image_folders
from solo.data.storage.shards import label_columns, label_table, read_shards
from solo.data.storage.stored import Stored
from solo.data.storage.tables import read_table, table_columns
from solo.errors import UserError, printable
from solo.taxonomy import UNKNOWN, Taxonomy

Labels = tuple[int, ...]
_LOG = logging.getLogger("solo")


class FileDataset(ImageFiles):
    """Image files with labels at every level of a tree.

    Args:
        files: paths of the images, or images inside of larger files.
        labels: for each file one int a level, coarse first, -1 for unknown; `None`: no labels.
        tree: whose classes these are; `None`: no labels.
        request: transforms; with a target transform, items have the `(levels,)` labels instead of the class.
        problems: what had to be left out, one line each.

    Attributes:
        targets: the classes; -1 is unknown.
    """

    def __init__(
        self,
        files: Sequence[Path | Stored],
        labels: Sequence[Labels] | None,
        tree: Taxonomy | None,
        request: Request,
        problems: Sequence[str] = (),
    ) -> None:
        classes = [tree.leaf_of(row) for row in labels] if tree and labels else [UNKNOWN] * len(files)
        super().__init__(files, classes, tree.class_names if tree else (), request.transform)
        self.labels = torch.tensor(labels) if labels and request.target_transform else None
        self.root = request.path
        self.problems = list(problems)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, leaf = super().__getitem__(index)
        return image, leaf if self.labels is None else self.labels[index]


def nested_folder(spec: DatasetSpec, request: Request) -> FileDataset:
    """Folders in folders: the deepest ones are classes, images of folders above them lack the finer labels."""
    assert spec.taxonomy is not None
    places = folder_labels(spec.taxonomy)

    def labels(parts: Parts) -> Labels | None:
        # A class folder may have folders of its own, which mean nothing.
        for end in range(len(parts), 0, -1):
            found = places.get(parts[:end])
            if found is not None:
                return found if end == len(parts) or spec.taxonomy.leaf_of(found) >= 0 else None  # type: ignore[union-attr]
        return None

    return _folder(spec, request, labels)


def class_folder(spec: DatasetSpec, request: Request) -> FileDataset:
    """One folder per class, images inside at any depth; the tree above the classes is the spec's."""
    tree = spec.taxonomy
    assert tree is not None
    places = {name: tree.path(leaf) for leaf, name in enumerate(tree.class_names)}
    return _folder(spec, request, lambda parts: places.get(parts[0]))


def _folder(spec: DatasetSpec, request: Request, labels_of: Callable[[Parts], Labels | None]) -> FileDataset:
    tree, root = spec.taxonomy, request.path
    assert tree is not None and root is not None
    problems = Problems(skip=spec.on_error == "skip")
    files: list[Path] = []
    labels: list[Labels] = []
    unknown: dict[str, int] = {}
    for parts, names in image_folders(root, problems):
        if not parts:  # images beside the class folders belong to none of them
            continue
        found = labels_of(parts)
        if found is None:
            unknown["/".join(parts)] = len(names)
            if spec.unknown_classes != "label":
                continue
            known = (labels_of(parts[:end]) for end in range(len(parts) - 1, 0, -1))
            found = next((labels for labels in known if labels), (UNKNOWN,) * tree.num_levels)
        files += [root.joinpath(*parts, name) for name in names]
        labels += [found] * len(names)
    if unknown:
        _settle_unknown(spec, str(root), unknown)
    if not files:
        raise UserError(f"{root} holds no images in its folders")
    data = FileDataset(files, labels, tree, request, problems.found)
    if request.split != "val":
        try:
            tree.check_counts([*map(data.targets.count, range(tree.num_classes))])
        except UserError as error:
            raise UserError(f"{root}: {error}") from error
    return data


def _settle_unknown(spec: DatasetSpec, where: str, unknown: Mapping[str, int]) -> None:
    """Refuse all classes that training lacks at once, or say what becomes of their images."""
    shown = printable(", ".join(sorted(unknown)[:50])) + (", ..." if len(unknown) > 50 else "")
    count = sum(unknown.values())
    what = f"{where}: {len(unknown):,} classes of {count:,} images are not among the training data's labels: {shown}"
    if spec.unknown_classes == "raise":
        hint = " (training folders that can't be read are none, too)" if spec.on_error == "skip" else ""
        raise UserError(
            f"{what}; take them out, or set data.unknown_classes=drop to leave them out, or label to keep the labels "
            f"that they share with the training data{hint}"
        )
    kept = "left out" if spec.unknown_classes == "drop" else "kept with the labels that they share"
    _LOG.warning("note: %s: %s (data.unknown_classes)", what, kept)


def table(spec: DatasetSpec, request: Request) -> FileDataset:
    """Paths, relative to the table's folder, and label columns."""
    file, tree = request.path, spec.taxonomy
    assert file is not None
    rows = read_table(file)
    path_column, columns = table_columns(rows, file, spec.path_column, list(tree.levels) if tree else [])
    files = [file.parent / Path(name).expanduser() for name in rows[path_column]]
    return _of_columns(spec, request, files, rows, columns)


def _of_columns(
    spec: DatasetSpec,
    request: Request,
    files: Sequence[Path | Stored],
    table: Mapping[str, Sequence[str]],
    columns: Sequence[str],
) -> FileDataset:
    """Images with the labels of their rows, by the tree of the training data."""
    tree = spec.taxonomy
    if tree is None:
        return FileDataset(files, None, None, request)
    rows = list(zip(*(table[name] for name in columns), strict=True))
    known = [set(names) for names in tree.names]
    unknown: Counter[str] = Counter()
    strange = set()
    for number, row in enumerate(rows):
        names = [name for name, level in zip(row, known, strict=True) if name and name not in level]
        if names:
            strange.add(number)
            unknown[names[-1]] += 1
    if unknown:
        _settle_unknown(spec, str(request.path), unknown)
    if spec.unknown_classes == "drop":
        files = [file for number, file in enumerate(files) if number not in strange]
        rows = [row for number, row in enumerate(rows) if number not in strange]
    rows = [tuple(name if name in level else "" for name, level in zip(row, known, strict=True)) for row in rows]
    try:
        labels = from_columns(rows, columns, tree)[1]
    except UserError as error:
        raise UserError(f"{request.path}: {error}") from error
    return FileDataset(files, labels, tree, request)


def webdataset(spec: DatasetSpec, request: Request) -> FileDataset:
    """Tar files of images with labels beside them, see `solo.data.storage.shards`."""
    assert request.path is not None
    problems: list[str] = []
    samples = list(read_shards(request.path, problems if spec.on_error == "skip" else None).values())
    table = label_table(samples) if spec.taxonomy else {}
    columns = label_columns(table, request.path, spec.taxonomy.levels) if spec.taxonomy else []
    files = [sample.image for sample in samples if sample.image]
    data = _of_columns(spec, request, files, table, columns)
    data.problems += problems
    return data


def hub(spec: DatasetSpec, request: Request) -> FileDataset:
    """A data set of Hugging Face, see `solo.data.storage.hub`."""
    path = str(request.path)
    data = hf.read_hub(path, train=request.split != "val")
    files = hf.images(data, hf.image_column(data, path, spec.path_column), path)
    columns = hf.label_columns(data, path, spec.taxonomy.levels) if spec.taxonomy else []
    return _of_columns(spec, request, files, hf.label_table(data, columns), columns)


class TimmDataset(LabelledImages):
    """Images of one of timm's readers that give any item at any time: tar files, folders, Hugging Face data sets."""

    def __init__(self, reader: Any, request: Request) -> None:
        super().__init__(_targets(reader), request.transform, request.target_transform)
        self.reader = reader

    def read(self, index: int) -> Any:
        """Decode the item.

        Raises:
            BrokenImageError: it can't be decoded.
        """
        stream, _ = self.reader[index]
        archive = getattr(getattr(stream, "raw", None), "fileobj", None)
        with stream:
            content = BytesIO(stream.read())
        if archive is not None:  # the tar file around it, which timm leaves open
            archive.close()
        return self.reading.read(content, f"item {index} of {type(self.reader).__name__}")


def _targets(reader: Any) -> list[int]:
    """The classes, without opening an image: each kind of reader keeps them elsewhere."""
    if hasattr(reader, "targets"):  # tar
        return [int(label) for label in reader.targets]
    if hasattr(reader, "samples"):  # folder
        return [int(label) for _, label in reader.samples]
    return [int(label) for label in reader.dataset[reader.label_key]]


def timm_reader(spec: DatasetSpec, request: Request) -> TimmDataset:
    """`SCHEME/NAME` of timm's `create_reader` (`hfds/food101`), or the path of a tar file of class folders.

    Splits of named data sets are `train` and `validation`; `:SPLIT` behind the name is another one.

    Raises:
        UserError: the reader's package is missing, it can't read the data, or it only reads them in their order.
    """
    from timm.data.readers.reader_factory import create_reader

    given = str(request.path)
    name, _, split = given.partition(":")
    split = split or ("validation" if request.split == "val" else "train")
    local = Path(given).expanduser()
    try:
        # A tar file that stays open would be shared by the loader's workers, with its position.
        options: dict[str, Any] = {"cache_tarfiles": False} if local.is_file() else {}
        reader = create_reader("", str(local), **options) if local.exists() else create_reader(name, None, split=split)
    except Exception as error:  # whatever the readers' libraries raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"timm can't read {given} ({reason}); give a tar file or for example hfds/NAME") from error
    if not hasattr(reader, "__getitem__"):
        raise UserError(f"timm reads {given} in its order only, and shuffling needs any image at any time; use hfds/")
    return TimmDataset(reader, request)
