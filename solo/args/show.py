"""Text for people: `--help`, `--cfg resolved` and `solo recipe`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from omegaconf import OmegaConf

from solo.args.describe import describe
from solo.args.differences import flat
from solo.args.fields import describe_type, keys_of, walk
from solo.args.origins import Origins
from solo.args.parse import Parsed
from solo.args.words import literal
from solo.methods.catalogue import CATALOGUE, facts_of
from solo.screen import shown


def resolved_text(parsed: Parsed) -> str:
    """Every value of a config and where it came from, one key a line."""
    rows = [(key, _as_yaml(value), parsed.origins.get(key, "default")) for key, value in flat(parsed.values)]
    left = [shown(f"{key}: {value}") for key, value, _ in rows]
    width = min(56, max(map(len, left)))
    head = [f"# {shown(line)}" for line in [*describe(parsed.values), *parsed.notes]]
    return "\n".join([*head, *(f"{text:<{width}}  # {shown(row[2])}" for text, row in zip(left, rows, strict=True))])


def recipe_text(values: Mapping[str, Any], origins: Origins) -> str:
    """A composed config as YAML, each value with the place where it was written; it can be read again."""
    rows = list(_yaml_lines(values, origins, "", ""))
    width = min(56, max((len(text) for text, _ in rows), default=0))
    return "\n".join(f"{text:<{width}}  # {shown(place)}" if place else text for text, place in rows)


def _yaml_lines(value: Any, origins: Origins, key: str, indent: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            path = f"{key}.{name}" if key else str(name)
            left = f"{indent}{_scalar(name)}:"
            if _is_nested(inner):
                yield left, ""
                yield from _yaml_lines(inner, origins, path, f"{indent}  ")
            else:
                yield f"{left} {_scalar(inner)}", origins.place(path)
        return
    for i, entry in enumerate(value):
        first = True
        for text, place in _yaml_lines(entry, origins, f"{key}[{i}]", f"{indent}  "):
            yield (f"{indent}- {text[len(indent) + 2 :]}" if first else text), place
            first = False


def _is_nested(value: Any) -> bool:
    return bool(value) and (
        isinstance(value, Mapping) or (isinstance(value, list) and all(isinstance(v, Mapping) and v for v in value))
    )


def _scalar(value: Any) -> str:
    """A value on one line, which YAML and OmegaConf read as the same value."""
    if isinstance(value, str) and "${" in value:
        return json.dumps(literal(value))
    text = str(yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)).strip()
    text = text.removesuffix("\n...").strip()
    again = OmegaConf.to_container(OmegaConf.create(f"a: {text}"))
    same = isinstance(again, dict) and again["a"] == value and type(again["a"]) is type(value)
    return text if same or value == "???" else json.dumps(value)


def help_text(schema: type, method: str | None = None) -> str:
    """Every key with its type, default and sentence; the `method_kwargs` of one method, or of all.

    Raises a `UserError`: a method from outside that can't be imported.
    """
    lines = ["Keys:", *_key_lines(schema)]
    if "method_kwargs" in keys_of(schema):
        chosen = facts_of(method)
        for name, facts in {method: chosen}.items() if chosen else CATALOGUE.items():
            if facts.kwargs is not None:
                lines += ["", f"method_kwargs of method={name}:", *_key_lines(facts.kwargs, "method_kwargs.")]
                lines += facts.kwargs.notes() if hasattr(facts.kwargs, "notes") else ()
    if hasattr(schema, "EXTRA"):
        lines += ["", "Keys passed on to Lightning's Trainer:", *_key_lines(schema.EXTRA)]
    return "\n".join(lines)


def _key_lines(schema: type, prefix: str = "") -> Iterator[str]:
    for name, found in walk(schema, prefix):
        default = "required" if found.required else f"default {_as_yaml(found.default)}"
        yield f"  {name:<36} {found.help} ({describe_type(found.type)}; {default})"


def _as_yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return "''" if value == "" else f"{value:.6g}" if isinstance(value, float) else str(value)
