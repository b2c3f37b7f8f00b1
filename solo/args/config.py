"""A checked config as frozen dataclasses, which everybody reads, as plain values, and beside a stored one.

And what users add: code that a config names by import path, which runs where they typed it, and keys of their own.
"""

import copy
import dataclasses
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solo import plugin
from solo.args.eval_schema import AnalyzeCfg, EvaluateCfg, KnnCfg, UmapCfg
from solo.args.fields import LISTS, Problem, add_keys, check, extra_keys_of, get, idle_keys, keys_of, with_own_keys
from solo.args.schema import LinearCfg, PretrainCfg, TrainerCfg
from solo.compat.keys import modernise
from solo.data.catalogue.registry import get_spec
from solo.errors import ConfigError, UserError
from solo.hex.catalogue import policy_class, policy_facts
from solo.methods.catalogue import method_class

Schema = TypeVar("Schema")


def freeze(values: Mapping[str, Any], schema: type[Schema], kwargs: type | None = None) -> Schema:
    """Plain values as an instance of their schema: sections are instances, lists are tuples.

    A key that is missing becomes `None`; a section `data` may hold its data set as `resolved`. Without `kwargs`, the
    schema of `method_kwargs`, they stay a dict.
    """
    found: dict[str, Any] = {}
    for name, key in keys_of(schema).items():
        value, inner = values.get(name), kwargs if name == "method_kwargs" else key.section
        if inner is not None:
            found[name] = freeze(value or {}, inner)
        elif isinstance(value, LISTS) and (key.item or _is_tuple(key.type)):
            found[name] = tuple(freeze(entry or {}, key.item) if key.item else entry for entry in value)
        else:
            found[name] = value
    if hasattr(schema, "EXTRA"):
        found["trainer"] = {name: values[name] for name in extra_keys_of(schema) if name in values}
    if "resolved" in values:
        found["resolved"] = values["resolved"]
    return typing.cast(Schema, with_own_keys(schema)(**found))


def _is_tuple(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple or any(_is_tuple(arm) for arm in typing.get_args(kind))


def to_plain(cfg: Any) -> dict[str, Any]:
    """Plain values of a frozen config, or of a `DictConfig`, whose interpolations have to lead somewhere."""
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else _plain(cfg)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise ConfigError(f"{key or 'configuration'}: {str(error).splitlines()[0]}") from error
    return {str(name): value for name, value in plain.items()}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        keys = {name: _plain(getattr(value, name)) for name in keys_of(type(value))}
        return {**keys, **(getattr(value, "trainer", None) or {})}
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, LISTS) else value


def to_yaml(cfg: Any) -> str:
    """A config as YAML, to be read as a recipe again."""
    return OmegaConf.to_yaml(OmegaConf.create(to_plain(cfg)))


def write_back(cfg: DictConfig, values: Mapping[str, Any]) -> None:
    """Make `cfg` hold exactly `values`."""
    OmegaConf.set_struct(cfg, False)
    for name in [name for name in cfg if name not in values]:
        cfg.pop(name)
    for name, value in values.items():
        cfg[name] = value


def fill_defaults(cfg: DictConfig, schema: type, *names: str) -> DictConfig:
    """Write defaults of keys and sections into `cfg`, in place, where it has none; nothing is checked or required."""
    values = modernise(to_plain(cfg), own=keys_of(schema)).values
    for name in names:
        found = keys_of(schema)[name]
        if found.section is None:
            values.setdefault(name, found.default)
        else:
            inner = keys_of(found.section).values()
            defaults = {key.name: copy.deepcopy(key.default) for key in inner if not key.required}
            values[name] = defaults | (values.get(name) or {})
    write_back(cfg, values)
    return cfg


NOT_SET = "(not set)"


def never_matters() -> list[str]:
    """Keys and sections of any command that don't change what it computes; each says so where it is declared."""
    return [*dict.fromkeys(name for schema in _SCHEMAS.values() for name in idle_keys(schema)), "wandb_run_id"]


