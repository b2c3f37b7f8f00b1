"""`solo inspect PATH`: what is in a folder, table, tar or HDF5 file of images, and the settings that train on it."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from rich.console import Console

from solo.args.compose import LineParser, as_word
from solo.data.catalogue.rows import SMALL
from solo.data.sources.survey import SAMPLE, Survey, look
from solo.errors import printable

_SHOWN = 5


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
    found = look(path, keys or {})
    Console(soft_wrap=True, highlight=False).print("\n".join(describe(found)), markup=False)
    return settings_of(found)


def describe(found: Survey) -> list[str]:
    """The findings, a line each."""
    lines = [f"{found.path}: {len(found.files):,} images"]
    lines += [f"sizes: {_most(found.sizes)}", f"modes: {_most(found.modes)}"]
    if found.tree is None:
        lines.append("no labels")
    else:
        counts = found.counts()
        lines += [f"images of a class: {min(counts):,} to {max(counts):,}", found.tree.render(counts)]
        if unlabelled := len(found.files) - sum(counts):
            lines.append(f"{unlabelled:,} images have no class: they lie above the class folders, or have no label")
    lines += [f"unreadable: {len(found.problems)}", *(f"  {problem}" for problem in found.problems[:_SHOWN])]
    if len(found.problems) > _SHOWN:
        lines.append(f"  and {len(found.problems) - _SHOWN} more")
    kind = "a sample of" if len(found.files) > SAMPLE else "all that can be decoded:"
    lines += [*found.notes, f"mean and std are of {kind} {found.sample:,} images"]
    lines = [printable(line) for line in "\n".join(lines).split("\n")]
    settings = settings_of(found)
    words = [as_word(f"data.{key}", value) for key, value in settings.items() if key != "dataset"]
    data = yaml.safe_dump({"data": settings}, default_flow_style=None, sort_keys=False, allow_unicode=True, width=1000)
    return [*lines, "", *data.splitlines(), "", f"next: {shlex.join(['solo', 'pretrain', 'custom', 'hex', *words])}"]


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


def _most(counter: Counter[Any]) -> str:
    named = [
        (" x ".join(map(str, key)) if isinstance(key, tuple) else key, n) for key, n in counter.most_common(_SHOWN)
    ]
    shown = [f"{name} ({n:,})" for name, n in named]
    return ", ".join(shown) + (f" and {len(counter) - _SHOWN} more" if len(counter) > _SHOWN else "")
