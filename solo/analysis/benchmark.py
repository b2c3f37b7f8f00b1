"""The table of `solo benchmark`: runs beside each other on the same images, as Markdown, HTML and JSON."""

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from solo.analysis.pages import Written
from solo.errors import UserError, reason
from solo.eval.intervals import Paired, holm, paired_images

Array = np.ndarray[Any, np.dtype[Any]]
_UNKNOWN = 255


@dataclass(frozen=True)
class Entry:
    """What one protocol says of one run at one level of a data set."""

    data: str
    protocol: str
    level: str
    run: str
    images: int
    accuracy: float  # percent
    interval: tuple[float, float] | None  # 95 %, over the choice of the images
    difference: Paired | None  # to the first run, in points, image by image; None of it and of other images
    p_holm: float  # of no difference, by the sign test, corrected for all comparisons of the table


def packed(hits: Array, draws: int) -> str:
    """Shares of draws (n,), NaN unknown, as text; `draws` are below 255."""
    counts = np.where(np.isnan(hits), _UNKNOWN, np.rint(np.nan_to_num(hits) * draws)).astype(np.uint8)
    return base64.b64encode(zlib.compress(counts.tobytes(), 9)).decode()


def unpacked(text: str, draws: int) -> Array:
    """The values that `packed` was given; a `UserError` if they are damaged."""
    try:
        counts = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    except (ValueError, TypeError, zlib.error) as error:
        text = f"the hits of a row are damaged ({reason(error)}); take its line out, it is done again"
        raise UserError(text) from error
    return np.where(counts == _UNKNOWN, math.nan, counts / draws)


def compare(rows: Sequence[Mapping[str, Any]]) -> tuple[Entry, ...]:
    """The rows of cells, those of the first run of each data set and protocol first, with differences to it."""
    found: list[Entry] = []
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        base = first.setdefault((row["data"], row["protocol"]), row)
        for level, numbers in row["levels"].items():
            step = None
            if base is not row and base["labels"] == row["labels"] and level in base["levels"]:
                mine, other = (unpacked(one["levels"][level]["hits"], one["draws"]) for one in (row, base))
                steps = 100 * (mine - other)[~np.isnan(mine)]
                step = paired_images(steps.tolist(), 100) if len(steps) else None
            ends = tuple(numbers["ci"]) if numbers["ci"] else None
            which = (row["data"], row["protocol"], level, row["run"])
            found.append(Entry(*which, numbers["images"], numbers["accuracy"], ends, step, math.nan))
    corrected = holm([entry.difference.sign_p if entry.difference else math.nan for entry in found])
    return tuple(Entry(**{**vars(one), "p_holm": p_value}) for one, p_value in zip(found, corrected, strict=True))


def table(entries: Sequence[Entry]) -> list[list[str]]:
    """Heading and rows: a row for each data set, protocol and level, a column for each run, differences behind."""
    runs = list(dict.fromkeys(entry.run for entry in entries))
    lines: dict[tuple[str, ...], dict[str, Entry]] = {}
    for entry in entries:
        lines.setdefault((entry.data, entry.protocol, entry.level, f"{entry.images:,}"), {})[entry.run] = entry
    heading = ["data", "protocol", "level", "images", *runs[:1]]
    for run in runs[1:]:
        heading += [run, f"difference to {runs[0]} [95 %], p"]
    rows = []
    for which, of_run in lines.items():
        cells = [*which]
        for place, run in enumerate(runs):
            one = of_run.get(run)
            ends = f" [{one.interval[0]:.1f}, {one.interval[1]:.1f}]" if one and one.interval else ""
            cells.append(f"{one.accuracy:.2f}{ends}" if one else "")
            if place:
                cells.append(f"{one.difference}, {one.p_holm:.2g}" if one and one.difference else "")
        rows.append(cells)
    return [heading, *rows]


def write(rows: Sequence[Mapping[str, Any]], folder: Path, command: str, remarks: Sequence[str]) -> list[str]:
    """Write `report.md`, `report.html` and `report.json`; their names."""
    entries = compare(rows)
    count = sum(entry.difference is not None for entry in entries)
    said = [
        "Accuracy in percent with its 95 % interval over the choice of the images that are measured; differences are "
        "taken image by image, with Wald's interval, as if two images differed at least; p is that of the sign test "
        f"(for single draws McNemar's exact one), corrected for the {count} comparisons of this table (Holm). "
        "Neither speaks of other training seeds, nor of other draws of few training images.",
        *remarks,
    ]
    plain = {"command": command, "remarks": said, "entries": [asdict(entry) for entry in entries]}
    return Written("Benchmark", command, {"": table(entries)}, said).write(folder, plain)