class Difference(NamedTuple):
    """A setting that has another value than in the stored run."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old} -> {self.new}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """The settings in which two resolved configurations differ, in the order of the new one.

    A key that only one of them has counts if it is Lightning's; others aren't known to this or the earlier version.
    """
    before, after, lightnings = dict(flat(old)), dict(flat(new)), keys_of(TrainerCfg)
    compared = [k for k in after | before if (k in before and k in after) or k.partition(".")[0] in lightnings]
    pairs = [Difference(key, before.get(key, NOT_SET), after.get(key, NOT_SET)) for key in compared]
    return [pair for pair in pairs if pair.old != pair.new]


def may_change(key: str, allowed: Iterable[str]) -> bool:
    """Whether `key`, or a section that it lies in, is among the allowed ones."""
    return any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in allowed)


def unknown_names(allowed: Iterable[str], *configs: Mapping[str, Any]) -> list[str]:
    """Those of the allowed names that no configuration has, and that can't be left out of one: misspelt."""
    keys = [key for config in configs for key, _ in flat(config)] + list(keys_of(TrainerCfg))
    return [name for name in allowed if not any(may_change(key, [name]) for key in keys)]


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, plain value) of everything below; lists of values stay whole, and so do empty sections."""
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from flat(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)) and any(isinstance(part, Mapping) for part in value):
        for index, part in enumerate(value):
            yield from flat(part, f"{key}[{index}]")
    else:
        yield key, list(value) if isinstance(value, tuple) else value


# Key -> finds what its import path means, or raises a UserError that begins with a name and the path.
_MEANING: dict[str, Callable[[str], Any]] = {
    "method": method_class,
    "pretrain_method": method_class,
    "hex.policy": policy_class,
    "backbone.name": lambda path: plugin.load(path, "backbone.name", "a torch.nn.Module"),
    "data.dataset": get_spec,
}


def check_outside(values: dict[str, Any], typed: Callable[[str], bool] | None) -> Iterator[Problem]:
    """Permit the import paths that the user gave, and see whether they lead to what they should.

    In the checked config a path that is refused becomes None, and `hex.policy_kwargs` are checked. `typed` says whether
    a key was written on the command line; None: a program made the config, so all of it is meant.
    """
    named = values.get("trust") or []
    if named and typed is not None and not typed("trust"):
        yield "trust", f"={list(named)} counts on the command line only; a file can't permit its own code"
    else:
        plugin.permit(named)

    paths = [(key, get(values, key), meaning) for key, meaning in _MEANING.items()]
    for i, entry in enumerate(values.get("augmentations") or ()):
        key = f"augmentations[{i}].transforms"
        load = partial(plugin.load, key=key, makes="an image of Pillow")
        paths += [(key, path, load) for path in entry.get("transforms") or ()]
    for key, path, meaning in paths:
        if not plugin.is_path(path):
            if key not in _MEANING:
                yield key, f" has {path!r}, which is no import path; give module:function"
            continue
        if typed is None or typed(key):
            plugin.permit([path])
        try:
            meaning(path)
        except UserError as error:
            yield key, f"={path}{str(error).partition(path)[2]}"
            if key in _MEANING:
                place, _, last = key.rpartition(".")
                (values[place] if place else values)[last] = None
    hex_ = values.get("hex") or {}
    facts, given = policy_facts(hex_.get("policy")), hex_.get("policy_kwargs") or {}
    if plugin.is_path(hex_.get("policy")) or (facts.kwargs and given):
        checked, problems = check(given, policy_class(facts.path), "hex.policy_kwargs.")
        hex_["policy_kwargs"] = {name: checked[name] for name in given if name in checked}
        # Its warm-up is hex.warm_epoch, unless it is given here.
        yield from (p for p in problems if p[0] != "hex.policy_kwargs.warm_epoch" or "warm_epoch" in given)


_COMMANDS = (PretrainCfg, LinearCfg, EvaluateCfg, AnalyzeCfg, KnnCfg, UmapCfg)
_SCHEMAS: dict[str, type] = {schema.__name__.removesuffix("Cfg").lower(): schema for schema in _COMMANDS}


def declare_keys(keys: type, section: str = "", command: str = "pretrain") -> None:
    """Let a command's config have these keys, a dataclass; the same call twice is one.

    A field without a default must be given by every recipe. They stand at the top level, in a section (`data`,
    `optimizer`, `checkpoint`, ...), or in each entry of the list `augmentations`. The command is pretrain, linear,
    evaluate, analyze, knn or umap. Raises a `UserError` for another one, or where a key of that name is there already.
    """
    if not dataclasses.is_dataclass(keys):
        raise UserError(f"declare_keys: {keys!r} is no dataclass; give a class with @dataclass(kw_only=True)")
    if command not in _SCHEMAS:
        raise UserError(f"declare_keys: command={command!r} is unknown; choose {', '.join(_SCHEMAS)}")
    schema = _SCHEMAS[command]
    for name in section.split(".") if section else ():
        found = keys_of(schema).get(name)
        inner = found and (found.section or found.item)
        if inner is None:
            places = [key.name for key in keys_of(schema).values() if key.section or key.item]
            raise UserError(f"declare_keys: section={section!r} is none; choose {', '.join(places)}, or '' for the top")
        schema = typing.cast(type, inner)
    add_keys(schema, keys)
