"""Features that a network has computed, kept on disk under a hash of all that they depend on."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Dataset

from solo.data.cache.images import pixels_in_memory
from solo.data.labels.subsets import Subset, level_targets
from solo.data.sources.skip import image_sources
from solo.data.storage.stored import identity
from solo.errors import UserError
from solo.eval.feature_file import read_features, write_features
from solo.eval.features import Features
from solo.files import user_cache
from solo.run.report import say

_FORMAT = 1


def cache_folder(given: str | None) -> Path:
    """The folder of kept features."""
    return Path(given).expanduser() if given else user_cache() / "features"


def digest(network: nn.Module | None, images: Dataset[Any], settings: Mapping[str, Any]) -> str:
    """A name for the features of `images`: equal weights, architecture, images and settings give the same.

    Of images names, sizes and dates of files count, or pixels in memory, and the labels.
    """
    text = hashlib.sha256(json.dumps([_FORMAT, dict(settings)], sort_keys=True, default=str).encode())
    text.update(repr(network).encode())
    for name, value in network.state_dict().items() if network else ():
        text.update(name.encode())
        text.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).data)
    _add_images(text, images)
    return text.hexdigest()[:24]


def _add_images(text: Any, images: Any) -> None:
    text.update(level_targets(images).numpy().tobytes())
    while isinstance(images, Subset):
        text.update(np.array(images.indices).tobytes())
        images = images.dataset
    pixels = pixels_in_memory(images)
    if pixels is not None:
        text.update(np.ascontiguousarray(pixels).data)
        return
    for source in image_sources(images) or [str(getattr(images, "path", getattr(images, "root", "")))]:
        text.update(b"\n" + os.fsencode(identity(source)))


def kept(file: Path) -> Features | None:
    """What an earlier command left in `file`; None if there is nothing, or nothing that can be read."""
    if not file.is_file():
        return None
    try:
        return read_features(file)
    except UserError as error:
        say(f"computed anew: {error}")
        return None


def keep(file: Path, features: Features) -> None:
    """Leave features for the next command; a full disk or a read-only folder is said, and stops nothing."""
    try:
        write_features(file, features)
    except (UserError, OSError) as error:
        say(f"the features are not kept: {error}; cache_dir=FOLDER takes another place, cache=false is silent")
