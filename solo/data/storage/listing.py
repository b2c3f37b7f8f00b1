"""What lies where a user's own images are: every image, and the words that say what it shows. No torch."""

import csv
import functools
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solo.data.storage import containers
from solo.data.storage.facts import Parts, Problems, Stored, image_folders, is_image_name
from solo.errors import UserError, did_you_mean, explained, some
from solo.files import parse_json

Table = dict[str, list[str]]


@dataclass(frozen=True)
class Listing:
    """Images in an order that doesn't change."""

    images: list[Any]  # paths, or images inside of larger files
    rows: list[Parts]  # of each image the cells of the label columns, coarse first, or the folders that it lies in
    columns: Parts | None = None  # names of these columns; None: folders say it
    path_column: str | None = None  # of a table or hub, the column with the images
    problems: Problems = field(default_factory=Problems)  # what can't be read, and what was left out


@dataclass(frozen=True)
class Wanted:
    """Which images and labels are asked for."""

    train: bool = True  # the training images of what has several splits, else the validation images
    path_column: str | None = None  # with the images; None: the one that has some
    label_columns: Sequence[str] | None = None  # coarse first; None: the only one that may be meant
    skip: bool = False  # whether what can't be read is left out


def list_images(form: str, path: str | Path | None, wanted: Wanted | None = None) -> Listing:
    """The images of `data.format=form`, at least one; a folder's stand in their own order of folders and names."""
    if not path:
        raise UserError(f"data.train_path is not set; give the file, folder or name for data.format={form}")
    return READERS[form](Path(path), wanted or Wanted())


def _folder(root: Path, wanted: Wanted) -> Listing:
    found = Listing([], [], problems=Problems(wanted.skip))
    for parts, names in image_folders(root, found.problems):
        found.images.extend(os.path.join(root, *parts, name) for name in names)
        found.rows.extend([parts] * len(names))
    return found


def _table(path: Path, wanted: Wanted) -> Listing:
    file = path.expanduser()
    table = read_table(file)
    column, columns = table_columns(table, file, wanted.path_column, wanted.label_columns)
    images = [str(file.parent / Path(name).expanduser()) for name in table[column]]
    return Listing(images, _rows(table, columns, len(images)), tuple(columns), column)


def _shards(path: Path, wanted: Wanted) -> Listing:
    problems = Problems(wanted.skip)
    samples = list(containers.read_shards(path, problems).values())
    cells: list[dict[str, Any]] = []
    for sample in samples if wanted.label_columns != [] else ():
        cells.append({})
        for extension, member in sample.items():
            if extension == ".cls":
                cells[-1]["cls"] = member.read().decode(errors="replace").strip()
            elif extension == ".json":
                with explained(f"{member} is no JSON", "correct it, or take it out", ValueError):
                    content = parse_json(member.read())
                fields = content.items() if isinstance(content, dict) else ()
                cells[-1].update({name: value for name, value in fields if isinstance(value, (str, int, float))})
    table = _columns_of(cells)
    likely = ["cls"] if "cls" in table else list(table)
    columns = _labels(table, wanted.label_columns, likely, path)
    # The first of several images is the one.
    images = [next(sample[extension] for extension in sample if is_image_name(extension)) for sample in samples]
    return Listing(images, _rows(table, columns, len(images)), tuple(columns), problems=problems)


def _hub(path: Path, wanted: Wanted) -> Listing:
    name = str(path)
    data = containers.read_hub(name, wanted.train)
    kinds = {column: type(feature).__name__ for column, feature in data.features.items()}
    pictures = [column for column, kind in kinds.items() if kind == "Image"]
    column = wanted.path_column or next(iter(pictures), None)
    if column is None or column not in pictures:
        what = f"data.path_column={column!r} holds no images" if column else f"{name} has no column of images"
        raise UserError(f"{what}; of its columns {', '.join(kinds)} these do: {', '.join(pictures) or 'none'}")
    likely = [column for column, kind in kinds.items() if kind == "ClassLabel"] or [c for c in kinds if c == "label"]
    columns = _labels(kinds, wanted.label_columns, likely, name)
    table = {column: _hub_labels(data, column) for column in columns}
    encoded = data.cast_column(column, type(data.features[column])(decode=False)).select_columns([column])
    images = [
        # By its fingerprint the package knows data that are the same.
        Stored(f"{name}#{row}", None, f"{encoded._fingerprint} {row}", _hub_bytes, (encoded, row))
        for row in range(len(encoded))
    ]
    return Listing(images, _rows(table, columns, len(images)), tuple(columns), column)


def _hub_labels(data: Any, column: str) -> list[str]:
    """Names of classes where the column has some, nothing for null and -1."""
    names = getattr(data.features[column], "names", None)
    cells = data.select_columns([column])[column][:]
    if names:
        return ["" if cell is None or cell < 0 else names[cell] for cell in cells]
    return [json.dumps(cell) if isinstance(cell, (list, dict)) else _as_text(cell) for cell in cells]


def _hub_bytes(data: Any, row: int) -> bytes:
    """The bytes of the image file in the only column of a data set; none where the row has no image."""
    (cell,) = data[row].values()
    bytes_, path = ((cell or {}).get(key) for key in ("bytes", "path"))
    return bytes_ or (Path(path).read_bytes() if path and os.path.isfile(path) else b"")


