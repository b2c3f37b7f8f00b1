"""A first look at own images: counts, sizes, channels, label tree, unreadable files, mean and std. No torch."""

import dataclasses
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solo.data.catalogue.registry import resolve_spec
from solo.data.labels.trees import label_rows
from solo.data.storage.containers import is_h5
from solo.data.storage.facts import Source, of_split
from solo.data.storage.listing import Wanted, list_images
from solo.data.storage.reading import Head, ImageReading
from solo.errors import BrokenImageError, UserError
from solo.screen import progress
from solo.taxonomy import UNKNOWN, Taxonomy

SAMPLE = 500  # images decoded for mean and std


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
    settings: dict[str, Any]  # the keys of `data` that train on it

    def counts(self) -> list[int]:
        """How many images each class has, in the order of the tree."""
        found = Counter(self.classes)
        return [found[leaf] for leaf in range(self.tree.num_classes if self.tree else 0)]


def look(path: str | Path, keys: Mapping[str, Any]) -> Survey:
    """Read all heads and some of the pixels, as the `keys` of `data` say."""
    root = Path(path).expanduser()
    if not root.exists() and "{" not in root.name:
        raise UserError(f"{root} does not exist; give a folder of images or a table with their paths")
    settings: dict[str, Any] = {"dataset": "custom", "train_path": str(root.resolve()), **keys}
    if folder := root.is_dir():
        root, form = of_split(root, train=True), "image_folder"
    else:
        shards = root.suffix == ".tar" or ("{" in root.name and not root.exists())
        settings["format"] = form = "h5" if is_h5(root) else "webdataset" if shards else "table"
    listed = list_images(form, root, Wanted(label_columns=settings.get("label_columns"), skip=folder))
    problems, tree = listed.problems.found, None
    classes = [UNKNOWN] * len(listed.images)
    if folder and not any(listed.rows):
        settings["no_labels"] = True
        spec = resolve_spec(settings)
        notes = [*listed.problems.notes(), *spec.notes]
    else:
        spec = resolve_spec({**settings, "on_error": "skip"} if folder else settings)
        notes, tree = list(spec.notes), spec.taxonomy
        if form == "h5":
            tree = Taxonomy.flat(list(dict.fromkeys(name for (name,) in listed.rows)))
        if tree:
            labels, _ = label_rows(listed.rows, listed.columns, tree, spec.nested)
            classes = [tree.leaf_of(row) for row in labels]
    reading = ImageReading.by(spec.reading)

    def head_of(source: Source) -> Head | str:
        try:
            return reading.head(source)
        except BrokenImageError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        heads = list(progress(pool.map(head_of, listed.images), "heads", len(classes)))
    problems += [head for head in heads if isinstance(head, str)]
    known = [head for head in heads if isinstance(head, Head)]
    read = [place for place, head in enumerate(heads) if isinstance(head, Head)]
    files, classes = [listed.images[place] for place in read], [classes[place] for place in read]
    if not files:
        tars = sorted(root.glob("*.tar")) if folder else []
        reasons = [*problems[:1], *notes]
        reason = f" ({'; '.join(reasons)})" if reasons else ""
        advice = f"; its .tar files are looked at one by one, as {tars[0]}" if tars else ""
        raise UserError(f"{root} holds no image that can be read{reason}{advice}")
    modes = Counter(head.mode for head in known)
    kinds = [mode.partition(" channels") for mode in modes]
    grey = set(modes) <= {"1", "L", "I", "I;16", "F"}
    channels = 1 if grey else int(kinds[0][0]) if len(kinds) == 1 and kinds[0][1] else 3
    reader = dataclasses.replace(reading, channels=channels)
    drawn = random.Random(0).sample(files, min(SAMPLE, len(files)))
    mean, std, decoded = _statistics(drawn, reader, problems)
    if reading.range is not None:
        settings["range"] = list(reading.range)
    sizes = Counter(head.size for head in known)
    return Survey(root, files, classes, tree, sizes, modes, problems, notes, reader, decoded, mean, std, settings)


def _statistics(
    files: Sequence[Source], reading: ImageReading, problems: list[str]
) -> tuple[list[float], list[float], int]:
    """Mean and std per channel over the pixels of these images, and how many could be decoded."""
    channels = reading.channels
    total, squares, pixels, decoded = np.zeros(channels), np.zeros(channels), 0, 0
    for file in progress(files, "pixels"):
        try:
            image = reading.read(file)
        except BrokenImageError as error:
            problems.append(str(error))
            continue
        flat = np.asarray(image.convert("L") if channels == 1 else image).reshape(-1, channels)
        values = flat.astype(np.float64) / 255
        total, squares = total + values.sum(axis=0), squares + (values**2).sum(axis=0)
        pixels, decoded = pixels + len(values), decoded + 1
    mean = total / max(pixels, 1)
    std = np.sqrt(np.maximum(squares / max(pixels, 1) - mean**2, 0))
    return [round(float(v), 4) for v in mean], [round(float(v), 4) for v in std], decoded
