"""`parse_cfg` for linear evaluation and finetuning, under solo-learn's names."""

from __future__ import annotations

from omegaconf import DictConfig

from solo.args.contract import _N_CLASSES_PER_DATASET as _N_CLASSES_PER_DATASET
from solo.args.contract import _SUPPORTED_DATASETS as _SUPPORTED_DATASETS
from solo.args.contract import add_and_assert_dataset_cfg as add_and_assert_dataset_cfg
from solo.args.contract import add_and_assert_lightning_cfg as add_and_assert_lightning_cfg
from solo.args.contract import add_and_assert_wandb_cfg as add_and_assert_wandb_cfg
from solo.args.parse import parse_dict_config
from solo.args.schema import LinearCfg


def parse_cfg(cfg: DictConfig) -> DictConfig:
    """Check and complete `cfg` in place and return it; a second call changes nothing.

    Raises:
        ParseError: (a `ConfigError` and an `AssertionError`) with all problems, one a line.
    """
    return parse_dict_config(cfg, LinearCfg)
