"""`parse_cfg` and the small functions around it, as `solo.args.pretrain` and `solo.args.linear` had them."""

import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from solo.args.config import fill_defaults, to_plain, write_back
from solo.args.fields import ParseError, keys_of, unknown
from solo.args.parse import parse
from solo.args.schema import LinearCfg, PretrainCfg
from solo.compat.keys import is_old_key
from solo.data.catalogue.registry import DATASETS
from solo.methods.catalogue import facts_of

_LOG = logging.getLogger("solo")

_N_CLASSES_PER_DATASET = {name: row.num_classes for name, row in DATASETS.items() if row.num_classes is not None}
_SUPPORTED_DATASETS = list(DATASETS)


def parse_pretrain(cfg: DictConfig) -> DictConfig:
    """Check and complete the config of a pretraining in place and return it; a second call changes nothing.

    Keys that only the calling program knows stay as they are, with a warning that names them; so do its own methods,
    optimizers and schedulers. Raises a `ParseError`: (a `ConfigError` and an `AssertionError`) with all problems, one a
    line.
    """
    return _parse(cfg, PretrainCfg)


def parse_linear(cfg: DictConfig) -> DictConfig:
    """`parse_pretrain` for linear evaluation and finetuning."""
    return _parse(cfg, LinearCfg)


def _parse(cfg: DictConfig, schema: type) -> DictConfig:
    values = to_plain(cfg)
    groups = [str(entry) for entry in values.pop("defaults", None) or () if isinstance(entry, dict)]
    values.pop("hydra", None)
    if "augmentations" in keys_of(schema) and "augmentations" not in values and groups:
        raise ParseError(
            f"augmentations is missing: the file's `defaults` name {', '.join(groups)}, which OmegaConf.load doesn't "
            "read; let Hydra compose it (hydra.compose, hydra.main), or write the augmentations into the file"
        )
    own: dict[str, Any] = {}
    parsed = parse(_without_own(values, schema, own), schema, from_code=True, fetch=True)
    for note in parsed.notes:
        _LOG.warning(note)
    if own:
        _LOG.warning("kept as they are, for your own code: %s; the library reads no such keys", ", ".join(own))
    write_back(cfg, parsed.values)
    for key, value in own.items():
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    return cfg


def _without_own(values: Mapping[str, Any], schema: type, own: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The keys that a schema has; the others are put into `own`, under their dotted names."""
    keys = keys_of(schema) | (keys_of(schema.EXTRA) if hasattr(schema, "EXTRA") else {})
    known: dict[str, Any] = {}
    facts = facts_of(values.get("method"))
    for name, value in values.items():
        found = keys.get(name)
        if found is None and is_old_key(f"{path}{name}"):
            known[name] = value
        elif found is None:
            own[f"{path}{name}"] = value
        elif found.section and isinstance(value, Mapping):
            known[name] = _without_own(value, found.section, own, f"{path}{name}.")
        elif found.item and isinstance(value, list):
            known[name] = [
                _without_own(entry, found.item, own, f"{path}{name}[{i}].") if isinstance(entry, Mapping) else entry
                for i, entry in enumerate(value)
            ]
        elif name == "method_kwargs" and facts and facts.kwargs and isinstance(value, Mapping):
            known[name] = _without_own(value, facts.kwargs, own, f"{path}{name}.")
        else:
            known[name] = value
    return known


def add_and_assert_dataset_cfg(cfg: DictConfig) -> DictConfig:
    """Defaults of the `data` section of a known data set."""
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
