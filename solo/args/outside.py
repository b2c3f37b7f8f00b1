"""What users add: code that a config names by import path, which runs where they typed it, and keys of their own."""

import dataclasses
import typing
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from solo import plugin
from solo.args.check import Problem, check
from solo.args.eval_schema import AnalyzeCfg, EvaluateCfg, KnnCfg, UmapCfg
from solo.args.fields import add_keys, keys_of
from solo.args.schema import LinearCfg, PretrainCfg
from solo.data.catalogue.registry import get_spec
from solo.errors import UserError
from solo.hex.catalogue import policy_class, policy_facts
from solo.methods.catalogue import method_class

# Key -> finds what its import path means, or raises a UserError that begins with a name and the path.
_MEANING: dict[str, Callable[[str], Any]] = {
    "method": method_class,
    "pretrain_method": method_class,
    "hex.policy": policy_class,
    "backbone.name": lambda path: plugin.load_callable(path, "backbone.name", "a torch.nn.Module"),
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

    def refused(key: str, path: str, meaning: Callable[[str], Any]) -> list[Problem]:
        if typed is None or typed(key):
            plugin.permit([path])
        try:
            meaning(path)
        except UserError as error:
            return [(key, f"={path}{str(error).partition(path)[2]}")]
        return []

    for key, meaning in _MEANING.items():
        place, _, last = key.rpartition(".")
        section = values.get(place) if place else values
        if isinstance(section, dict) and plugin.is_path(section.get(last)):
            if problems := refused(key, section[last], meaning):
                yield from problems
                section[last] = None
    for i, entry in enumerate(values.get("augmentations") or ()):
        key = f"augmentations[{i}].transforms"
        for path in entry.get("transforms") or ():
            if plugin.is_path(path):
                yield from refused(key, path, partial(plugin.load_callable, key=key, makes="an image of Pillow"))
            else:
                yield key, f" has {path!r}, which is no import path; give module:function"
    hex_ = values.get("hex") or {}
    facts, given = policy_facts(hex_.get("policy")), hex_.get("policy_kwargs") or {}
    if plugin.is_path(hex_.get("policy")) or (facts.kwargs and given):
        checked, problems = check(given, policy_class(facts.path), "hex.policy_kwargs.")
        hex_["policy_kwargs"] = {name: checked[name] for name in given if name in checked}
        # Its warm-up is hex.warm_epoch, unless it is given here.
        yield from (p for p in problems if p[0] != "hex.policy_kwargs.warm_epoch" or "warm_epoch" in given)


_SCHEMAS: dict[str, type] = {
    "pretrain": PretrainCfg,
    "linear": LinearCfg,
    "evaluate": EvaluateCfg,
    "analyze": AnalyzeCfg,
    "knn": KnnCfg,
    "umap": UmapCfg,
}


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
