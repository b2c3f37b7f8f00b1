"""The model card: what was trained on what, by which protocol, with which numbers, and how to load it."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Template

from solo.export.folder import Bundle
from solo.untrusted import parse_json

_MEASURED = ("val_acc1", "val_acc5", "knn_acc1", "knn_acc5")


def model_card(bundle: Bundle, usage: Sequence[str] = ()) -> str:
    """Markdown with the front matter that the Hugging Face hub reads; `usage` are lines of Python that load it."""
    facts, network = bundle.facts, bundle.network
    numbers, protocol, rows = facts.get("numbers") or {}, facts.get("protocol") or {}, []
    for name, value in numbers.items():
        if name.endswith("_ci") or not isinstance(value, (int, float)):
            continue
        match numbers.get(f"{name}_ci"):
            case [int() | float() as low, int() | float() as high]:
                interval = f"{low:.2f} to {high:.2f}"
            case _:
                interval = "-"
        rows.append((name, f"{value:.2f}", interval, protocol.get(name, "-")))
    versions = ", ".join(f"{name} {version}" for name, version in (facts.get("versions") or {}).items())
    told = {"epochs": facts.get("epochs"), "seed": facts.get("seed"), "versions": versions or None}
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (network.mean, network.std))
    page = resources.files("solo.export").joinpath("card.md").read_text(encoding="utf-8")
    text: str = Template(page, keep_trailing_newline=True).render(
        facts=facts,
        network=network,
        features_dim=bundle.features_dim,
        taxonomy=bundle.taxonomy,
        usage=usage,
        rows=rows,
        told={name: value for name, value in told.items() if value is not None},
        mean=mean,
        std=std,
    )
    return text


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
