"""The config of a model: frozen and typed, and beside it the `DictConfig` that users of solo-learn know.

A command's config is typed already. `METHODS[name](cfg)` with a raw `DictConfig` is for users' code: what it leaves
open is filled in, in place, and it is parsed once, here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from solo.args.check_method import check_accumulate, check_kwargs, check_policy, check_views
from solo.args.config import freeze, to_plain
from solo.args.fields import Problem, check, keys_of
from solo.args.schema import LinearCfg, PretrainCfg
from solo.backbones import build_backbone
from solo.backbones.registry import Constructor
from solo.compat.keys import MOVED, modernise
from solo.data.catalogue.registry import DATASETS, DatasetSpec, count_classes, resolve_spec
from solo.errors import ConfigError, UserError
from solo.methods.catalogue import vit_variant
from solo.taxonomy import Taxonomy

ModelCfg = TypeVar("ModelCfg", PretrainCfg, LinearCfg)


def read_config(model: Any, cfg: DictConfig | ModelCfg, schema: type[ModelCfg]) -> tuple[DictConfig, ModelCfg]:
    """Both forms of a config, typed, or raw and then completed in place; `model` has `add_and_assert_specific_cfg`."""
    kwargs = getattr(model, "Kwargs", None)
    spec = None
    if isinstance(cfg, schema):
        ours = model.add_and_assert_specific_cfg.__module__.startswith("solo.methods.")
        if ours and (kwargs is None or isinstance(getattr(cfg, "method_kwargs", None), kwargs)):
            return OmegaConf.create(to_plain(cfg)), cfg
        spec, cfg = cfg.data.resolved, OmegaConf.create(to_plain(cfg))
    raw: DictConfig = model.add_and_assert_specific_cfg(cfg)
    values = {key: _plain(raw, key) for key in keys_of(schema) if not OmegaConf.is_missing(raw, key) and key in raw}
    # What a model reads is right; the rest may be anything, or missing.
    checked, _ = check(values, schema, own={})
    checked["data"]["resolved"] = spec or dataset_spec(raw)
    return raw, freeze(checked, schema, kwargs)


def complete(cfg: DictConfig, schema: type, sections: Sequence[str], kwargs: type | None = None) -> None:
    """Fill in what a model reads, in place; convert and check the values that are there, leave unknown keys alone.

    `sections` of the schema; `hex` also takes the words of the top level. Views are counted in `augmentations`, two
    without it, classes in the data set or its folders. Raises a `ConfigError` with all wrong or missing values.
    """
    pretraining = "hex" in sections
    words = {word: cfg[word] for word in MOVED if word in cfg} if pretraining else {}
    modern = modernise({**words, "hex": _plain(cfg, "hex") or {}})
    problems = modern.problems
    with open_dict(cfg):
        for section in sections:
            of: Any = keys_of(schema)[section].section
            given = modern.values["hex"] if section == "hex" else _plain(cfg, section) or {}
            checked, found = check(given, of, f"{section}.", None if section == "hex" else {})
            problems += found
            cfg[section] = {**given, **checked}
        for word in words:
            del cfg[word]
        if cfg.get("max_epochs") is None:
            problems.append(("max_epochs", " is missing; give the number of epochs to train"))
        if cfg.get("accumulate_grad_batches") is None:
            cfg.accumulate_grad_batches = 1
        if pretraining:
            problems += check_policy(cfg.get("method"), cfg.hex.policy, show=cfg.hex.show)
            of_it = ["accumulate", "accumulate_grad_batches", "method", "hex"]
            problems += check_accumulate(to_plain(OmegaConf.masked_copy(cfg, of_it)))
        _refuse(problems, modern.spelled)
        if kwargs is not None:
            given = _plain(cfg, "method_kwargs") or {}
            checked, problems = check_kwargs(given, kwargs, own={})
            _refuse(problems, start=f"method {cfg.get('method', kwargs.__name__)!r}: ")
            cfg.method_kwargs = {**given, **checked}
        data = cfg.setdefault("data", {})
        if pretraining:
            entries = cfg.get("augmentations") or []
            large = [entry.num_crops for entry in entries if entry.crop_size == entries[0].crop_size]
            if data.get("num_large_crops") is None:
                data.num_large_crops = sum(large) if large else 2
            if data.get("num_small_crops") is None:
                data.num_small_crops = sum(entry.num_crops for entry in entries) - sum(large)
            _refuse([*check_views(cfg.get("method"), data.num_large_crops, data.num_small_crops)])
        if data.get("num_classes") is None:
            spec = dataset_spec(cfg)
            if spec is None:
                what = f"data.num_classes is missing and data.dataset={data.get('dataset')!r} is not a known data set"
                raise ConfigError(f"{what}; give data.num_classes, or choose one of {', '.join(DATASETS)}")
            data.num_classes = count_classes(spec, data.get("train_path"))


def dataset_spec(cfg: DictConfig) -> DatasetSpec | None:
    """What is known of `data.dataset`, or None: someone may train on their own loaders."""
    row = DATASETS.get(str(cfg.data.get("dataset")))
    try:
        return row and resolve_spec(cfg.data)
    except UserError:  # the data aren't here; their loaders or the command will say so where they are needed
        return row


def backbone_of(config: PretrainCfg, table: Mapping[str, Constructor]) -> nn.Module:
    """The backbone that `backbone.*` and `data.*` ask for, without classifier."""
    facts, spec = data_facts(config, None), config.data.resolved
    return build_backbone(
        config.backbone.name,
        vit_variant(config.method, config.backbone.name),
        channels=facts["channels"],
        small=bool(spec and spec.small_stem),
        image_size=facts["size"],
        several_sizes=bool(config.data.num_small_crops or config.data.resolution_schedule),
        kwargs=config.backbone.kwargs,
        table=table,
    )


def data_facts(config: PretrainCfg | LinearCfg, taxonomy: Taxonomy | None) -> dict[str, Any]:
    """What a checkpoint remembers of its data, in plain types: what evaluation needs to make the same inputs of it."""
    data, spec = config.data, config.data.resolved
    reading = (spec or DATASETS["custom"]).reading
    paths = ("train_path", "val_path", "taxonomy")
    mean, std = data.mean or getattr(spec, "mean", None), data.std or getattr(spec, "std", None)
    return {
        "dataset": data.dataset,
        "channels": data.channels or getattr(spec, "channels", 3),
        "size": data.image_size or getattr(spec, "size", None),
        "mean": mean and list(mean),
        "std": std and list(std),
        "taxonomy": taxonomy.to_dict() if taxonomy else None,
        "paths": {name: str(path) for name in paths if (path := absolute(getattr(data, name)))},
        "small_stem": bool(spec and spec.small_stem),
        # How files become images, see `solo.data.storage.facts`.
        "range": reading.range and list(reading.range),
        "exif": reading.exif,
        "background": list(reading.background),
    }


def absolute(typed: str | None) -> Path | None:
    """Where something on this machine is; `None` for what isn't, such as the name of a data set on a hub."""
    path = Path(typed).expanduser() if typed else None
    return path.absolute() if path and (path.exists() or path.parent != Path(".") and path.parent.exists()) else None


def _refuse(problems: list[Problem], spelled: Mapping[str, str] | None = None, start: str = "") -> None:
    """Raise all problems together, with the keys as the user wrote them."""
    if problems:
        raise ConfigError(start + "\n".join((spelled or {}).get(key, key) + text for key, text in problems))


def _plain(cfg: DictConfig, key: str) -> Any:
    value = cfg.get(key)
    if value == "None":
        return None
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