def _h5(path: Path, wanted: Wanted) -> Listing:
    file = containers.H5File(path.expanduser())
    found = [(name, image) for name, images in containers.read_index(file.path).items() for image in images]
    return Listing([file.image(f"{name}/{image}") for name, image in found], [(name,) for name, _ in found])


READERS = {"image_folder": _folder, "table": _table, "webdataset": _shards, "hf": _hub, "h5": _h5}
WITH_COLUMNS = ("table", "webdataset", "hf")  # what holds images and columns of labels


def read_table(path: str | Path) -> Table:
    """All columns of a file as texts, of equal length; an empty text where there is nothing."""
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise UserError(f"the table {file} {what}; data.format=table needs a file: {', '.join(_TABLES)}")
    return _read_table(file, os.path.getsize(file), file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read_table(file: Path, size: int, changed_ns: int) -> Table:
    """Asked for by the check, and for each split; a large table takes seconds."""
    kind = file.suffix.lower()
    if kind not in _TABLES:
        raise UserError(f"the table {file} is of no known kind; its name must end in {', '.join(_TABLES)}")
    kinds = (ValueError, OSError, csv.Error, TypeError, AttributeError)
    with explained(f"the table {file} can't be read as {kind[1:]}", "correct it, or write it as UTF-8", *kinds):
        table = _TABLES[kind](file)
    if not table or not next(iter(table.values())):
        raise UserError(f"the table {file} has no rows")
    return table


def _csv(file: Path) -> Table:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        head = stream.readline()
        stream.seek(0)
        delimiter = max("\t,;", key=head.count)
        rows = [row for row in csv.reader(stream, delimiter=delimiter, strict=True) if row]
    names = [name.strip() for name in rows[0]] if rows else []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise ValueError(f"row {number} has {len(row)} cells, the header {len(names)}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two columns are named {twice[0]!r}")
    return {name: [row[i].strip() for row in rows[1:]] for i, name in enumerate(names)}


def _json(file: Path) -> Table:
    text = file.read_text(encoding="utf-8-sig")
    lines = file.suffix.lower() == ".jsonl"  # a text may hold other ends of lines
    data = [parse_json(line) for line in text.split("\n") if line.strip()] if lines else parse_json(text)
    if isinstance(data, dict):
        if len({len(column) for column in data.values()}) > 1:
            raise ValueError("its columns differ in length")
        return {str(name): [_as_text(cell) for cell in column] for name, column in data.items()}
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise ValueError('each row has to be an object, as in [{"path": "a.png", "label": "cat"}]')
    return _columns_of(data)


def _parquet(file: Path) -> Table:
    cure = 'pip install "solo-hex[parquet]", or store the table as CSV'
    with explained(f"reading {file} needs pyarrow", cure, ImportError):
        from pyarrow import parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    columns = parquet.read_table(file).to_pydict()
    return {str(name): [_as_text(cell) for cell in cells] for name, cells in columns.items()}


_TABLES = {".csv": _csv, ".tsv": _csv, ".json": _json, ".jsonl": _json, ".parquet": _parquet}


def _as_text(cell: Any) -> str:
    """A label as a text: nothing for null and NaN, whole numbers without a point."""
    if cell is None or cell != cell:  # NaN is not itself
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Rows as columns of texts, which are empty where a row doesn't have them."""
    return {name: [_as_text(row.get(name)) for row in rows] for name in dict.fromkeys(n for row in rows for n in row)}


def table_columns(
    table: Mapping[str, Sequence[str]], file: Path, path_column: str | None, label_columns: Sequence[str] | None
) -> tuple[str, list[str]]:
    """Which column holds the paths, by default the first that begins with an image, and which ones the labels."""
    _require(table, () if path_column is None else (path_column,), "path_column", file)
    path_column = path_column or next((name for name, cells in table.items() if is_image_name(cells[0])), None)
    if path_column is None:
        raise UserError(f"{file} has no column of image files; set data.path_column to one of {some(table, 20)}")
    if is_image_name(path_column):
        raise UserError(f"{file} has no header: it begins with {path_column}; add a first row with the columns' names")
    labels = _labels(table, label_columns, [name for name in table if name != path_column], file)
    for name in labels:
        cells = [cell for cell in table[name] if cell]
        if cells and all(cell[0] + cell[-1] in ("[]", "{}") for cell in cells):
            raise UserError(f"{file}: {name!r} holds lists, such as {cells[0][:40]}; give a column for each level")
    return path_column, labels


def _labels(
    names: Collection[str], wanted: Sequence[str] | None, likely: Sequence[str], where: str | Path
) -> list[str]:
    """The columns of labels, coarse first: the wanted ones, which are there, else the only likely one, if any."""
    _require(names, wanted or (), "label_columns", where)
    if wanted is None and len(likely) > 1:
        what = f"{where} has several columns that may be labels: {some(likely, 20)}"
        raise UserError(f"{what}; set data.label_columns to those that are, coarse first (or to [])")
    return list(likely if wanted is None else wanted)


def _rows(table: Mapping[str, Sequence[str]], columns: Sequence[str], count: int) -> list[Parts]:
    return list(zip(*(table[name] for name in columns), strict=True)) or [()] * count


def _require(names: Collection[str], wanted: Sequence[str], key: str, where: str | Path) -> None:
    for column in wanted:
        if column not in names:
            hint, there = did_you_mean(column, names), some(names, 20) or "no labels"
            raise UserError(f"data.{key}: {where} has no column {column!r}; {hint}it has {there}")
