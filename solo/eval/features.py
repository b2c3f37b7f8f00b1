"""What every measure looks at: features with their labels, what is known of both, files of them, and their rows.

A file, `.npz`, `.pt` (weights only) or `.safetensors`, of any library, holds arrays under the names of the table in
docs/evaluate.md; `.safetensors` holds arrays only: its texts are in the metadata, as JSON.
"""

from __future__ import annotations

import json
import pickle
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from solo.errors import UserError, reason
from solo.files import check_zip, is_zip, parse_json, replacing
from solo.precision import at_least_float32
from solo.taxonomy import Taxonomy

Array = np.ndarray[Any, np.dtype[Any]]
ELEMENTS = 5_000_000  # numbers that are held at once, beside the features
ENDINGS = (".npz", ".pt", ".safetensors")
_MOST_CLASSES = 1_000_000
_TEXTS = ("levels", "tree", "unseen", "facts", "val_paths", "train_paths", "paths", "name", "kind")


@dataclass(frozen=True)
class FeatureTable:
    """Features of images, in their order, in CPU memory; a `UserError` if parts don't fit or features aren't finite."""

    features: Tensor  # (n, d) float32
    labels: Tensor  # (n, L) int64, a node number of each level, coarse first, -1 unknown; L = 0 without labels
    paths: tuple[str, ...] = ()  # file of each image, or empty where the images are no files

    def __post_init__(self) -> None:
        """Refuse what no measure could use, so that none has to look."""
        n = len(self.features)
        if self.features.ndim != 2 or not self.features.numel():
            raise UserError(f"features of shape {tuple(self.features.shape)} are no table; give (images, numbers)")
        if self.labels.ndim != 2 or len(self.labels) != n:
            raise UserError(f"labels of shape {tuple(self.labels.shape)} don't fit {n} features; give ({n}, levels)")
        if self.paths and len(self.paths) != n:
            raise UserError(f"{len(self.paths)} paths don't fit {n} features; give one for each, or none")
        # Nor may their lengths be infinite, or so small that no cosine can be told.
        lengths = torch.cat([part.norm(dim=1) for part in torch.split(self.features, 65536)])
        if small := int((self.features[lengths < 1e-12] != 0).any(dim=1).sum()):
            raise UserError(f"{small} of {n} features are shorter than 1e-12, and have no direction; scale them up")
        if broken := int((~lengths.isfinite()).sum()):
            raise UserError(f"{broken} of {n} features are not finite; the network or file that gave them is broken")

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, index: Tensor) -> FeatureTable:
        """Some of the rows: row numbers (m,), or a bool mask (n,)."""
        index = index.nonzero()[:, 0] if index.dtype == torch.bool else index
        paths = tuple(self.paths[row] for row in index.tolist()) if self.paths else ()
        return FeatureTable(self.features[index], self.labels[index], paths)


@dataclass(frozen=True)
class Features:
    """One model's features of one data set."""

    name: str  # of the model, for titles
    kind: str  # `backbone` (representation) or `projector` (projection)
    val: FeatureTable  # the images that are measured
    train: FeatureTable | None = None  # those that vote and that classifiers learn from; None if there are none
    levels: tuple[str, ...] = ()  # names of the columns of the labels, coarse first
    tree: Taxonomy | None = None  # column l of the labels holds nodes of its level l; None where they form none
    queries: Tensor | None = None  # (len(val),) bool, True for queries and False for the gallery, where there are such
    unseen: tuple[str, ...] = ()  # names of the finest level's classes that pretraining left out
    facts: Mapping[str, Any] = field(default_factory=dict)  # how the features came about, plain values for JSON

    def class_names(self, level: int) -> tuple[str, ...]:
        """Names of the classes of a level, by number."""
        if self.tree is not None:
            return self.tree.names[level]
        tables = [table for table in (self.train, self.val) if table is not None]
        return tuple(str(number) for number in range(max(int(x.labels[:, level].max()) for x in tables) + 1))


def infer_tree(labels: Tensor, levels: Sequence[str]) -> Taxonomy | None:
    """The tree, of numbers, that labels (n, L), coarse first, -1 unknown, form; None if a node has not one parent."""
    if not len(levels) or (labels.amax(dim=0) < 0).any():
        return None
    counts = (labels.amax(dim=0) + 1).tolist()
    parents = []
    for upper, lower, count in zip(labels.T, labels.T[1:], counts[1:], strict=False):
        known = (upper >= 0) & (lower >= 0)
        children, of = torch.unique(torch.stack([lower[known], upper[known]]), dim=1)
        # Each node from 0 on has one parent, so none is a number that no image has.
        if children.tolist() != list(range(count)) or (lower[upper < 0] >= 0).any():
            return None
        parents.append(tuple(of.tolist()))
    names = tuple(tuple(str(number) for number in range(count)) for count in counts)
    return Taxonomy(tuple(levels), names, tuple(parents))


