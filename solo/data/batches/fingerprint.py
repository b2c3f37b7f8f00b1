"""What a run trains on, in a few bytes: a resumed run has to find the same images and labels again."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from solo.data.batches.loaders import SeededDataset
from solo.data.cache import pixels_in_memory
from solo.data.labels.subsets import Indexed, level_targets
from solo.data.sources.images import image_sources

_LOOK_AT = 20_000  # sizes of files that are asked for, evenly spread: on a network each may take a millisecond
_SHOWN = 5


@dataclass(frozen=True)
class Fingerprint:
    """Images and labels of a data set, wherever its folder lies."""

    digest: str  # changes with any name, label, or pixel in memory, and with the size of a file
    classes: dict[str, int]  # its number -> images
    lines: tuple[str, ...]  # for images in files, `class <tab> name <tab> size` of each, sorted; else empty

    def plain(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, in plain values."""
        return {"digest": self.digest, "classes": self.classes}

    def changes(self, classes: dict[str, int], lines: Sequence[str]) -> str:
        """In words, what is other than it was: the classes then, and the lines, empty where nobody knows."""
        found = [f"class {name} is new" for name in self.classes.keys() - classes.keys()]
        found += [f"class {name} is gone" for name in classes.keys() - self.classes.keys()]
        for name in sorted(self.classes.keys() & classes.keys()):
            if self.classes[name] != classes[name]:
                found.append(f"class {name} has {self.classes[name]} images instead of {classes[name]}")
        old, new = (dict(line.rpartition("\t")[::2] for line in side) for side in (lines, self.lines))
        changed = {name for name in new.keys() & old.keys() if new[name] != old[name]}
        kinds = {"added": new.keys() - old.keys(), "removed": old.keys() - new.keys(), "changed": changed}
        for what, names in kinds.items():
            if old and names:
                shown = ", ".join(name.partition("\t")[2] for name in sorted(names)[:_SHOWN])
                found.append(f"{len(names)} files {what} ({shown}{', ...' if len(names) > _SHOWN else ''})")
        return "; ".join(found) or "other images or labels"


def fingerprint(images: Any) -> Fingerprint | None:
    """Of a loader's data set, or the decoded images of one; None where nothing is known of it."""
    while isinstance(images, (SeededDataset, Indexed)):
        images = images.dataset
    known = getattr(images, "targets", None)
    if known is None and not hasattr(images, "dataset"):
        return None
    labels = known if isinstance(known, torch.Tensor) else level_targets(images)
    called = [str(leaf) for leaf in labels.reshape(len(labels), -1)[:, -1].tolist()]
    rows = np.arange(len(called))
    while True:
        rows = np.asarray(images.indices)[rows] if hasattr(images, "indices") else rows
        inner = getattr(images, "dataset", None)
        if inner is None or isinstance(inner, str):  # a folder knows the name of its data set
            break
        images = inner
    text = hashlib.sha256(labels.numpy().tobytes())
    lines: tuple[str, ...] = ()
    array = pixels_in_memory(images)
    if array is not None:
        text.update(np.ascontiguousarray(array[rows]).data)
    else:
        files = getattr(images, "files", None) or image_sources(images) or ()
        files = [files[row] for row in rows] if len(files) > len(rows) else files
        lines = tuple(sorted(f"{name}\t{line}" for name, line in zip(called, _described(files), strict=False)))
        text.update("\n".join(lines).encode(errors="surrogateescape"))
    return Fingerprint(text.hexdigest()[:32], dict(sorted(Counter(called).items())), lines)


def _described(files: Sequence[Any]) -> Iterator[str]:
    """`name <tab> size`; names are relative to the folder that all have in common."""
    paths = [file if isinstance(file, str) else str(file.container or "") for file in files]
    paths = [os.path.abspath(path) if path else "" for path in paths]  # a table may have both kinds
    folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if all(paths) and paths else ""
    size, every = lru_cache(maxsize=4096)(_size), max(1, len(files) // _LOOK_AT)
    for place, (file, path) in enumerate(zip(files, paths, strict=True)):
        part = "" if isinstance(file, str) else f" {file.part}"
        relative = os.path.relpath(path, folder) if folder else os.path.basename(path)
        yield f"{relative}{part}\t{size(path) if path and place % every == 0 else ''}"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
