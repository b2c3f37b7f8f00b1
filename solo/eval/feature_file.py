"""Saved features: `.npz`, `.pt` (weights only) or `.safetensors`, of any library.

A file holds arrays under these names; `val` is what is measured, a file without prefixes is that alone.

| name | what | |
|---|---|---|
| `val_features`, `train_features` or `features` | (n, d) numbers | `train_` may be missing |
| `val_labels`, `train_labels` or `labels` | (n,) or (n, L) ints, coarse level first, -1 unknown | may be missing |
| `val_paths`, `train_paths` or `paths` | n texts | may be missing |
| `val_queries` or `queries` | (n,) bools: query, or gallery | may be missing |
| `levels` | L texts, names of the columns | may be missing |
| `tree` | text, JSON of `Taxonomy.to_dict()` | may be missing |

`.safetensors` holds arrays only: its texts are in the metadata, as JSON.
"""

import json
import pickle
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solo.errors import UserError, reason
from solo.eval.features import Features, FeatureTable, infer_tree
from solo.files import replacing
from solo.taxonomy import Taxonomy
from solo.untrusted import check_zip, is_zip, parse_json

ENDINGS = (".npz", ".pt", ".safetensors")
_MOST_CLASSES = 1_000_000
_TEXTS = ("levels", "tree", "unseen", "facts", "val_paths", "train_paths", "paths", "name", "kind")


