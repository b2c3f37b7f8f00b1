"""Files of recipes as plain tables, each read once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo.args.harmless import read_small
from solo.args.origins import display
from solo.errors import ConfigError, reason


def read_table(path: Path) -> dict[str, Any]:
    """Of a file; empty if there is none. Raises a `ConfigError`: it is no table, or can't be read."""
    return _table_once(path, path.stat().st_mtime_ns) if path.is_file() else {}


@functools.lru_cache(maxsize=256)
def _table_once(path: Path, changed: int) -> dict[str, Any]:
    read_small(path)  # OmegaConf writes every alias out
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError, OSError) as error:
        raise ConfigError(f"{display(path)}: {reason(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{display(path)}: a table from names to settings is needed here")
    return content


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Tables in both are merged, other values replaced."""
    both = {
        k: merged(values[k], more[k])
        for k in values.keys() & more.keys()
        if isinstance(values[k], dict) and isinstance(more[k], dict)
    }
    return {**values, **more, **both}
