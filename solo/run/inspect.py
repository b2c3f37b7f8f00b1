"""`solo inspect PATH`: what is in a folder, table, tar or HDF5 file of images, and the settings that train on it."""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import track

from solo.args.words import LineParser, as_word
from solo.data.catalogue.rows import SMALL
from solo.data.sources.survey import SAMPLE, Survey, look
from solo.errors import printable

_SHOWN = 5


def whole_number(text: str) -> int:
    """A whole number, which may be written as 1e8."""
    return int(float(text))


_READING = (
    ("range", 2, float, "values that are black and white, in images with more than 8 bits a value"),
    ("background", 3, whole_number, "red, green and blue, 0 to 255, behind transparent pictures"),
    ("max_pixels", None, whole_number, "of one image; larger ones are not read"),
)


def main(words: Sequence[str]) -> int:
    """Look at what the words name, and print what is there."""
    parser = LineParser(prog="solo inspect", description=__doc__)
    kinds = "a folder of images, a table (csv, tsv, json, jsonl, parquet) with their paths, a tar or an HDF5 file"
    parser.add_argument("path", help=kinds)
    parser.add_argument("--label-columns", nargs="+", help="columns of a table that hold labels, coarse first")
    for key, count, kind, text in _READING:
        parser.add_argument(f"--{key.replace('_', '-')}", nargs=count, type=kind, help=text)
    parser.add_argument("--no-exif", action="store_true", help="take pictures as stored, not as their EXIF turns them")
    if {"-h", "--help"} & set(words):
        parser.print_help()
        return 0
    words = [re.sub(r"^data\.(train_path|val_path|path)=", "", word) for word in words]  # as for any other command
    given = parser.parse_args([word for word in words if word != "data.dataset=custom"])
    screen = Console(soft_wrap=True, highlight=False)

    def progress(items: Iterable[Any], what: str, length: int) -> Iterable[Any]:
        return track(items, what, total=length, console=screen, transient=True, disable=not screen.is_terminal)

    keys = {key: getattr(given, key) for key in ("label_columns", *(key for key, *_ in _READING))}
    keys |= {"exif": False if given.no_exif else None}
    found = look(given.path, progress, {key: value for key, value in keys.items() if value is not None})
    screen.print("\n".join(describe(found)), markup=False)
    return 0


def inspect(path: str) -> dict[str, Any]:
    """Print the findings; section `data` of a config that trains on it."""
    found = look(path, lambda items, what, length: items)
    Console(soft_wrap=True, highlight=False).print("\n".join(describe(found)), markup=False)
    return settings_of(found)


def describe(found: Survey) -> list[str]:
    """The findings, a line each."""
    lines = [
        f"{found.path}: {len(found.files):,} images",
        f"sizes: {_most(found.sizes)}",
        f"modes: {_most(found.modes)}",
    ]
    if found.tree is not None:
        counts = found.counts()
        unlabelled = len(found.files) - sum(counts)
        lines += [f"images of a class: {min(counts):,} to {max(counts):,}", found.tree.render(counts)]
        if unlabelled:
            lines.append(f"{unlabelled:,} images have no class: they lie above the class folders, or have no label")
    else:
        lines.append("no labels")
    lines.append(f"unreadable: {len(found.problems)}")
    lines += [f"  {problem}" for problem in found.problems[:_SHOWN]]
    if len(found.problems) > _SHOWN:
        lines.append(f"  and {len(found.problems) - _SHOWN} more")
    lines += found.notes
    kind = "a sample of" if len(found.files) > SAMPLE else "all that can be decoded:"
    lines.append(f"mean and std are of {kind} {found.sample:,} images")
    lines = [printable(line) for line in "\n".join(lines).split("\n")]
    settings = settings_of(found)
    words = [as_word(f"data.{key}", value) for key, value in settings.items() if key != "dataset"]
    next_one = shlex.join(["solo", "pretrain", "custom", "hex", *words])
    return [
        *lines,
        "",
        "data:",
        *(f"  {key}: {_as_yaml(value)}" for key, value in settings.items()),
        "",
        f"next: {next_one}",
    ]


def settings_of(found: Survey) -> dict[str, Any]:
    """Section `data` of a config that trains on it."""
    mean, std = found.mean, found.std
    if min(std) < 0.002:  # images of one colour: their values stay as they are
        mean, std = [0.0] * len(mean), [1.0] * len(std)
    settings = {**found.settings, "channels": found.reading.channels, "mean": mean, "std": std}
    largest = max(map(max, found.sizes))
    if largest <= SMALL or (len(found.sizes) == 1 and largest < 224):
        settings["image_size"] = largest
        settings |= {"small_stem": True} if largest <= SMALL else {}
    if found.problems:
        settings["on_error"] = "skip"
    return settings


def _as_yaml(value: object) -> str:
    """As YAML reads it again: a name in quotes where it has more than plain characters."""
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w./-]+", value, re.ASCII) else json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _most(counter: Counter[Any]) -> str:
    shown = [
        f"{' x '.join(map(str, key)) if isinstance(key, tuple) else key} ({n:,})"
        for key, n in counter.most_common(_SHOWN)
    ]
    return ", ".join(shown) + (f" and {len(counter) - _SHOWN} more" if len(counter) > _SHOWN else "")
