"""Where images come from: `load` gives the items `(PIL image, target)` of a split, by the source that its row names.

A source, `DatasetSpec.source`, is a function `source(spec, request) -> Dataset`. What it returns takes the request's
two transforms, has an attribute `targets` (leaf classes, -1 = unlabelled) and `len()`; `small` has some. Own code can
hand any data set of items `(PIL image, int)` to the loaders instead; views and index are added by wrappers:

    view = build_transform_pipeline("custom", cfg.augmentations[0])  # of solo.data.pretrain_dataloader, as these
    images = dataset_with_index(MyDataset)(..., transform=prepare_n_crop_transform([view], [2]))
    loader = prepare_dataloader(images, batch_size=256)
    trainer.fit(METHODS["simclr"](cfg), loader)  # cfg.data.num_classes says how many labels there are
"""

import logging
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets as tv

from solo.data.catalogue.registry import DatasetSpec, check_path, choose_classes, layout_of, obtain
from solo.data.labels.subsets import Around, Pairs, hold_out
from solo.data.labels.trees import Labels, label_rows
from solo.data.storage.containers import H5File, guarded, is_h5, read_index
from solo.data.storage.facts import DEFAULT_ROOT, Source, Stored, class_folders, is_image_name, of_split
from solo.data.storage.listing import READERS, WITH_COLUMNS, Listing, Wanted, list_images
from solo.data.storage.reading import ImageReading, flat_images
from solo.errors import BrokenImageError, UserError, explained, printable, some
from solo.taxonomy import UNKNOWN, Taxonomy

_LOG = logging.getLogger("solo")
Item = TypeVar("Item")
Transform = Callable[[Any], Any]
Step = Transform | None  # that an image or a target goes through
Split = Literal["pretrain", "train", "val"]


@dataclass(frozen=True)
class Request:
    """What is wanted of a source: `pretrain` is `train` plus whatever unlabelled images there are."""

    split: Split
    path: Path | None
    download: bool
    transform: Step
    target_transform: Step

    @property
    def root(self) -> Path:
        """The given folder or the one inside the package."""
        return self.path or DEFAULT_ROOT


class LevelTargets:
    """Target transform: leaf class -> `(levels,)` LongTensor, coarse first; -1 gives -1 at all levels."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        # Index -1 is the last row.
        self.table = torch.tensor([*taxonomy.path_table(), (UNKNOWN,) * taxonomy.num_levels])

    def __call__(self, target: int) -> torch.Tensor:
        """The path to the leaf `target`."""
        return self.table[int(target)]


class LabelledImages(Dataset[tuple[Any, Any]]):
    """Items `(image, target)`, after their transforms; `targets` are leaf classes, -1 for unlabelled."""

    reading = ImageReading()  # how files become images

    def __init__(self, targets: Iterable[int], transform: Step = None, target_transform: Step = None) -> None:
        self.targets = [int(target) for target in targets]
        self.transform = transform
        self.target_transform = target_transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = self.read(index)
        target: Any = self.targets[index]
        image = self.transform(image) if self.transform else image
        return image, self.target_transform(target) if self.target_transform else target

    def read(self, index: int) -> Any:
        """The image as it is stored."""
        raise NotImplementedError


class ArrayDataset(LabelledImages):
    """Images in memory, `data` as torchvision's CIFAR calls them: uint8, `(N, H, W)` grey or `(N, H, W, 3)` RGB."""

    groups: np.ndarray | None = None  # images of one (a writer, a font) belong together: `data.holdout` keeps them so

    def __init__(
        self, images: np.ndarray, targets: Iterable[int], transform: Step = None, target_transform: Step = None
    ) -> None:
        super().__init__(targets, transform, target_transform)
        self.data = images

    def read(self, index: int) -> Image.Image:
        """The image, grey or RGB, as one of Pillow."""
        return Image.fromarray(self.data[index])


