"""`solo evaluate`: what features know of every level of the label tree."""

from __future__ import annotations

import json
from typing import Any

from omegaconf import DictConfig

from solo.callbacks.checkpointer import plain_cfg
from solo.callbacks.summary import config_hash, versions
from solo.errors import UserError
from solo.eval.features import Features
from solo.eval.suite import Protocol, evaluate
from solo.files import write_text
from solo.run.evaluation import open_folder
from solo.run.feature_source import load_features
from solo.run.report import say, show_levels
from solo.run.trainer import compute_device

# Number of evaluate.json -> its words in the table; the others are in the file only.
_SHOWN = {
    "knn_acc1": "kNN top-1, %",
    "knn_acc5": "kNN top-5, %",
    "r_precision": "R-precision, %",
    "map_at_r": "MAP@R, %",
    "nmi": "k-means NMI",
    "ami": "k-means AMI",
    "nmi_inside": "NMI inside the level above",
    "ami_inside": "AMI inside the level above",
}


def run(cfg: DictConfig) -> None:
    """Measure the features that `cfg` names; write into `<checkpoint.dir>/evaluate/<run id>/`; `cfg` is resolved."""
    device = compute_device(cfg)
    found = load_features(cfg, cfg.feature_type, device)
    bare = [features.name for features in found.values() if not features.levels]
    if bare:
        raise UserError(f"solo evaluate needs labels, and {bare[0]} has none; solo analyze works without")
    protocol = Protocol(
        measures=tuple(cfg.measures),
        k=cfg.k,
        temperature=cfg.temperature,
        top_k=tuple(cfg.top_k),
        max_queries=cfg.max_queries,
        bootstrap=cfg.bootstrap,
        seed=cfg.seed,
    )
    folder = open_folder(cfg, "evaluate")
    results: list[dict[str, Any]] = []
    for kind, features in found.items():
        for result in evaluate(features, protocol, device):
            results.append({"feature_type": kind, **result})
            show_levels(_title(features, result), result["levels"], _shown(protocol))
    facts = {"kind": "evaluate", "name": cfg.name, "dataset": cfg.data.dataset, "seed": cfg.seed}
    facts |= {"source": dict(next(iter(found.values())).facts), "protocol": _protocol(protocol)}
    facts |= {"config_hash": config_hash(plain_cfg(cfg)), "versions": versions(), "results": results}
    write_text(folder / "evaluate.json", json.dumps(facts, indent=2) + "\n")
    say(f"files in {folder}: evaluate.json, config.yaml")


def _title(features: Features, result: dict[str, Any]) -> str:
    which = "" if result["classes"] == "all" else f", {result['classes']} classes only"
    return f"{features.name}, {features.kind}{which}: {result['images']['val']:,} images"


def _shown(protocol: Protocol) -> dict[str, str]:
    top = {f"retrieval_top{k}": f"retrieval top-{k}, %" for k in protocol.top_k}
    names = list(_SHOWN.items())
    return dict([*names[:2], *top.items(), *names[2:]])


def _protocol(protocol: Protocol) -> dict[str, str]:
    """How each number came about, in words."""
    texts = {}
    if "knn" in protocol.measures:
        texts["knn"] = (
            f"{protocol.k} nearest training images by cosine vote with weights exp(cosine / {protocol.temperature:g}), "
            "each level by itself; without training images the other validation images vote"
        )
    if "retrieval" in protocol.measures:
        texts["retrieval"] = (
            "validation images by cosine; right: same label at the level; the queries' gallery is the data set's, else "
            f"all other validation images; at most {protocol.max_queries:,} queries, drawn at random; MAP@R as in "
            "Musgrave et al. 2020; queries with nothing right in their gallery are left out (queries_alone)"
        )
    if "clustering" in protocol.measures:
        texts["clustering"] = (
            "k-means of L2-normalised validation features, k = classes of the level, best of 3 runs; NMI with "
            "arithmetic mean; inside: mean over the classes of the level above, each clustered by itself"
        )
    texts["unknown labels"] = "left out at their level, and counted (unknown, queries_unknown)"
    texts["seen and unseen classes"] = "validation and training images of these classes only"
    if protocol.bootstrap:
        texts["_ci"] = (
            f"95 % percentile bootstrap over validation images, {protocol.bootstrap} resamples; not over training runs"
        )
    return texts