def read_features(path: str | Path) -> Features:
    """Read a file of this module's layout; a `UserError` if it isn't there, can't be read, or holds something else."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"features={path} doesn't exist; give a file, {', '.join(ENDINGS)}")
    if file.suffix not in ENDINGS:
        raise UserError(f"features={path} is no file of features; its name must end in {', '.join(ENDINGS)}")
    try:
        held = _read(file)
        for name in ("tree", "facts"):
            if isinstance(held.get(name), str):
                held[name] = parse_json(held[name])
        return _features(held, file)
    except UserError as error:
        raise UserError(f"features={path}: {error}") from error
    except Exception as error:  # a broken file can make these readers raise almost anything
        raise UserError(f"features={path} can't be read ({reason(error)}); docs/evaluate.md describes it") from error


def write_features(path: Path, features: Features) -> None:
    """Write a `.safetensors`, `.npz` or `.pt` file that `read_features` reads; a `UserError` leaves none."""
    if path.suffix not in ENDINGS:
        raise UserError(f"{path} can't be written; its name must end in {', '.join(ENDINGS)}")
    arrays = {} if features.queries is None else {"val_queries": features.queries}
    texts: dict[str, Any] = {"levels": list(features.levels), "name": features.name, "kind": features.kind}
    texts |= {"facts": dict(features.facts), "unseen": list(features.unseen)}
    texts |= {} if features.tree is None else {"tree": features.tree.to_dict()}
    for split, table in (("val", features.val), ("train", features.train)):
        if table is not None:
            texts |= {f"{split}_paths": list(table.paths)} if table.paths else {}
            arrays |= {f"{split}_features": table.features, f"{split}_labels": table.labels}
    arrays = {name: array.contiguous() for name, array in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if path.suffix == ".pt":
            torch.save({**arrays, **texts}, temporary)
        elif path.suffix == ".npz":
            plain = {key: json.dumps(x) if isinstance(x, dict) else np.array(x) for key, x in texts.items()}
            with temporary.open("wb") as stream:
                np.savez(stream, **{key: x.numpy() for key, x in arrays.items()}, **plain)  # type: ignore[arg-type]
        else:
            from safetensors.torch import save_file

            written = {key: json.dumps(value) for key, value in texts.items()}
            save_file(arrays, temporary, written | {"checksum": _checksum(arrays, written)})


def _features(held: Mapping[str, Any], file: Path) -> Features:
    prefix = "" if "features" in held else "val_"
    if f"{prefix}features" not in held:
        raise UserError(f"there is no 'features' or 'val_features' in it, only {', '.join(sorted(held)) or 'nothing'}")
    val = _table(held, prefix)
    train = _table(held, "train_") if "train_features" in held else None
    count = val.labels.shape[1]
    if train is not None and (train.labels.shape[1] != count or train.features.shape[1] != val.features.shape[1]):
        both = (f"{tuple(x.features.shape)} with {x.labels.shape[1]} levels" for x in (train, val))
        raise UserError(f"training and validation features differ in their numbers or label levels: {', '.join(both)}")
    tree = Taxonomy.from_dict(held["tree"]) if held.get("tree") else None
    unnamed = ("class",) if count == 1 else tuple(f"level{i}" for i in range(count))
    levels = tuple(map(str, held.get("levels", ()))) or (tree.levels if tree else unnamed)
    if len(levels) != count or (tree is not None and tree.num_levels != count):
        raise UserError(f"{len(levels)} level names {levels} don't fit labels with {count} columns")
    labels = val.labels if train is None else torch.cat([train.labels, val.labels])
    if tree is None and count:
        tree = infer_tree(labels, levels)
    for level, nodes, column in zip(tree.levels, tree.names, labels.T, strict=True) if tree is not None else ():
        if int(column.max()) >= len(nodes):
            raise UserError(f"label {column.max()} of level {level!r} is not in the tree, which has {len(nodes)} there")
    queries = None if held.get(f"{prefix}queries") is None else torch.as_tensor(held[f"{prefix}queries"])
    if queries is not None and (len(queries) != len(val) or queries.dtype != torch.bool):
        raise UserError(f"{len(queries)} queries don't fit {len(val)} features; give one bool for each")
    name, kind = str(held.get("name", file.stem)), str(held.get("kind", "backbone"))
    facts = {"features": str(file), **held.get("facts", {})}
    return Features(name, kind, val, train, levels, tree, queries, tuple(held.get("unseen", ())), facts)


def _table(held: Mapping[str, Any], prefix: str) -> FeatureTable:
    found, labels = held[f"{prefix}features"], held.get(f"{prefix}labels")
    dtype = str(getattr(found, "dtype", "float"))
    if dtype.removeprefix("torch.")[0] not in "fbiu":
        raise UserError(f"{prefix}features are {dtype}; give numbers")
    features = torch.as_tensor(found).float()
    numbers = np.empty((len(features), 0), dtype=np.int64) if labels is None else np.asarray(labels)
    if numbers.dtype.kind not in "biu":
        raise UserError(f"{prefix}labels are {numbers.dtype}; give ints, -1 for unknown")
    if (odd := numbers[(numbers < -1) | (numbers >= _MOST_CLASSES)]).size:
        text = f"{prefix}labels hold {odd[0]}; number the classes from 0, below {_MOST_CLASSES:,}; unknown: -1"
        raise UserError(text)
    columns = torch.from_numpy(numbers.astype(np.int64))
    columns = columns[:, None] if columns.ndim == 1 else columns
    return FeatureTable(features, columns, tuple(str(path) for path in held.get(f"{prefix}paths", ())))


def _read(file: Path) -> dict[str, Any]:
    """Arrays and texts by their names."""
    if file.suffix == ".npz":
        check_zip(file)
        with np.load(file, allow_pickle=False) as archive:
            held: dict[str, Any] = dict(archive)
        return held | {name: held[name].tolist() for name in _TEXTS if name in held}
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as archive:
            held = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 (no mapping)
            texts = archive.metadata() or {}
        # Under its name, or what damage made of that.
        sums = [text for name, text in texts.items() if name not in _TEXTS and re.fullmatch("[0-9a-f]{8}", text)]
        if ("checksum" in texts or sums) and texts.get("checksum") != _checksum(held, texts):
            raise UserError("it is damaged, its checksum is wrong; compute the features again")
        return held | {name: parse_json(texts[name]) for name in _TEXTS if name in texts}
    if is_zip(file):
        check_zip(file, stored=True)
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError("it is damaged, or holds more than tensors and plain values; save these alone") from error
    if not isinstance(held, dict):
        raise UserError(f"it holds a {type(held).__name__}; save a dict")
    return {str(name): value for name, value in held.items()}


def _checksum(arrays: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Of names, numbers and texts; the format itself has none."""
    found = zlib.crc32(json.dumps({name: texts[name] for name in sorted(texts) if name != "checksum"}).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name].numpy())
        found = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), found)
        found = zlib.crc32(array.tobytes(), found)
    return f"{found:08x}"


