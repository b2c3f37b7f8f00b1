"""`parse_cfg` and the small functions around it, as `solo.args.pretrain` and `solo.args.linear` had them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from solo.args.check import ParseError, unknown
from solo.args.config import to_plain
from solo.args.fields import keys_of
from solo.args.parse import parse_dict_config, write_back
from solo.args.schema import LinearCfg, PretrainCfg
from solo.compat.keys import modernise
from solo.data.catalogue.registry import DATASETS

_N_CLASSES_PER_DATASET = {name: row.num_classes for name, row in DATASETS.items() if row.num_classes is not None}
_SUPPORTED_DATASETS = list(DATASETS)


def parse_pretrain(cfg: DictConfig) -> DictConfig:
    """Check and complete the config of a pretraining in place and return it; a second call changes nothing.

    Raises:
        ParseError: (a `ConfigError` and an `AssertionError`) with all problems, one a line.
    """
    return parse_dict_config(cfg, PretrainCfg)


def parse_linear(cfg: DictConfig) -> DictConfig:
    """`parse_pretrain` for linear evaluation and finetuning."""
    return parse_dict_config(cfg, LinearCfg)


def fill_defaults(cfg: DictConfig, schema: type, *names: str) -> DictConfig:
    """Write the schema's defaults into `cfg` where it has nothing, and return it.

    For configs that did not come through `parse_cfg`: older spellings are renamed, nothing is checked or required.

    Args:
        cfg: changed in place.
        schema: for example `PretrainCfg`.
        names: top-level keys to look at; none means all.
    """
    values = modernise(to_plain(cfg), own=keys_of(schema)).values
    filled = _filled(values, schema)
    write_back(cfg, {name: value for name, value in filled.items() if name in values or not names or name in names})
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


def add_and_assert_dataset_cfg(cfg: DictConfig) -> DictConfig:
    """Defaults of the `data` section.

    Raises:
        ParseError: (an `AssertionError`) if the data set is unknown.
    """
    name = cfg.data.dataset
    if name not in DATASETS:
        raise ParseError(f"data.dataset{unknown(name, DATASETS)}")
    return fill_defaults(cfg, PretrainCfg, "data")


def add_and_assert_wandb_cfg(cfg: DictConfig) -> DictConfig:
    """Defaults of the `wandb` section."""
    return fill_defaults(cfg, PretrainCfg, "wandb")


def add_and_assert_lightning_cfg(cfg: DictConfig) -> DictConfig:
    """Defaults of the keys for Lightning."""
    return fill_defaults(cfg, PretrainCfg, "seed", "resume_from_checkpoint", "strategy", "num_nodes")
