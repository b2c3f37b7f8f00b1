"""A first look at own images: counts, sizes, channels, label tree, unreadable files, mean and std. No torch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from solo.data.catalogue.resolve import resolve_spec
from solo.data.labels.trees import folder_labels, from_columns
from solo.data.storage.decode import as_picture, image_shape, npy_head, read_image
from solo.data.storage.folders import Problems, image_folders
from solo.data.storage.tables import read_table
from solo.errors import BrokenImageError, UserError
from solo.taxonomy import UNKNOWN, Taxonomy

GREY = {"1", "L", "I", "I;16", "F"}  # modes of Pillow
SAMPLE = 500  # images decoded for mean and std
Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        path: what was looked at.
        files: the images whose header can be read.
        classes: of each of them the class, -1 for none.
        tree: of the classes; `None` without labels.
        sizes: (width, height) -> number of images.
        modes: Pillow's mode (L, RGB, ...), or for arrays and several pages "n channels" -> number of images.
        problems: what can't be read, one line each.
        sample: how many images mean and std come from.
        mean, std: per channel, of images in [0, 1].
        settings: the keys of `data` that train on it.
    """

    path: Path
    files: list[Path]
    classes: list[int]
    tree: Taxonomy | None
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    problems: list[str]
    sample: int
    mean: list[float]
    std: list[float]
    settings: dict[str, object]

    @property
    def channels(self) -> int:
        """1 if all images are grey, n if all have n, else 3."""
        return _channels(self.modes)

    def counts(self) -> list[int]:
        """Images of each class."""
        found = Counter(self.classes)
        return [found[leaf] for leaf in range(self.tree.num_classes if self.tree else 0)]


def look(path: str | Path, progress: Progress, label_columns: Sequence[str] | None = None, threads: int = 8) -> Survey:
    """Read all headers and a sample of the pixels of a folder or table.

    Args:
        path: a folder, or a table with image paths.
        progress: wraps an iterable, its name and length; shows how far it is.
        label_columns: of a table.
        threads: how many headers are read at once.

    Raises:
        UserError: there is nothing to look at.
    """
    root, problems = Path(path).expanduser(), Problems(skip=True)
    if not root.exists():
        raise UserError(f"{root} does not exist; give a folder of images or a table with their paths")
    listed, tree, settings = _of_table(root, label_columns) if root.is_file() else _of_folder(root, problems)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    files, classes = [], []
    with ThreadPoolExecutor(threads) as pool:
        headers = pool.map(_header, [file for file, _ in listed])
        for (file, leaf), header in zip(listed, progress(headers, "headers", len(listed)), strict=True):
            if isinstance(header, str):
                problems.add(file, header)
                continue
            sizes[header[0]] += 1
            modes[header[1]] += 1
            files.append(file)
            classes.append(leaf)
    if not files:
        raise UserError(
            f"{root} holds no image that can be read" + (f" ({problems.found[0]})" if problems.found else "")
        )
    sample = random.Random(0).sample(files, min(SAMPLE, len(files)))
    mean, std, decoded = _statistics(sample, _channels(modes), problems, progress)
    return Survey(root, files, classes, tree, sizes, modes, problems.found, decoded, mean, std, settings)


def _of_folder(root: Path, problems: Problems) -> tuple[list[tuple[Path, int]], Taxonomy | None, dict[str, object]]:
    found = [(parts, root.joinpath(*parts, name)) for parts, names in image_folders(root, problems) for name in names]
    settings: dict[str, object] = {"dataset": "custom", "train_path": str(root.resolve())}
    if not any(parts for parts, _ in found):
        return [(file, UNKNOWN) for _, file in found], None, {**settings, "no_labels": True}
    spec = resolve_spec({**settings, "on_error": "skip"})
    assert spec.taxonomy is not None
    tree, places = spec.taxonomy, folder_labels(spec.taxonomy)
    listed = []
    for parts, file in found:
        known = next((places[parts[:end]] for end in range(len(parts), 0, -1) if parts[:end] in places), None)
        listed.append((file, UNKNOWN if known is None else tree.leaf_of(known)))
    return listed, tree, settings


