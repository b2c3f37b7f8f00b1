"""The model card: what was trained on what, by which protocol, with which numbers, and how to load it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo.export.folder import Bundle
from solo.untrusted import parse_json

_MEASURED = ("val_acc1", "val_acc5", "knn_acc1", "knn_acc5")
_LICENCE = "The weights belong to whoever trained them; name a licence here before you share them."


def model_card(bundle: Bundle, usage: Sequence[str] = ()) -> str:
    """Markdown with the front matter that the Hugging Face hub reads; `usage` are lines of Python that load it."""
    facts = bundle.facts
    method, dataset = facts.get("method") or "unknown method", facts.get("dataset") or "unknown data"
    lines = ["---", "library_name: solo-hex", "tags: [image-feature-extraction, self-supervised-learning, solo]", "---"]
    lines += [f"# {facts.get('name') or bundle.network.name}", ""]
    lines += [
        f"`{bundle.network.name}` trained with **{method}** on **{dataset}**; {bundle.features_dim} features.",
        "",
    ]
    if usage:
        lines += ["## Load", "", "```python", *usage, "```", ""]
    lines += ["## Images", "", *_preprocessing(bundle), ""]
    lines += ["## Numbers", "", *_numbers(facts), ""]
    if bundle.taxonomy is not None:
        levels = zip(bundle.taxonomy.levels, bundle.taxonomy.names, strict=True)
        shown = ", ".join(f"{level} ({len(names)})" for level, names in levels)
        lines += ["## Labels", "", f"Levels of the label tree, coarse first: {shown}. `taxonomy.json` holds it.", ""]
    lines += ["## Training", "", *_training(facts), "", "## Licence", "", _LICENCE, ""]
    return "\n".join(lines)


def _preprocessing(bundle: Bundle) -> list[str]:
    first = (
        f"shorter side to {bundle.network.resize} pixels, centre crop of {bundle.network.size} x {bundle.network.size}"
        if bundle.network.resize
        else f"resized to {bundle.network.size} x {bundle.network.size}"
    )
    colours = {1: "grey", 3: "RGB"}.get(bundle.network.channels, f"{bundle.network.channels} channels")
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (bundle.network.mean, bundle.network.std))
    return [f"{colours}, values in [0, 1], {first}, then minus mean [{mean}], divided by std [{std}]."]


def _numbers(facts: Mapping[str, Any]) -> list[str]:
    numbers, protocol = facts.get("numbers") or {}, facts.get("protocol") or {}
    if not numbers:
        return ["None were measured; `solo evaluate` measures them, with intervals."]
    rows = ["| measure | value | 95 % interval | how |", "|---|---|---|---|"]
    for name, value in numbers.items():
        if name.endswith("_ci") or not isinstance(value, (int, float)):
            continue
        match numbers.get(f"{name}_ci"):
            case [int() | float() as low, int() | float() as high]:
                interval = f"{low:.2f} to {high:.2f}"
            case _:
                interval = "-"
        rows.append(f"| {name} | {value:.2f} | {interval} | {protocol.get(name, '-')} |")
    return rows


def _training(facts: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in (facts.get("versions") or {}).items())
    told = {"epochs": facts.get("epochs"), "seed": facts.get("seed"), "versions": versions or None}
    lines = [f"- {name}: {value}" for name, value in told.items() if value is not None]
    return lines or ["Nothing is known of the run."]


def facts_of(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the files in a run's folder say of it: `summary.json`, and `evaluate.json` where `solo evaluate` wrote one.

    `name`, `method`, `dataset`, `epochs`, `seed`, `versions`, `numbers` (percent; `<name>_ci` is the 95 % interval) and
    `protocol`, as far as they are known; `settings` are the run's resolved config.
    """
    summary = _read(folder / "summary.json")
    told = {key: summary.get(key) for key in ("name", "method", "dataset", "epochs", "seed", "versions", "protocol")}
    told["name"] = told["name"] or settings.get("name")
    told["method"] = told["method"] or settings.get("method") or settings.get("pretrain_method")
    told["dataset"] = told["dataset"] or _mapping(settings.get("data")).get("dataset")
    told |= {key: _mapping(told[key]) or None for key in ("versions", "protocol")}
    numbers = {key: summary[key] for key in _MEASURED if isinstance(summary.get(key), (int, float))}
    for result in _mappings(_read(folder / "evaluate.json").get("results")):
        for level in _mappings(result.get("levels")):
            found = {
                key: value for key, value in level.items() if key.removesuffix("_ci").endswith(("_acc1", "map_at_r"))
            }
            numbers |= {f"{level.get('level')}: {key}": value for key, value in found.items()}
    return {**{key: value for key, value in told.items() if value is not None}, "numbers": numbers}


def _read(file: Path) -> dict[str, Any]:
    try:
        return _mapping(parse_json(file.read_bytes()))
    except (OSError, ValueError):  # a help, not a need
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
