"""The schema's defaults in a `DictConfig` of a program, in place."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo.args.config import to_plain
from solo.args.fields import keys_of
from solo.compat.keys import modernise


def write_back(cfg: DictConfig, values: Mapping[str, Any]) -> None:
    """Make `cfg` hold exactly `values`."""
    OmegaConf.set_struct(cfg, False)
    for name in [name for name in cfg if name not in values]:
        cfg.pop(name)
    for name, value in values.items():
        cfg[name] = value


def fill_defaults(cfg: DictConfig, schema: type, *names: str) -> DictConfig:
    """Write the schema's defaults into `cfg`, in place, where it has nothing, and return it; of some keys, or all.

    For configs that did not come through `parse_cfg`: older spellings are renamed, nothing is checked or required.
    """
    values = modernise(to_plain(cfg), own=keys_of(schema)).values
    filled = _filled(values, schema)
    write_back(cfg, values | {name: filled[name] for name in names or filled})
    return cfg


def _filled(values: Any, schema: type) -> Any:
    if not isinstance(values, Mapping):
        return values
    filled = dict(values)
    for name, found in keys_of(schema).items():
        if found.section:
            filled[name] = _filled(filled.get(name) or {}, found.section)
        elif found.item and isinstance(filled.get(name), list):
            filled[name] = [_filled(entry, found.item) for entry in filled[name]]
        elif not found.required:
            filled.setdefault(name, copy.deepcopy(found.default))
    return filled
