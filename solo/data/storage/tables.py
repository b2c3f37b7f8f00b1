"""Tables of image paths and labels: CSV, TSV, JSON, JSON lines, Parquet. Columns of text; no torch."""

import csv
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.data.storage.folders import is_image_name
from solo.errors import UserError, reason
from solo.suggest import did_you_mean
from solo.untrusted import parse_json

Table = dict[str, list[str]]

TABLE_EXTENSIONS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


def read_table(path: str | Path) -> Table:
    """All columns of a file as texts, of equal length; an empty text where there is nothing."""
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise UserError(f"the table {file} {what}; data.format=table needs a file: {', '.join(TABLE_EXTENSIONS)}")
    stat = file.stat()
    return _read(file, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read(file: Path, size: int, changed_ns: int) -> Table:
    """Asked for by the check, and for each split; a large table takes seconds."""
    readers = {".json": _json, ".jsonl": _json, ".parquet": _parquet, ".csv": _csv, ".tsv": _csv}
    kind = file.suffix.lower()
    if kind not in readers:
        raise UserError(f"the table {file} is of no known kind; its name must end in {', '.join(TABLE_EXTENSIONS)}")
    try:
        table = readers[kind](file)
    except (ValueError, OSError, csv.Error, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        remedy = "; write it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise UserError(f"the table {file} can't be read as {kind[1:]} ({reason(error)}){remedy}") from error
    if not table or not next(iter(table.values())):
        raise UserError(f"the table {file} has no rows")
    return table


def table_columns(
    table: Mapping[str, Sequence[str]], file: Path, path_column: str | None, label_columns: Sequence[str] | None
) -> tuple[str, list[str]]:
    """Which column holds the paths, and which ones the labels, coarse first.

    Not given, the paths are in the first column whose first value ends like an image file, and the labels in the only
    other column; no other column means no labels. Raises a `UserError`: a column isn't there, or there are several to
    choose from.
    """
    if path_column is not None:
        _require(table, [path_column], "path_column", file)
    else:
        path_column = next((name for name, cells in table.items() if is_image_name(cells[0])), None)
    if path_column is None:
        raise UserError(f"{file} has no column of image files; set data.path_column to one of {_some(table)}")
    if is_image_name(path_column):
        raise UserError(f"{file} has no header: it begins with {path_column}; add a first row with the columns' names")
    others = [name for name in table if name != path_column]
    labels = choose_labels(list(table), label_columns, others, file)
    for name in labels:
        cells = [cell for cell in table[name] if cell]
        if cells and all(cell[0] + cell[-1] in ("[]", "{}") for cell in cells):
            raise UserError(f"{file}: {name!r} holds lists, such as {cells[0][:40]}; give a column for each level")
    return path_column, labels


def choose_labels(
    names: Sequence[str], wanted: Sequence[str] | None, likely: Sequence[str], where: str | Path
) -> list[str]:
    """The columns of labels, coarse first: the wanted ones, which are there, else the only likely one, if any."""
    _require(names, wanted or (), "label_columns", where)
    if wanted is None and len(likely) > 1:
        what = f"{where} has several columns that may be labels: {_some(likely)}"
        raise UserError(f"{what}; set data.label_columns to those that are, coarse first (or to [])")
    return list(likely if wanted is None else wanted)


def _require(names: Collection[str], wanted: Sequence[str], key: str, where: str | Path) -> None:
    for column in wanted:
        if column not in names:
            hint, there = did_you_mean(column, names), _some(names) or "no labels"
            raise UserError(f"data.{key}: {where} has no column {column!r}; {hint}it has {there}")


def _some(names: Collection[str]) -> str:
    more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
    return ", ".join(name[:60] for name in list(names)[:20]) + more


def _csv(file: Path) -> Table:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        head = stream.readline()
        stream.seek(0)
        delimiter = max("\t,;", key=head.count)
        rows = [row for row in csv.reader(stream, delimiter=delimiter, strict=True) if row]
    header, body = (rows[0], rows[1:]) if rows else ([], [])
    uneven = next((n for n, row in enumerate(body, start=2) if len(row) != len(header)), None)
    if uneven is not None:
        raise ValueError(f"row {uneven} has {len(body[uneven - 2])} cells, the header {len(header)}")
    names = [name.strip() for name in header]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"two columns are named {twice[0]!r}")
    return {name: [row[i].strip() for row in body] for i, name in enumerate(names)}


def _json(file: Path) -> Table:
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix.lower() == ".jsonl":  # a text may hold other ends of lines
        return _records([parse_json(line) for line in text.split("\n") if line.strip()])
    data = parse_json(text)
    if isinstance(data, dict):
        if len({len(column) for column in data.values()}) > 1:
            raise ValueError("its columns differ in length")
        return {str(name): [as_text(cell) for cell in column] for name, column in data.items()}
    return _records(data)


def _records(rows: Sequence[Mapping[str, Any]]) -> Table:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError('each row has to be an object, as in [{"path": "a.png", "label": "cat"}]')
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [as_text(row.get(name)) for row in rows] for name in names}


def _parquet(file: Path) -> Table:
    try:
        from pyarrow import parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        extra = 'pip install "solo-hex[parquet]"'
        raise UserError(f"reading {file} needs pyarrow ({extra}); or store the table as CSV") from None
    columns = parquet.read_table(file).to_pydict()
    return {str(name): [as_text(cell) for cell in cells] for name, cells in columns.items()}


def as_text(cell: Any) -> str:
    """A cell as a text: nothing for null and NaN, whole numbers without a point."""
    if cell is None or cell != cell:  # NaN is not itself
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