class ImageFiles(LabelledImages):
    """Image files, or images inside of larger ones; `samples` (file, class), `classes` (names) as in torchvision."""

    root: Path | None = None  # the folder or file that they come from
    problems: Sequence[str] = ()  # what had to be left out, one line each
    labels: torch.Tensor | None = None  # (N, levels), coarse first, -1 for unknown: targets of items instead of classes

    def __init__(
        self,
        files: Sequence[str | Path | Stored],
        targets: Iterable[int],
        classes: Sequence[str],
        transform: Step = None,
        target_transform: Step = None,
    ) -> None:
        super().__init__(targets, transform, target_transform)
        self.samples = self.imgs = list(zip(files, self.targets, strict=True))
        self.classes = list(classes)
        self.class_to_idx = {name: number for number, name in enumerate(classes)}

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = super().__getitem__(index)
        return image, target if self.labels is None else self.labels[index]

    def read(self, index: int) -> Any:
        """Decode the file. Raises a `BrokenImageError`: it can't be decoded."""
        return self.reading.read(self.samples[index][0])


class CustomDatasetWithoutLabels(ImageFiles):
    """All images directly in `root`, with target -1, at least one; `images`: their sorted names."""

    def __init__(self, root: str | Path, transform: Step = None) -> None:
        self.root = Path(root)
        self.images = flat_images(self.root)
        if not self.images:
            raise UserError(f"{self.root} holds no files that are images; give a folder with images directly inside")
        super().__init__([self.root / name for name in self.images], [-1] * len(self.images), (), transform)


class H5Dataset(ImageFiles):
    """An HDF5 file in solo-learn's layout: classes are its groups, `samples` (class name/image name, class index)."""

    def __init__(
        self, dataset: str, h5_path: str | Path, transform: Step = None, target_transform: Step = None
    ) -> None:
        self._file = H5File(Path(h5_path).expanduser())
        self.root, index = self._file.path, read_index(self._file.path)
        classes = choose_classes(dataset, list(index))
        names = [f"{name}/{image}" for name in classes for image in index[name]]
        targets = [target for target, name in enumerate(classes) for _ in index[name]]
        super().__init__(names, targets, classes, transform, target_transform)

    def read(self, index: int) -> Any:
        """Decode the stored file. Raises a `BrokenImageError`: it can't be decoded."""
        return self.reading.read(self._file.image(str(self.samples[index][0])))

    def sources(self) -> list[Stored]:
        """Where each image lies, for who decodes by himself."""
        return [self._file.image(str(name)) for name, _ in self.samples]