def read_features(path: str | Path) -> Features:
    """Read a file of this module's layout.

    Raises:
        UserError: it isn't there, can't be read, or does not hold features in that layout.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"features={path} doesn't exist; give a file, {', '.join(ENDINGS)}")
    if file.suffix not in ENDINGS:
        raise UserError(f"features={path} is no file of features; its name must end in {', '.join(ENDINGS)}")
    try:
        held = _READERS[file.suffix](file)
        return _features(held, file)
    except UserError as error:
        raise UserError(f"features={path}: {error}") from error
    except Exception as error:  # a broken file can make these readers raise almost anything
        raise UserError(f"features={path} can't be read ({reason(error)}); docs/evaluate.md describes it") from error


def write_features(path: Path, features: Features) -> None:
    """Write a `.safetensors`, `.npz` or `.pt` file that `read_features` reads; complete, or not at all.

    Raises:
        UserError: another ending, or the file can't be written.
    """
    arrays: dict[str, Tensor] = {}
    texts: dict[str, Any] = {"levels": list(features.levels), "name": features.name, "kind": features.kind}
    texts |= {"facts": dict(features.facts), "unseen": list(features.unseen)}
    if features.tree is not None:
        texts["tree"] = features.tree.to_dict()
    for split, table in (("val", features.val), ("train", features.train)):
        if table is None:
            continue
        arrays |= {f"{split}_features": table.features.contiguous(), f"{split}_labels": table.labels.contiguous()}
        if table.paths:
            texts[f"{split}_paths"] = list(table.paths)
    if features.queries is not None:
        arrays["val_queries"] = features.queries
    if path.suffix not in ENDINGS:
        raise UserError(f"{path} can't be written; its name must end in {', '.join(ENDINGS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        _WRITERS[path.suffix](temporary, arrays, texts)


def _features(held: Mapping[str, Any], file: Path) -> Features:
    prefix = "" if "features" in held else "val_"
    if f"{prefix}features" not in held:
        raise UserError(f"there is no 'features' or 'val_features' in it, only {', '.join(sorted(held)) or 'nothing'}")
    val = _table(held, prefix)
    train = _table(held, "train_") if "train_features" in held else None
    count = val.labels.shape[1]
    if train is not None and (train.labels.shape[1] != count or train.features.shape[1] != val.features.shape[1]):
        raise UserError(
            f"training and validation features differ in their numbers or label levels: {tuple(train.features.shape)} "
            f"with {train.labels.shape[1]} levels, {tuple(val.features.shape)} with {count}"
        )
    levels = tuple(str(level) for level in held.get("levels", ()))
    tree = Taxonomy.from_dict(_parsed(held["tree"])) if held.get("tree") else None
    unnamed = ("class",) if count == 1 else tuple(f"level{i}" for i in range(count))
    levels = levels or (tree.levels if tree else unnamed)
    if len(levels) != count or (tree is not None and tree.num_levels != count):
        raise UserError(f"{len(levels)} level names {levels} don't fit labels with {count} columns")
    labels = val.labels if train is None else torch.cat([train.labels, val.labels])
    if tree is None and count:
        tree = infer_tree(labels, levels)
    for level, name in enumerate(tree.levels if tree is not None else ()):
        most, nodes = int(labels[:, level].max()), len(tree.names[level]) if tree else 0
        if most >= nodes:
            raise UserError(f"label {most} of level {name!r} is not in the tree, which has {nodes} there")
    queries = held.get(f"{prefix}queries")
    if queries is not None and (len(queries) != len(val) or torch.as_tensor(queries).dtype != torch.bool):
        raise UserError(f"{len(queries)} queries don't fit {len(val)} features; give one bool for each")
    return Features(
        name=str(held.get("name", file.stem)),
        kind=str(held.get("kind", "backbone")),
        val=val,
        train=train,
        levels=levels,
        tree=tree,
        queries=None if queries is None else torch.as_tensor(queries).bool(),
        unseen=tuple(held.get("unseen", ())),
        facts={"features": str(file), **held.get("facts", {})},
    )


def _table(held: Mapping[str, Any], prefix: str) -> FeatureTable:
    found = held[f"{prefix}features"]
    if str(getattr(found, "dtype", "")).removeprefix("torch.")[:1] not in "fbiu":
        raise UserError(f"{prefix}features are {getattr(found, 'dtype', type(found).__name__)}; give numbers")
    features = torch.as_tensor(found).float()
    labels = held.get(f"{prefix}labels")
    if labels is None:
        columns = torch.empty(len(features), 0, dtype=torch.long)
    else:
        numbers = labels.numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if numbers.dtype.kind not in "biu":
            raise UserError(f"{prefix}labels are {numbers.dtype}; give ints, -1 for unknown")
        odd = numbers[(numbers.astype(np.float64) < -1) | (numbers.astype(np.float64) >= _MOST_CLASSES)]
        if odd.size:
            raise UserError(
                f"{prefix}labels hold {odd[0]}; number the classes from 0, below {_MOST_CLASSES:,}; unknown: -1"
            )
        columns = torch.from_numpy(numbers.astype(np.int64))
        columns = columns[:, None] if columns.ndim == 1 else columns
    return FeatureTable(features, columns, tuple(str(path) for path in held.get(f"{prefix}paths", ())))


def _parsed(text: Any) -> Any:
    return parse_json(text) if isinstance(text, str) else text


def _read_npz(file: Path) -> dict[str, Any]:
    check_zip(file)
    with np.load(file, allow_pickle=False) as archive:
        held: dict[str, Any] = dict(archive)
    for name in _TEXTS:
        if name in held:
            texts = held[name].tolist()
            held[name] = _parsed(texts) if name in ("tree", "facts") else texts
    return held


def _write_npz(file: Path, arrays: Mapping[str, Tensor], texts: Mapping[str, Any]) -> None:
    plain = {name: json.dumps(value) if isinstance(value, dict) else np.array(value) for name, value in texts.items()}
    with file.open("wb") as stream:
        np.savez(stream, **{name: array.numpy() for name, array in arrays.items()}, **plain)  # type: ignore[arg-type]


def _read_pt(file: Path) -> dict[str, Any]:
    if is_zip(file):
        check_zip(file, stored=True)
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError("it is damaged, or holds more than tensors and plain values; save these alone") from error
    if not isinstance(held, dict):
        raise UserError(f"it holds a {type(held).__name__}; save a dict")
    return {str(name): value for name, value in held.items()}


def _write_pt(file: Path, arrays: Mapping[str, Tensor], texts: Mapping[str, Any]) -> None:
    torch.save({**arrays, **texts}, file)


def _read_safetensors(file: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(file, "pt") as archive:
        held: dict[str, Any] = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 (no mapping)
        texts = archive.metadata() or {}
    # Under its name, or what damage made of that.
    sums = [text for name, text in texts.items() if name not in _TEXTS and re.fullmatch("[0-9a-f]{8}", text)]
    if ("checksum" in texts or sums) and texts.get("checksum") != _checksum(held, texts):
        raise UserError("it is damaged, its checksum is wrong; compute the features again")
    return held | {name: parse_json(texts[name]) for name in _TEXTS if name in texts}


def _write_safetensors(file: Path, arrays: Mapping[str, Tensor], texts: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    written = {name: json.dumps(value) for name, value in texts.items()}
    save_file(dict(arrays), file, written | {"checksum": _checksum(arrays, written)})


def _checksum(arrays: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Of names, numbers and texts; the format itself has none."""
    found = zlib.crc32(json.dumps({name: texts[name] for name in sorted(texts) if name != "checksum"}).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name].numpy())
        found = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), found)
        found = zlib.crc32(array.tobytes(), found)
    return f"{found:08x}"


_READERS = {".npz": _read_npz, ".pt": _read_pt, ".safetensors": _read_safetensors}
_WRITERS = {".npz": _write_npz, ".pt": _write_pt, ".safetensors": _write_safetensors}
