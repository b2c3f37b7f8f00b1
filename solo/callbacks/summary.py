"""The numbers of a run and how they came about: `summary.json`."""

import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from statistics import fmean
from typing import Any

import solo
from solo.args.differences import flat, may_change, never_matters
from solo.hex.catalogue import POLICIES

Row = dict[str, float]
_OF_HEX = ("with_relatives", "gradient_cosine", "shown_with_relatives")  # one of them is there if HEX did anything


@dataclass(frozen=True)
class Work:
    """What an image costs: its `views`, `flops` for all of them, and what all devices together do a second (`peak`)."""

    views: int
    flops: int
    peak: float | None = None

    def rates(self, images_per_second: float | None) -> dict[str, float | None]:
        """Views a second, operations an image, and model FLOPs utilisation (Chowdhery et al., 2022) in percent."""
        speed = images_per_second
        found = {"views_per_second": speed and speed * self.views, "model_flops_per_image": self.flops}
        return found | ({"mfu": 100 * speed * self.flops / self.peak} if speed and self.peak else {})


@dataclass(frozen=True)
class Facts:
    """What a summary says besides the measured numbers."""

    kind: str  # "pretrain" or "linear"
    cfg: Mapping[str, Any]  # the resolved configuration, plain values
    levels: Sequence[str] = ()  # names of the label tree's levels, the coarsest first; empty without labels
    protocol: Mapping[str, str] = field(default_factory=dict)  # for each number, in words, how it came about
    extra: Mapping[str, Any] = field(default_factory=dict)  # further entries of the file
    work: Work | None = None  # of an image, if that is known

    @property
    def title(self) -> str:
        """One line that names the run."""
        return f"{self.cfg.get('name', '')} · {self.kind} · {self.dataset}"

    @property
    def dataset(self) -> str:
        """The name of the data set."""
        return str((self.cfg.get("data") or {}).get("dataset", ""))


def summarize(rows: Sequence[Row], facts: Facts, run_id: str, status: str) -> dict[str, Any]:
    """Flat numbers of the last epoch, means over the run for the speed; accuracies in percent.

    A number that wasn't measured is left out; one that isn't finite is null.
    """
    last = rows[-1] if rows else {}
    policy = (facts.cfg.get("hex") or {}).get("policy")  # None where there is none, as in linear evaluation
    names = {"val_acc1": "val_acc1", "val_acc5": "val_acc5", "knn_acc1": "val_knn_acc1", "knn_acc5": "val_knn_acc5"}
    names |= {name: name for name in ("loss", "train_class_loss", "val_loss")} | {"threshold": "hex/threshold"}
    names |= {"hierarchy_negatives": "hex/hierarchy_negatives", "superclass_share": "hex/superclass_share"}
    numbers = {name: _number(last[key]) for name, key in names.items() if key in last}
    numbers |= {key: _number(value) for key, value in last.items() if key.startswith("online/")}
    for name in ("images_per_second", "data_wait"):  # without the first epoch, which pays for the start
        values = [row[name] for row in rows if name in row]
        numbers[name] = _number(fmean(values[1:] or values)) if values else None
    if facts.work is not None:
        numbers |= facts.work.rates(numbers["images_per_second"])
    numbers["peak_memory_mb"] = _number(max((row.get("peak_memory_mb", math.nan) for row in rows), default=math.nan))
    measured = {name.partition("/")[0] for name in numbers}
    return {
        "status": status,
        "kind": facts.kind,
        "name": facts.cfg.get("name"),
        "method": facts.cfg.get("method"),
        "type": POLICIES[policy].shown if policy in POLICIES else policy,
        "run_id": run_id,
        "dataset": facts.dataset,
        **numbers,
        **({"hex": hex_did(last)} if {f"hex/{name}" for name in _OF_HEX} & last.keys() else {}),
        "levels": _levels(last, facts.levels),
        "protocol": {name: text for name, text in facts.protocol.items() if name in measured},
        "epochs": int(last["epoch"]) + 1 if rows else 0,
        "max_epochs": facts.cfg.get("max_epochs"),
        "run_seconds": _number(sum(row.get("seconds", 0.0) for row in rows)),
        "seed": facts.cfg.get("seed"),
        "config_hash": config_hash(facts.cfg),
        "versions": versions(),
        **facts.extra,
    }


def config_hash(cfg: Mapping[str, Any]) -> str:
    """Twelve hex digits of the settings that decide about the result; names and folders don't count."""
    idle = never_matters()
    kept = {key: value for key, value in flat(cfg) if not may_change(key, idle)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def versions(*more: str) -> dict[str, str]:
    """Versions of what computed the numbers, and of more packages."""
    found = {"python": platform.python_version(), "solo": solo.__version__}
    for name in ("torch", "lightning", "timm", *more):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a build of its own, under another name
            found[name] = "unknown"
    return found


def _levels(last: Row, levels: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Accuracies of every level; the finest is the plain number where it isn't logged on its own."""
    keys = {"val_acc1": "val_acc1", "knn_acc1": "val_knn_acc1"}
    out: dict[str, dict[str, float | None]] = {}
    for level in levels:
        out[level] = {name: _number(last[f"{key}/{level}"]) for name, key in keys.items() if f"{key}/{level}" in last}
        if level == levels[-1]:
            plain = {name: _number(last[key]) for name, key in keys.items() if key in last}
            out[level] = {**plain, **out[level]}
    return {level: numbers for level, numbers in out.items() if numbers}


def hex_did(last: Row) -> dict[str, Any]:
    """What HEX did in the last epoch: numbers and a line of text; see `solo.hex.probe`."""
    bands = ("with_relatives", "mass", "own_class", "siblings", "strangers")
    names = ("gradient_cosine", *(f"{band}{name}" for band in ("", "kin_", "shown_") for name in bands))
    found = {name: last[f"hex/{name}"] for name in names if f"hex/{name}" in last}
    said = []
    for band, whom in (("", "relatives"), ("kin_", "kin that is weighed"), ("shown_", "relatives that are shown")):
        share = {name: f"{found[band + name]:.1%}" for name in names if band + name in found}
        if "with_relatives" in share:
            said.append(f"{share['with_relatives']} of the anchors have {whom}")
        if "mass" in share:
            said.append(f"holding {share['mass']} of the denominator")
        if "own_class" in share:
            parts = share["own_class"], share["siblings"], share["strangers"]
            said.append("{} own class, {} siblings, {} strangers".format(*parts))
    if "gradient_cosine" in found:
        said.append(f"cosine of the gradient to InfoNCE's {found['gradient_cosine']:.4f}")
    return {**{name: _number(value) for name, value in found.items()}, "text": ", ".join(said)}


def _number(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
