"""`solo inspect PATH`: what is in a folder, table, tar or HDF5 file of images, and the settings that train on it."""

import random
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from solo.args.compose import LineParser, as_word
from solo.data.catalogue.registry import resolve_spec
from solo.data.catalogue.rows import SMALL
from solo.data.labels.trees import label_rows
from solo.data.storage.containers import is_h5
from solo.data.storage.facts import Source, of_split
from solo.data.storage.listing import Wanted, list_images
from solo.data.storage.reading import Head, ImageReading
from solo.errors import BrokenImageError, UserError, printable, some
from solo.screen import progress
from solo.taxonomy import UNKNOWN, Taxonomy

_SHOWN = 5
_SAMPLE = 500  # images decoded for mean and std


def _whole_number(text: str) -> int:
    return int(float(text))


def main(words: Sequence[str]) -> int:
    """Look at what the words name, and print what is there."""
    parser = LineParser(prog="solo inspect", description=__doc__)
    kinds = "a folder of images, a table (csv, tsv, json, jsonl, parquet) with their paths, a tar or an HDF5 file"
    parser.add_argument("path", help=kinds)
    parser.add_argument("--label-columns", nargs="+", help="columns of a table that hold labels, coarse first")
    levels = "values that are black and white, in images with more than 8 bits a value"
    parser.add_argument("--range", nargs=2, type=float, help=levels)
    behind = "red, green and blue, 0 to 255, behind transparent pictures"
    parser.add_argument("--background", nargs=3, type=_whole_number, help=behind)
    parser.add_argument("--max-pixels", type=_whole_number, help="of one image; larger ones are not read")
    turned = "take pictures as stored, not as their EXIF turns them"
    parser.add_argument("--no-exif", action="store_false", dest="exif", default=None, help=turned)
    if {"-h", "--help"} & set(words):
        parser.print_help()
        return 0
    words = [re.sub(r"^data\.(train_path|val_path|path)=", "", word) for word in words]  # as for any other command
    given = parser.parse_args([word for word in words if word != "data.dataset=custom"])
    inspect(given.path, {key: value for key, value in vars(given).items() if key != "path" and value is not None})
    return 0


def inspect(path: str, keys: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Print the findings, with the `keys` of `data` that say how images are read; the section that trains on them."""
    lines, settings = _look(path, keys or {})
    lines = [printable(line) for line in "\n".join(lines).split("\n")]
    words = [as_word(f"data.{key}", value) for key, value in settings.items() if key != "dataset"]
    data = yaml.safe_dump({"data": settings}, default_flow_style=None, sort_keys=False, allow_unicode=True, width=1000)
    lines += ["", *data.splitlines(), "", f"next: {shlex.join(['solo', 'pretrain', 'custom', 'hex', *words])}"]
    Console(soft_wrap=True, highlight=False).print("\n".join(lines), markup=False)
    return settings


def _look(path: str, keys: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Read all heads and some of the pixels: lines on what there is, and the settings."""
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
    problems, notes = listed.problems.found, list[str]()
    if folder and not any(listed.rows):
        settings["no_labels"], notes = True, listed.problems.notes()
    spec = resolve_spec({**settings, "on_error": "skip"} if folder else settings)
    notes, tree = [*notes, *spec.notes], None if settings.get("no_labels") else spec.taxonomy
    if form == "h5":
        tree = Taxonomy.flat(list(dict.fromkeys(name for (name,) in listed.rows)))
    labels = label_rows(listed.rows, listed.columns, tree, spec.nested)[0] if tree else []
    classes = [tree.leaf_of(row) for row in labels] if tree else [UNKNOWN] * len(listed.images)
    reading = ImageReading.by(spec.reading)

    def head_of(source: Source) -> Head | str:
        try:
            return reading.head(source)
        except BrokenImageError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        heads = list(progress(pool.map(head_of, listed.images), "heads", len(classes)))
    problems += [head for head in heads if isinstance(head, str)]
    known = {place: head for place, head in enumerate(heads) if isinstance(head, Head)}
    if not known:
        tars = sorted(root.glob("*.tar")) if folder else []
        reasons = [*problems[:1], *notes]
        reason = f" ({'; '.join(reasons)})" if reasons else ""
        advice = f"; its .tar files are looked at one by one, as {tars[0]}" if tars else ""
        raise UserError(f"{root} holds no image that can be read{reason}{advice}")
    sizes = Counter(head.size for head in known.values())
    modes = Counter(head.mode for head in known.values())
    kinds = [mode.partition(" channels") for mode in modes]
    grey = set(modes) <= {"1", "L", "I", "I;16", "F"}
    channels = 1 if grey else int(kinds[0][0]) if len(kinds) == 1 and kinds[0][1] else 3
    files = [listed.images[place] for place in known]
    drawn = random.Random(0).sample(files, min(_SAMPLE, len(files)))
    mean, std, decoded = _statistics(drawn, replace(reading, channels=channels), problems)
    lines = [f"{root}: {len(files):,} images", f"sizes: {_most(sizes)}", f"modes: {_most(modes)}"]
    if tree is None:
        lines.append("no labels")
    else:
        found = Counter(classes[place] for place in known)
        counts = [found[leaf] for leaf in range(tree.num_classes)]
        lines += [f"images of a class: {min(counts):,} to {max(counts):,}", tree.render(counts)]
        if found[UNKNOWN]:
            lines.append(f"{found[UNKNOWN]:,} images have no class: they lie above the class folders, or have no label")
    lines += [f"unreadable: {len(problems)}", *(f"  {problem}" for problem in problems[:_SHOWN])]
    if len(problems) > _SHOWN:
        lines.append(f"  and {len(problems) - _SHOWN} more")
    kind = "a sample of" if len(files) > _SAMPLE else "all that can be decoded:"
    lines += [*notes, f"mean and std are of {kind} {decoded:,} images"]
    if min(std) < 0.002:  # images of one colour: their values stay as they are
        mean, std = [0.0] * channels, [1.0] * channels
    settings |= {"range": list(reading.range)} if reading.range is not None else {}
    settings |= {"channels": channels, "mean": mean, "std": std}
    largest = max(map(max, sizes))
    if largest <= SMALL or (len(sizes) == 1 and largest < 224):
        settings["image_size"] = largest
        settings |= {"small_stem": True} if largest <= SMALL else {}
    settings |= {"on_error": "skip"} if problems else {}
    return lines, settings


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


def _most(counter: Counter[Any]) -> str:
    names = ((" x ".join(map(str, key)) if isinstance(key, tuple) else key, n) for key, n in counter.most_common())
    return some([f"{name} ({n:,})" for name, n in names], _SHOWN)
