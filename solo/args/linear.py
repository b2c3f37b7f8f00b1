"""`parse_cfg` for linear evaluation and finetuning, under solo-learn's names."""

from __future__ import annotations

from omegaconf import DictConfig

from solo.args.contract import (
    _N_CLASSES_PER_DATASET,
    _SUPPORTED_DATASETS,
    add_and_assert_dataset_cfg,
    add_and_assert_lightning_cfg,
    add_and_assert_wandb_cfg,
)
from solo.args.parse import parse_dict_config
from solo.args.schema import LinearCfg

__all__ = [
    "_N_CLASSES_PER_DATASET",
    "_SUPPORTED_DATASETS",
    "add_and_assert_dataset_cfg",
    "add_and_assert_lightning_cfg",
    "add_and_assert_wandb_cfg",
    "parse_cfg",
]


def parse_cfg(cfg: DictConfig) -> DictConfig:
    """Check and complete `cfg` in place and return it; a second call changes nothing.

    Raises:
        ParseError: (a `ConfigError` and an `AssertionError`) with all problems, one a line.
    """
    return parse_dict_config(cfg, LinearCfg)