def unit_rows(features: Tensor) -> Tensor:
    """Rows of length 1, half precision widened to float32: (..., D) -> (..., D); a zero row stays zero."""
    return F.normalize(at_least_float32(features), dim=-1)


def unit(rows: Array) -> Array:
    """`unit_rows` of an array (n, d), in float64."""
    return np.asarray(unit_rows(torch.from_numpy(np.asarray(rows, dtype=np.float64))))


def draw(count: int, most: int, seed: int = 0) -> Tensor:
    """All of `count` rows, or `most` of them drawn at random, ascending: (min(count, most),) indices."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def best_columns(similarity: Tensor, depth: int) -> Tensor:
    """Columns of the `depth` largest numbers of each row, in their order: (n, m) -> (n, depth)."""
    width = similarity.shape[1]
    if depth * 8 < width and width > 1000:
        return similarity.topk(depth, dim=1).indices
    if similarity.device.type != "cpu" or similarity.dtype != torch.float32:
        return similarity.sort(dim=1, descending=True, stable=True).indices[:, :depth]
    # NumPy sorts whole numbers ten times faster than PyTorch does rows with their places: here the number as one that
    # has its order, and below it the column.
    bits = (similarity + 0.0).contiguous().view(torch.int32)
    found = ((~(bits ^ ((bits >> 31) & 0x7FFFFFFF))).long() << 32 | torch.arange(width)).numpy()
    if depth < width // 2:
        found.partition(depth - 1, axis=1)
        found = found[:, :depth]
    found.sort(axis=1)
    return torch.from_numpy(found[:, :depth] & 0xFFFFFFFF)
