"""`solo evaluate`: what features know of every level of the label tree."""

from __future__ import annotations

import json
from typing import Any

from omegaconf import DictConfig

from solo.errors import UserError
from solo.eval.features import Features
from solo.eval.knn import knn_accuracy
from solo.files import write_text
from solo.run.evaluation import open_folder
from solo.run.feature_source import load_features
from solo.run.report import say, show_table
from solo.run.trainer import compute_device

Row = dict[str, Any]


def run(cfg: DictConfig) -> None:
    """Measure the features that `cfg` names; write into `<checkpoint.dir>/evaluate/<run id>/`; `cfg` is resolved."""
    found = load_features(cfg, cfg.feature_type, compute_device(cfg))
    folder = open_folder(cfg, "evaluate")
    results = [{"feature_type": kind, "levels": _measure(cfg, features)} for kind, features in found.items()]
    write_text(folder / "evaluate.json", json.dumps({"results": results}, indent=2) + "\n")
    for result in results:
        kind = result["feature_type"]
        show_table(f"{found[kind].name}, {kind}: accuracy in percent", result["levels"])
    say(f"files in {folder}: evaluate.json, config.yaml")


def _measure(cfg: DictConfig, features: Features) -> list[Row]:
    if not features.levels or features.train is None:
        raise UserError(f"{features.name} has no labels or no training images")
    bank, val = features.train, features.val
    accuracies = knn_accuracy(
        bank.features, bank.labels, val.features, val.labels, k=cfg.k, temperature=cfg.temperature
    )
    return [
        {"level": level, "knn_acc1": acc1, "knn_acc5": acc5}
        for level, (acc1, acc5) in zip(features.levels, accuracies, strict=True)
    ]
