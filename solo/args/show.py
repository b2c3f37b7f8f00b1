"""Text for people: `--help` and `--cfg resolved`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from solo.args.describe import describe
from solo.args.fields import describe_type, keys_of, walk
from solo.args.parse import Parsed
from solo.methods.catalogue import CATALOGUE, facts_of


def resolved_text(parsed: Parsed) -> str:
    """Every value of a config and where it came from, one key a line."""
    rows = [(key, _as_yaml(value), parsed.origins.get(key, "default")) for key, value in _leaves(parsed.values)]
    left = [f"{key}: {value}" for key, value, _ in rows]
    width = min(56, max(map(len, left)))
    head = [f"# {line}" for line in [*describe(parsed.values), *parsed.notes]]
    return "\n".join([*head, *(f"{text:<{width}}  # {row[2]}" for text, row in zip(left, rows, strict=True))])


def help_text(schema: type, method: str | None = None) -> str:
    """Every key with its type, default and sentence; the `method_kwargs` of one method, or of all.

    Raises:
        UserError: a method from outside that can't be imported.
    """
    lines = ["Keys:", *_key_lines(schema)]
    if "method_kwargs" in keys_of(schema):
        chosen = facts_of(method)
        for name, facts in {method: chosen}.items() if chosen else CATALOGUE.items():
            if facts.kwargs is not None:
                lines += ["", f"method_kwargs of method={name}:", *_key_lines(facts.kwargs, "method_kwargs.")]
    if hasattr(schema, "EXTRA"):
        lines += ["", "Keys passed on to Lightning's Trainer:", *_key_lines(schema.EXTRA)]
    return "\n".join(lines)


def _key_lines(schema: type, prefix: str = "") -> Iterator[str]:
    for name, found in walk(schema, prefix):
        default = "required" if found.required else f"default {_as_yaml(found.default)}"
        yield f"  {name:<36} {found.help} ({describe_type(found.type)}; {default})"


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{key}[{i}]")
    else:
        yield key, value


def _as_yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return "''" if value == "" else f"{value:.6g}" if isinstance(value, float) else str(value)
