"""Data sets of Hugging Face's `datasets`: by their name on the hub, or in a folder. No torch."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.data.storage.stored import Stored
from solo.data.storage.tables import as_text
from solo.errors import UserError, reason

_VALIDATION = ("validation", "valid", "val", "test")
_SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves
_LOADED: set[str] = set()
_EXTRA = 'data.format=hf needs the package datasets; pip install "solo-hex[hf]"'


@functools.lru_cache(maxsize=8)
def read_hub(path: str, train: bool = True) -> Any:
    """A split as a `datasets.Dataset`: `train`, else `validation`, or `test` where there is none.

    The path is a name on the hub, a folder that `load_dataset` knows (Parquet files, images), or one that
    `save_to_disk` wrote; `:SPLIT` behind it chooses another split.
    """
    try:
        import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise UserError(_EXTRA) from error
    name, _, split = path.partition(":")
    folder = Path(name).expanduser()
    try:
        if any((folder / file).is_file() for file in _SAVED):
            data = datasets.load_from_disk(str(folder))
        else:
            data = datasets.load_dataset(str(folder) if folder.is_dir() else name)
    except Exception as error:  # whatever the package and its back ends raise
        raise UserError(f"datasets can't load {name} ({reason(error)}); give a name on the hub or a folder") from error
    _LOADED.add(path)
    if not isinstance(data, Mapping):
        return data
    wanted = [split] if split else ["train"] if train else list(_VALIDATION)
    found = next((name for name in wanted if name in data), None)
    if found is None:
        advice = f"add one of {', '.join(map(str, data))}: NAME:SPLIT"
        raise UserError(f"{path} has no split {' or '.join(wanted)}; {advice}")
    return data[found]


def is_here(path: str) -> bool:
    """Whether it can be read without a network: a folder, or what this process has loaded already."""
    return Path(path.partition(":")[0]).expanduser().is_dir() or path in _LOADED


def images(data: Any, column: str, name: str) -> list[Stored]:
    """The image of each row, not decoded."""
    encoded = data.cast_column(column, type(data.features[column])(decode=False)).select_columns([column])
    # By its fingerprint the package knows data that are the same.
    found = encoded._fingerprint
    return [Stored(f"{name}#{row}", None, f"{found} {row}", _image, (encoded, row)) for row in range(len(encoded))]


def _image(data: Any, row: int) -> bytes:
    """The bytes of the image file; none where the row has no image."""
    (cell,) = data[row].values()
    cell = cell or {}
    if cell.get("bytes") or not cell.get("path"):
        return cell.get("bytes") or b""
    try:
        return Path(cell["path"]).read_bytes()
    except OSError:
        return b""


def image_column(data: Any, path: str, wanted: str | None = None) -> str:
    """The column of the images: the wanted one, else the first of that type. Raises a `UserError`: there is none."""
    found = [name for name, feature in data.features.items() if type(feature).__name__ == "Image"]
    if wanted in found or (wanted is None and found):
        return wanted or found[0]
    what = f"data.path_column={wanted!r} holds no images" if wanted else f"{path} has no column of images"
    raise UserError(f"{what}; of its columns {', '.join(data.features)} these do: {', '.join(found) or 'none'}")


def likely_labels(data: Any) -> list[str]:
    """The columns that hold classes, else one called `label`."""
    classes = [name for name, feature in data.features.items() if type(feature).__name__ == "ClassLabel"]
    return classes or [name for name in data.features if name == "label"]


def label_table(data: Any, columns: Sequence[str]) -> dict[str, list[str]]:
    """Texts of these columns; the names of classes where they have some, nothing for null and -1."""
    table = {}
    for column in columns:
        names = getattr(data.features[column], "names", None)
        cells = data.select_columns([column])[column][:]
        if names:
            table[column] = ["" if cell is None or cell < 0 else names[cell] for cell in cells]
        else:
            table[column] = [json.dumps(cell) if isinstance(cell, (list, dict)) else as_text(cell) for cell in cells]
    return table
