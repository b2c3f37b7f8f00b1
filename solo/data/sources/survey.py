"""A first look at own images: counts, sizes, channels, label tree, unreadable files, mean and std. No torch."""

import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solo.data.catalogue.registry import resolve_spec
from solo.data.catalogue.rows import DatasetSpec
from solo.data.labels.trees import label_rows
from solo.data.storage.containers import is_h5
from solo.data.storage.facts import Source
from solo.data.storage.folders import Problems, of_split
from solo.data.storage.listing import Wanted, list_images
from solo.data.storage.reading import Head, ImageReading
from solo.errors import BrokenImageError, UserError
from solo.taxonomy import UNKNOWN, Taxonomy

GREY = {"1", "L", "I", "I;16", "F"}  # modes of Pillow
SAMPLE = 500  # images decoded for mean and std
Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]


@dataclass(frozen=True)
class Survey:
    """What was found in a folder or table of images."""

    path: Path  # what was looked at
    files: list[Source]  # the images whose head can be read
    classes: list[int]  # of each of them the class, -1 for none
    tree: Taxonomy | None  # of the classes; None without labels
    sizes: Counter[tuple[int, int]]  # (width, height) -> number of images
    modes: Counter[str]  # pillow's (L, RGB, ...), or of arrays and several pages "n channels" -> number of images
    problems: list[str]  # what can't be read, one line each
    notes: list[str]  # what has to be decided or was left out, one line each
    reading: ImageReading  # how the files become images
    sample: int  # how many images mean and std come from
    mean: list[float]  # per channel, of images in [0, 1]
    std: list[float]  # likewise
    settings: dict[str, object]  # the keys of `data` that train on it

    def counts(self) -> list[int]:
        """How many images each class has, in the order of the tree."""
        found = Counter(self.classes)
        return [found[leaf] for leaf in range(self.tree.num_classes if self.tree else 0)]


def look(path: str | Path, progress: Progress, keys: Mapping[str, Any] | None = None, threads: int = 8) -> Survey:
    """Read all heads and a sample of the pixels of a folder, table, tar file or HDF5 file.

    `progress` wraps an iterable, its name and length, and shows how far it is; `keys` of `data` say how images are
    read. Raises a `UserError` where there is nothing to look at.
    """
    root, problems = Path(path).expanduser(), Problems(skip=True)
    if not root.exists() and "{" not in root.name:
        raise UserError(f"{root} does not exist; give a folder of images or a table with their paths")
    settings: dict[str, object] = {"dataset": "custom", "train_path": str(root.resolve()), **(keys or {})}
    listed, leaves, spec, settings = _list_images(root, problems, settings)
    sizes, modes = Counter[tuple[int, int]](), Counter[str]()
    files, classes = [], []
    reading = ImageReading.by(spec.reading)

    def look_at(source: Source) -> Head | str:
        try:
            return reading.head(source)
        except BrokenImageError as error:
            return str(error)

    with ThreadPoolExecutor(threads) as pool:
        heads = progress(pool.map(look_at, listed), "heads", len(listed))
        for source, leaf, head in zip(listed, leaves, heads, strict=True):
            if isinstance(head, str):
                problems.found.append(head)
                continue
            sizes[head.size] += 1
            modes[head.mode] += 1
            files.append(source)
            classes.append(leaf)
    if not files:
        shards = sorted(root.glob("*.tar")) if root.is_dir() else []
        reasons = [*problems.found[:1], *spec.notes]
        reason = f" ({'; '.join(reasons)})" if reasons else ""
        advice = f"; its .tar files are looked at one by one, as {shards[0]}" if shards else ""
        raise UserError(f"{root} holds no image that can be read{reason}{advice}")
    kinds = [mode.partition(" channels") for mode in modes]
    channels = 1 if set(modes) <= GREY else int(kinds[0][0]) if len(kinds) == 1 and kinds[0][1] else 3
    reader = dataclasses.replace(reading, channels=channels)
    drawn = random.Random(0).sample(files, min(SAMPLE, len(files)))
    mean, std, decoded = _statistics(drawn, reader, problems, progress)
    if reading.range is not None:
        settings["range"] = list(reading.range)
    rest = (list(spec.notes), reader, decoded, mean, std, settings)
    return Survey(root, files, classes, spec.taxonomy, sizes, modes, problems.found, *rest)


def _list_images(
    root: Path, problems: Problems, settings: dict[str, Any]
) -> tuple[list[Source], list[int], DatasetSpec, dict[str, object]]:
    """Images, their classes, what is known of them, and the keys of `data` that train on them."""
    form = "webdataset" if root.suffix == ".tar" or ("{" in root.name and not root.exists()) else "table"
    if root.is_dir():
        root, form = of_split(root, train=True), "image_folder"
    elif is_h5(root):
        form = "h5"
    if form != "image_folder":
        settings["format"] = form
    found = list_images(form, root, Wanted(label_columns=settings.get("label_columns"), skip=form == "image_folder"))
    problems.found += found.problems.found
    if form == "image_folder" and not any(found.rows):
        settings["no_labels"] = True
        spec = resolve_spec(settings)
        notes = (*found.problems.notes(), *spec.notes)
        return found.images, [UNKNOWN] * len(found.images), dataclasses.replace(spec, notes=notes), settings
    spec = resolve_spec({**settings, "on_error": "skip"} if form == "image_folder" else settings)
    if form == "h5":
        spec = dataclasses.replace(spec, taxonomy=Taxonomy.flat(list(dict.fromkeys(name for (name,) in found.rows))))
    classes = [UNKNOWN] * len(found.images)
    if tree := spec.taxonomy:
        classes = [tree.leaf_of(labels) for labels in label_rows(found.rows, found.columns, tree, spec.nested)[0]]
    return found.images, classes, spec, settings


def _statistics(
    files: Sequence[Source], reading: ImageReading, problems: Problems, progress: Progress
) -> tuple[list[float], list[float], int]:
    """Mean and std per channel over the pixels of these images, and how many could be decoded."""
    channels = reading.channels
    total, squares, pixels, decoded = np.zeros(channels), np.zeros(channels), 0, 0
    for file in progress(files, "pixels", len(files)):
        try:
            image = reading.read(file)
        except BrokenImageError as error:
            problems.found.append(str(error))
            continue
        flat = np.asarray(image.convert("L") if channels == 1 else image).reshape(-1, channels)
        values = flat.astype(np.float64) / 255
        total, squares = total + values.sum(axis=0), squares + (values**2).sum(axis=0)
        pixels, decoded = pixels + len(values), decoded + 1
    mean = total / max(pixels, 1)
    std = np.sqrt(np.maximum(squares / max(pixels, 1) - mean**2, 0))
    return [round(float(v), 4) for v in mean], [round(float(v), 4) for v in std], decoded
