"""`solo inspect PATH`: what is in a folder or table of images, and the settings that train on it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from solo.args.words import LineParser
from solo.data.sources.survey import SAMPLE, Survey, contact_sheet, look
from solo.errors import UserError

_SHOWN = 5


def main(words: Sequence[str]) -> int:
    """Look, print, write the contact sheet.

    Args:
        words: the command line behind `solo inspect`.

    Raises:
        UserError: there is nothing to look at, or the sheet can't be written.
    """
    parser = _parser()
    if {"-h", "--help"} & set(words):
        parser.print_help()
        return 0
    given = parser.parse_args(list(words))
    screen = Console(soft_wrap=True, highlight=False)

    def progress(items: Iterable[Any], what: str, length: int) -> Iterable[Any]:
        return track(items, what, total=length, console=screen, transient=True, disable=not screen.is_terminal)

    found = look(given.path, progress, given.label_columns)
    sheet = Path(given.sheet).expanduser()
    try:
        contact_sheet(found.files, found.classes, found.channels).save(sheet)
    except (OSError, ValueError) as error:
        raise UserError(f"--sheet {sheet} can't be written ({error}); give the path of a .png file") from error
    screen.print("\n".join([*describe(found), f"contact sheet: {sheet}"]), markup=False)
    return 0


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
            lines.append(
                f"{unlabelled:,} images have no class: they lie above the class folders, or their label is empty"
            )
    else:
        lines.append("no labels")
    lines.append(f"unreadable: {len(found.problems)}")
    lines += [f"  {problem}" for problem in found.problems[:_SHOWN]]
    if len(found.problems) > _SHOWN:
        lines.append(f"  and {len(found.problems) - _SHOWN} more")
    kind = "a sample of" if len(found.files) > SAMPLE else "all that can be decoded:"
    lines.append(f"mean and std are of {kind} {found.sample:,} images")
    return [*lines, "", *_yaml(found), ""]


def _yaml(found: Survey) -> list[str]:
    settings = {**found.settings, "channels": found.channels, "mean": found.mean, "std": found.std}
    if len(found.sizes) == 1 and max(next(iter(found.sizes))) < 224:
        settings["image_size"] = max(next(iter(found.sizes)))
    if found.problems:
        settings["on_error"] = "skip"
    return ["data:", *(f"  {key}: {str(value).lower() if value is True else value}" for key, value in settings.items())]


def _most(counter: Counter[Any]) -> str:
    shown = [
        f"{' x '.join(map(str, key)) if isinstance(key, tuple) else key} ({n:,})"
        for key, n in counter.most_common(_SHOWN)
    ]
    return ", ".join(shown) + (f" and {len(counter) - _SHOWN} more" if len(counter) > _SHOWN else "")


def _parser() -> argparse.ArgumentParser:
    parser = LineParser(prog="solo inspect", description=__doc__)
    parser.add_argument("path", help="a folder of images, or a table (csv, tsv, json, jsonl, parquet) with their paths")
    parser.add_argument("--label-columns", nargs="+", help="columns of a table that hold labels, coarse first")
    parser.add_argument("--sheet", default="contact_sheet.png", help="where the picture of some images is written")
    return parser
