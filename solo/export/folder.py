"""What every exported folder holds beside the weights: `solo.json`, `taxonomy.json` and a card, `README.md`."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jinja2 import Template
from torch import Tensor, nn

from solo.errors import UserError, explained
from solo.files import parse_json, read_facts, write_text
from solo.taxonomy import Taxonomy

DESCRIPTION = "solo.json"
_FORMAT = 1


@dataclass(frozen=True)
class Network:
    """How a backbone is built, and what it expects of images."""

    name: str  # its registry name, `backbone.name` of the run, or `timm/NAME`, `torchvision/NAME`
    kwargs: Mapping[str, Any]  # what it was built with
    method: str | None  # registry name of the pretraining method, by which some backbones differ; None if unknown
    small_stem: bool  # whether a ResNet has the stem for small images
    channels: int  # C
    size: int  # height and width of an image in pixels
    resize: int | None  # length of the shorter side before the centre crop; None: images are resized to `size` x `size`
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]  # likewise
    # how files become images, where that is not the default: keys of `solo.data.storage.facts.ReadingKeys`
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A backbone and all that has to be known to use it."""

    backbone: nn.Module  # images (B, C, H, W) -> features (B, F); in eval mode, on the CPU
    network: Network  # how it is built
    features_dim: int  # F
    taxonomy: Taxonomy | None  # the label tree of the data it was trained on
    classifier: Mapping[str, Tensor] | None  # weight (classes, F) and bias (classes,), if the run has a classifier
    facts: Mapping[str, Any]  # about the run, for the card, see `facts_of`

    def example(self) -> Tensor:
        """Random images (2, C, size, size), the same ones each time."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2, self.network.channels, self.network.size, self.network.size, generator=generator)


def write_description(bundle: Bundle, folder: Path, card: str) -> None:
    """Write `solo.json`, `taxonomy.json` (where there is a tree) and `README.md`."""
    tree = None if bundle.taxonomy is None else bundle.taxonomy.to_dict()
    told: dict[str, Any] = {"format": _FORMAT, "network": dataclasses.asdict(bundle.network)}
    told |= {"features_dim": bundle.features_dim, "taxonomy": tree, "facts": dict(bundle.facts)}
    write_text(folder / DESCRIPTION, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    if tree is not None:
        write_text(folder / "taxonomy.json", json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", card)


def read_exported(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields of the `Bundle` and weights of the backbone in anybody's folder; a `UserError` if it is broken."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file, weights = folder / DESCRIPTION, folder / "model.safetensors"
    cure = "export the run again"
    with explained(f"{file} can't be read", cure, OSError, ValueError, KeyError, TypeError, AttributeError):
        told = parse_json(file.read_bytes())
        if told["format"] != _FORMAT:
            raise UserError(f"{file} has format {told['format']}, this version reads {_FORMAT}; update solo")
        network = Network(**told["network"])
        found = {
            "network": dataclasses.replace(network, mean=tuple(network.mean), std=tuple(network.std)),
            "features_dim": int(told["features_dim"]),
            "taxonomy": Taxonomy.from_dict(told["taxonomy"]) if told["taxonomy"] else None,
            "facts": told["facts"],
        }
    if not weights.is_file():
        raise UserError(f"{folder} has no {weights.name}; export the run with to=safetensors, timm or hf")
    with explained(f"{weights} can't be read", cure, SafetensorError, OSError, ValueError):
        state = load_file(weights)
    classifier = {k.removeprefix("classifier."): state.pop(k) for k in list(state) if k.startswith("classifier.")}
    return {**found, "classifier": classifier}, {k.removeprefix("backbone."): value for k, value in state.items()}


_MEASURED = ("val_acc1", "val_acc5", "knn_acc1", "knn_acc5")


def model_card(bundle: Bundle, usage: Sequence[str] = ()) -> str:
    """Markdown with the front matter that the Hugging Face hub reads; `usage` are lines of Python that load it."""
    facts, network = bundle.facts, bundle.network
    numbers, protocol, rows = facts.get("numbers") or {}, facts.get("protocol") or {}, []
    for name, value in numbers.items():
        if isinstance(value, (int, float)) and not name.endswith("_ci"):
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
    known: Any = {"facts": facts, "network": network, "mean": mean, "std": std, "usage": usage, "rows": rows}
    known |= {"features_dim": bundle.features_dim, "taxonomy": bundle.taxonomy}
    known["told"] = {name: value for name, value in told.items() if value is not None}
    text: str = Template(page, keep_trailing_newline=True).render(known)
    return text


def facts_of(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `summary.json` and `evaluate.json` in a run's folder say of it; percent, `_ci` are 95 % intervals."""
    summary, evaluated = read_facts(folder / "summary.json"), read_facts(folder / "evaluate.json")
    told = {key: summary.get(key) for key in ("name", "method", "dataset", "epochs", "seed", "versions", "protocol")}
    told["name"] = told["name"] or settings.get("name")
    told["method"] = told["method"] or settings.get("method") or settings.get("pretrain_method")
    told["dataset"] = told["dataset"] or (settings.get("data") or {}).get("dataset")
    told |= {key: None for key in ("versions", "protocol") if not isinstance(told[key], dict)}
    numbers = {key: summary[key] for key in _MEASURED if isinstance(summary.get(key), (int, float))}
    with contextlib.suppress(LookupError, TypeError, AttributeError):  # anyone's file
        for level in [level for result in evaluated["results"] for level in result["levels"]]:
            found = {key: x for key, x in level.items() if key.removesuffix("_ci").endswith(("_acc1", "map_at_r"))}
            numbers |= {f"{level['level']}: {key}": value for key, value in found.items()}
    return {**{key: value for key, value in told.items() if value is not None}, "numbers": numbers}