def _of_table(
    file: Path, label_columns: Sequence[str] | None
) -> tuple[list[tuple[Path, int]], Taxonomy | None, dict[str, object]]:
    settings: dict[str, object] = {"dataset": "custom", "format": "table", "train_path": str(file.resolve())}
    if label_columns is not None:
        settings["label_columns"] = list(label_columns)
    spec, rows = resolve_spec(settings), read_table(file)
    assert spec.path_column is not None
    files = [file.parent / name for name in rows[spec.path_column]]
    if spec.taxonomy is None:
        return [(name, UNKNOWN) for name in files], None, settings
    columns = list(zip(*(rows[name] for name in spec.levels), strict=True))
    _, labels = from_columns(columns, spec.levels, spec.taxonomy)
    return list(zip(files, map(spec.taxonomy.leaf_of, labels), strict=True)), spec.taxonomy, settings


def _header(file: Path) -> tuple[tuple[int, int], str] | str:
    try:
        if file.stat().st_size == 0:
            return "is empty (0 bytes)"
        if file.suffix.lower() == ".npy":
            with file.open("rb") as stream:
                shape = npy_head(stream)[0]
            # There are fewer channels than pixels; grey has no axis for them.
            height, width, channels = image_shape(shape, (1 if len(shape) == 2 else min(shape[0], shape[-1]),))
            return (width, height), {1: "L", 3: "RGB"}.get(channels, f"{channels} channels")
        with Image.open(file) as image:
            pages = getattr(image, "n_frames", 1) * len(image.getbands())
            paged = image.format == "TIFF" and pages > len(image.getbands())
            return image.size, f"{pages} channels" if paged else image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"can't be read as an image ({type(error).__name__})"


def _channels(modes: Counter[str]) -> int:
    if set(modes) <= GREY:
        return 1
    kinds = [mode.partition(" channels") for mode in modes]
    return int(kinds[0][0]) if len(kinds) == 1 and kinds[0][1] else 3


def _statistics(
    files: Sequence[Path], channels: int, problems: Problems, progress: Progress
) -> tuple[list[float], list[float], int]:
    """Mean and std per channel over the pixels of these images, and how many could be decoded."""
    total, squares, pixels, decoded = np.zeros(channels), np.zeros(channels), 0, 0
    for file in progress(files, "pixels", len(files)):
        try:
            image = read_image(file, channels)
        except BrokenImageError as error:
            problems.add(file, f"can't be decoded ({' '.join(str(error.__cause__).split())})")
            continue
        flat = np.asarray(image.convert("L") if channels == 1 else image).reshape(-1, channels)
        values = flat.astype(np.float64) / 255
        total, squares = total + values.sum(axis=0), squares + (values**2).sum(axis=0)
        pixels, decoded = pixels + len(values), decoded + 1
    mean = total / max(pixels, 1)
    std = np.sqrt(np.maximum(squares / max(pixels, 1) - mean**2, 0))
    return [round(float(v), 4) for v in mean], [round(float(v), 4) for v in std], decoded


def contact_sheet(
    files: Sequence[Path], classes: Sequence[int], channels: int = 3, columns: int = 10, tile: int = 96
) -> Image.Image:
    """Up to `columns` x 10 images side by side, a row for each of ten classes where there are classes."""
    rows: dict[int, list[Path]] = {}
    for file, leaf in zip(files, classes, strict=True):
        rows.setdefault(leaf, []).append(file)
    chosen = sorted(rows)[:: max(1, len(rows) // 10)][:10]
    lines = [rows[leaf][:columns] for leaf in chosen]
    if len(rows) == 1:
        some = rows[chosen[0]][:: max(1, len(files) // (columns * 10))]
        lines = [some[i : i + columns] for i in range(0, min(len(some), columns * 10), columns)]
    sheet = Image.new("RGB", (columns * tile, len(lines) * tile), "white")
    for y, line in enumerate(lines):
        for x, file in enumerate(line):
            try:
                small = as_picture(read_image(file, channels)).convert("RGB")
            except BrokenImageError:  # named among the problems if it was sampled
                continue
            scale = (tile - 4) / max(small.size)
            small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))))
            sheet.paste(small, (x * tile + 2, y * tile + 2))
    return sheet
