"""Keys that a user's own program or plug-in adds to a command's config, typed and checked as ours: docs/own_keys.md."""

import dataclasses
import typing

from solo.args.eval_schema import AnalyzeCfg, EvaluateCfg, KnnCfg, UmapCfg
from solo.args.fields import add_keys, keys_of
from solo.args.schema import LinearCfg, PretrainCfg
from solo.errors import UserError

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
