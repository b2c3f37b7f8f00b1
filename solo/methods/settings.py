"""Fill what a config leaves open, in place, so that `METHODS[name](cfg)` works on a config that nobody has parsed.

The keys, types and defaults are those of `solo.args`; a config that went through `parse_cfg` is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from solo.args.accumulate import check_accumulate
from solo.args.check import Problem, check
from solo.args.fields import keys_of
from solo.args.legacy import MOVED, modernise
from solo.args.rules import check_policy, check_views
from solo.args.schema import HexCfg
from solo.backbones import build_backbone
from solo.data.catalogue.registry import DATASETS, DatasetSpec, count_classes
from solo.data.catalogue.resolve import resolve_spec
from solo.errors import ConfigError, UserError
from solo.methods.catalogue import vit_variant
from solo.taxonomy import Taxonomy


def complete(cfg: DictConfig, sections: Mapping[str, type]) -> None:
    """Write the defaults of each section; convert and check the values that are there, leave unknown keys alone.

    Args:
        cfg: changed in place.
        sections: dotted key of a section -> its schema.

    Raises:
        ConfigError: with all wrong or missing values.
    """
    problems: list[Problem] = []
    with open_dict(cfg):
        for section, schema in sections.items():
            given = _plain(cfg, section)
            known = {key: value for key, value in given.items() if key in keys_of(schema)}
            checked, found = check(known, schema, f"{section}.")
            problems += found
            OmegaConf.update(cfg, section, {**given, **checked}, merge=False, force_add=True)
    refuse(problems)


def complete_hex(cfg: DictConfig) -> None:
    """Move the HEX words of the top level (`type`, `warm_epoch`, ...) to `hex`, and complete that section.

    Raises:
        ConfigError: if a value is unknown, or one is given twice and differs.
    """
    words = {word: cfg[word] for word in MOVED if word in cfg}
    modern = modernise({**words, "hex": _plain(cfg, "hex")})
    checked, problems = check(modern.values["hex"], HexCfg, "hex.")
    problems += check_policy(cfg.get("method"), checked.get("policy"))
    refuse([*modern.problems, *problems], modern.spelled)
    with open_dict(cfg):
        for word in words:
            del cfg[word]
        cfg.hex = checked


def complete_data(cfg: DictConfig) -> None:
    """Derive what can be known without the data: the number of classes and of views.

    Raises:
        ConfigError: if the classes can't be counted.
    """
    with open_dict(cfg):
        data = cfg.setdefault("data", {})
        entries = OmegaConf.select(cfg, "augmentations") or []
        large = [entry.num_crops for entry in entries if entry.crop_size == entries[0].crop_size]
        if data.get("num_large_crops") is None:
            data.num_large_crops = sum(large) if large else 2
        if data.get("num_small_crops") is None:
            data.num_small_crops = sum(entry.num_crops for entry in entries) - sum(large)
        refuse(list(check_views(cfg.get("method"), data.num_large_crops, data.num_small_crops)))
        complete_classes(cfg)


def complete_classes(cfg: DictConfig) -> None:
    """Write `data.num_classes`, the data set's or counted from its folders.

    Raises:
        ConfigError: if the data set is unknown and the number is not given.
    """
    if cfg.data.get("num_classes") is not None:
        return
    spec = dataset_spec(cfg)
    if spec is None:
        raise ConfigError(
            f"data.num_classes is missing and data.dataset={cfg.data.get('dataset')!r} is not a known data set; "
            f"give data.num_classes, or choose one of {', '.join(DATASETS)}"
        )
    with open_dict(cfg):
        cfg.data.num_classes = count_classes(spec, cfg.data.get("train_path"))


def dataset_spec(cfg: DictConfig) -> DatasetSpec | None:
    """What is known of `data.dataset`, or None: someone may train on their own loaders."""
    row = DATASETS.get(OmegaConf.select(cfg, "data.dataset") or "")
    try:
        return row and resolve_spec(cfg.data)
    except UserError:  # the data aren't here; their loaders or the command will say so where they are needed
        return row


def taxonomy_of(cfg: DictConfig) -> Taxonomy | None:
    """The data set's label tree, if it is the one of this run's classes."""
    spec = dataset_spec(cfg)
    taxonomy = spec.taxonomy if spec else None
    return taxonomy if taxonomy and taxonomy.num_classes == cfg.data.num_classes else None


def backbone_from_cfg(cfg: DictConfig, method: str | None = None) -> nn.Module:
    """The backbone that `backbone.*` and `data.*` ask for, without classifier.

    Args:
        cfg: of pretraining or of evaluation.
        method: registry name of the pretraining method.

    Raises:
        UserError: if the name or its kwargs are wrong.
    """
    spec, facts = dataset_spec(cfg), data_facts(cfg, None)
    return build_backbone(
        cfg.backbone.name,
        vit_variant(method, cfg.backbone.name),
        channels=facts["channels"],
        small=bool(spec and spec.small_stem),
        image_size=facts["size"],
        kwargs=_plain(cfg, "backbone.kwargs"),
    )


def data_facts(cfg: DictConfig, taxonomy: Taxonomy | None) -> dict[str, Any]:
    """What a checkpoint remembers of its data, in plain types: dataset, channels, size, mean, std, taxonomy."""
    data, spec = _plain(cfg, "data"), dataset_spec(cfg)

    def fact(key: str, attribute: str, default: Any = None) -> Any:
        value = data.get(key)
        return value if value is not None else getattr(spec, attribute, default)

    mean, std = fact("mean", "mean"), fact("std", "std")
    return {
        "dataset": data.get("dataset"),
        "channels": fact("channels", "channels", 3),
        "size": fact("image_size", "size"),
        "mean": mean if mean is None else list(mean),
        "std": std if std is None else list(std),
        "taxonomy": taxonomy.to_dict() if taxonomy else None,
    }


def complete_method_kwargs(cfg: DictConfig, schema: type) -> None:
    """Complete `method_kwargs` by a method's own schema; unknown keys stay and are ignored.

    Raises:
        ConfigError: if required keys are missing or values wrong; names the keys and the method.
    """
    try:
        complete(cfg, {"method_kwargs": schema})
    except ConfigError as error:
        raise ConfigError(f"method {cfg.get('method', schema.__name__)!r}: {error}") from error


def complete_run(cfg: DictConfig) -> None:
    """Write the defaults of the top-level keys that a model reads.

    Raises:
        ConfigError: if `max_epochs` is missing.
    """
    if OmegaConf.select(cfg, "max_epochs", throw_on_missing=False) is None:
        raise ConfigError("max_epochs is missing; give the number of epochs to train")
    with open_dict(cfg):
        if cfg.get("accumulate_grad_batches") is None:
            cfg.accumulate_grad_batches = 1


def accumulates_exactly(cfg: DictConfig, known: bool) -> bool:
    """Whether one loss sees all accumulated batches.

    Args:
        cfg: reads `accumulate` and what it depends on.
        known: the method's outputs come from the library's own code, which can be run in two passes.

    Raises:
        ConfigError: if it is asked for where it does nothing, or can't be done.
    """
    values = {key: cfg.get(key) for key in ("accumulate", "accumulate_grad_batches", "method")}
    refuse(check_accumulate({**values, "hex": _plain(cfg, "hex")}))
    exact = bool(values["accumulate"] == "exact")
    if exact and not known:
        raise ConfigError(
            f"accumulate=exact runs the network twice, and method {values['method']!r} has a training_step, "
            "view_outputs or no ssl_loss of its own; write its loss as ssl_loss, or use accumulate=plain"
        )
    return exact


def refuse(problems: list[Problem], spelled: Mapping[str, str] | None = None) -> None:
    """Raise all problems together, with the keys as the user wrote them."""
    if problems:
        raise ConfigError("\n".join((spelled or {}).get(p.key, p.key) + p.text for p in problems))


def _plain(cfg: DictConfig, section: str) -> dict[str, Any]:
    value = OmegaConf.select(cfg, section)
    if value is None or value == "None":
        return {}
    plain: dict[str, Any] = OmegaConf.to_container(value, resolve=True)  # type: ignore[assignment]
    return plain