class SkipBroken(Around):
    """The next readable image, with an unknown label (-1), stands for a broken one; workers share which these are."""

    def __init__(self, dataset: Pairs) -> None:
        super().__init__(dataset)
        self.broken = torch.zeros(len(cast(Sized, dataset)), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """The item, or the next readable one, if there is one, without its label."""
        broken = self.broken
        place, (image, target) = next_readable(
            index, len(self), broken.__getitem__, self.dataset.__getitem__, lambda at: broken.__setitem__(at, True)
        )
        if place == index:
            return image, target
        return image, torch.full_like(target, -1) if isinstance(target, torch.Tensor) else -1

    def skipped(self) -> list[str]:
        """What was found broken so far, one line each."""
        names, found = image_sources(self.dataset), self.broken.nonzero().flatten().tolist()
        lines = [not_an_image(names[i] if names else f"image {i}") for i in found]
        return [*getattr(self.dataset, "problems", []), *lines]


def not_an_image(name: object) -> str:
    """The line on a file that was skipped."""
    return f"{printable(name)} can't be read as an image"


def next_readable(
    first: int, count: int, broken: Callable[[int], Any], read: Callable[[int], Item], mark: Callable[[int], None]
) -> tuple[int, Item]:
    """The place of the first of `count` images, from `first` on and round, that can be read, and what is read there."""
    for place in (number % count for number in range(first, first + count)):
        if not broken(place):
            try:
                return place, read(place)
            except BrokenImageError:
                mark(place)
    raise UserError(f"none of the {count} images can be read; data.on_error=skip has nothing to go on with")


def image_sources(dataset: Any) -> list[Source] | None:
    """What each image of a data set is read from: a path, or an image in a larger file; None for other data sets."""
    if hasattr(dataset, "sources"):
        return list(dataset.sources())
    if not hasattr(dataset, "samples"):
        return None
    return [sample if isinstance(sample, Stored) else str(sample) for sample, *_ in dataset.samples]


def skipped_files(dataset: Any) -> list[str]:
    """What a data set has skipped so far: the first with a method `skipped` below wrappers with `dataset`."""
    while dataset is not None and not hasattr(dataset, "skipped"):
        dataset = getattr(dataset, "dataset", None)
    return list(dataset.skipped()) if dataset is not None else []


def load(
    spec: DatasetSpec,
    split: Split,
    path: str | Path | None = None,
    download: bool = True,
    transform: Transform | None = None,
    levels: bool = False,
    no_labels: bool = False,
    data_format: str | None = None,
) -> Pairs:
    """The images of one split: `train`, `val`, or `pretrain` (`train` and the unlabelled images, where there are some).

    `path` is the folder or file of this split, or the root of a data set with a layout of its own; with `no_labels` a
    flat folder, a table or shards, whose targets are -1. With `levels` targets are `(levels,)` LongTensors, coarse
    first, if there is more than one. Without `data_format` HDF5 files are taken for what they are.
    """
    share, train_path = spec.holdout
    held = share > 0 and split == "val"
    if held:
        split, path = "train", train_path
    if data_format not in (None, *READERS):
        what = f"data.format={data_format!r} can't be read; only {', '.join(map(repr, READERS))} can"
        raise UserError(f"{what}: store the images as files, one folder per class, and set data.format=image_folder")
    folder = Path(path).expanduser() if path else None
    if folder is not None and spec.folders and folder.is_dir():
        folder = of_split(folder, train=split != "val")
    if data_format is None:
        data_format = "h5" if folder is not None and spec.folders and is_h5(folder) else "image_folder"
    check_path(spec, str(folder) if folder else None, no_labels, data_format)
    if no_labels and spec.format not in WITH_COLUMNS:
        if not spec.folders or folder is None:
            raise UserError(f"data.no_labels=True needs a folder of images; use data.dataset=custom, not {spec.name}")
        images: Any = CustomDatasetWithoutLabels(folder, transform)
    else:
        target_transform = LevelTargets(spec.taxonomy) if levels and spec.taxonomy and len(spec.levels) > 1 else None
        if data_format == "h5":
            images = H5Dataset(spec.name, cast(Path, folder), transform, target_transform)
        else:
            source = pkgutil.resolve_name(spec.source)
            images = source(spec, Request(split, folder, download, transform, target_transform))
            if spec.channels not in (1, 3) and not isinstance(images, ImageFiles):
                what = f"data.channels={spec.channels}, but images of {spec.name} have 1 or 3"
                raise UserError(f"{what}; other numbers are read from own files, data.dataset=custom")
    if isinstance(images, LabelledImages):
        images.reading = ImageReading.by(spec.reading)
    images = SkipBroken(images) if spec.on_error == "skip" else images
    return cast(Pairs, hold_out(images, share, held) if share else images)


def from_torchvision(cls: Callable[..., Pairs], layout: str, request: Request, **kwargs: Any) -> Pairs:
    """A data set of torchvision that fetches itself; a `UserError` says where it was looked for in vain."""
    options = {"transform": request.transform, "target_transform": request.target_transform, **kwargs}
    fetch = "the download failed" if request.download else "data.download=False"
    what = f"no complete {layout} in {request.root}, and {fetch}"
    cure = f"set data.train_path and data.val_path to the folder that holds {layout}/"
    with guarded(), explained(what, cure, RuntimeError, OSError):
        return cls(str(request.root), download=request.download, **options)


def published(spec: DatasetSpec, request: Request) -> ImageFiles:
    """A data set in its authors' layout, fetched by torchvision where that is possible."""
    obtain(spec, str(request.root), request.download)
    files, targets, tree = layout_of(spec).read(request.root, request.split != "val")
    if spec.taxonomy not in (None, tree):
        what = f"{request.root} holds {tree.num_classes} classes, others than the {spec.num_classes} of the training"
        raise UserError(f"{what} data; data.train_path and data.val_path must belong to the same copy of the data set")
    return ImageFiles(files, targets, tree.class_names, request.transform, request.target_transform)


class _ImageFolder(tv.ImageFolder):  # type: ignore[misc]
    """torchvision's, without hidden folders; ImageNet-100 may be taken out of the whole ImageNet."""

    def __init__(self, spec: DatasetSpec, request: Request) -> None:
        self.dataset, self.reading = spec.name, ImageReading.by(spec.reading)
        transforms = (request.transform, request.target_transform)
        super().__init__(str(request.path), *transforms, self.reading.read, is_image_name)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = choose_classes(self.dataset, class_folders(directory))
        return names, {name: index for index, name in enumerate(names)}


def image_folder(spec: DatasetSpec, request: Request) -> tv.ImageFolder:
    """One folder per class, images inside at any depth."""
    with explained(f"{request.path} has empty classes", "put images there or remove the folders", FileNotFoundError):
        return _ImageFolder(spec, request)


def own(spec: DatasetSpec, request: Request) -> ImageFiles:
    """A user's own images in whatever form `list_images` knows, with labels by name in the training images' tree."""
    tree, root, skip = spec.taxonomy, request.path, spec.on_error == "skip"
    columns = list(tree.levels) if tree else []
    found = list_images(spec.format, root, Wanted(request.split != "val", spec.path_column, columns, skip))
    if tree is None:
        data = ImageFiles(found.images, [UNKNOWN] * len(found.images), (), request.transform)
    else:
        try:
            rows, labels = _placed(spec, tree, found, root)
            leaves = [tree.leaf_of(row) for row in labels]
            if request.split != "val" and found.columns is None:
                counts = Counter(leaves)
                tree.check_counts([counts[leaf] for leaf in range(tree.num_classes)])
        except UserError as error:
            raise UserError(f"{root}: {error}") from error
        data = ImageFiles([found.images[row] for row in rows], leaves, tree.class_names, request.transform)
        data.labels = torch.tensor(labels) if request.target_transform else None
    data.root, data.problems = root, found.problems.found
    return data


def _placed(spec: DatasetSpec, tree: Taxonomy, found: Listing, root: Path | None) -> tuple[list[int], list[Labels]]:
    """Which images have a place among the classes, and their labels."""
    labels, strange = label_rows(found.rows, found.columns, tree, spec.nested)
    # Images beside the class folders belong to none of them.
    placed = [number for number, row in enumerate(found.rows) if row]
    if unknown := Counter(strange[number] for number in placed if strange[number]):
        shown = printable(some(sorted(unknown), 50))
        what = f"{len(unknown):,} classes of {sum(unknown.values()):,} images are not among the training data's labels"
        if spec.unknown_classes == "raise":
            skip = " (training folders that can't be read are none, too)" if spec.on_error == "skip" else ""
            text = f"{what}: {shown}; take them out, or set data.unknown_classes=drop to leave them out"
            raise UserError(f"{text}, or label to keep the labels that they share with the training data{skip}")
        kept = "kept with the labels that they share"
        if spec.unknown_classes == "drop":
            kept, placed = "left out", [number for number in placed if not strange[number]]
        _LOG.warning("note: %s: %s: %s: %s (data.unknown_classes)", root, what, shown, kept)
    if not placed:
        raise UserError("there are no images in its folders")
    return placed, [labels[number] for number in placed]
