"""`solo evaluate`: what features know of every level of the label tree."""

from __future__ import annotations

import json
from typing import Any

from omegaconf import DictConfig

from solo.errors import UserError
from solo.eval.features import Features
from solo.eval.knn import nearest, nearest_others, vote_accuracy
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
    results: list[Row] = []
    for kind, features in found.items():
        rows = _measure(cfg, features)
        show_table(f"{features.name}, {kind}: accuracy in percent", rows)
        results.append({"feature_type": kind, "levels": rows})
    write_text(folder / "evaluate.json", json.dumps({"results": results}, indent=2) + "\n")
    say(f"files in {folder}: evaluate.json, config.yaml")


def _measure(cfg: DictConfig, features: Features) -> list[Row]:
    if not features.levels:
        raise UserError(f"solo evaluate needs labels, and {features.name} has none; solo analyze works without")
    val, bank = features.val, features.train or features.val
    if features.train is None:
        similarity, rows = nearest_others(val.features, min(cfg.k, len(val) - 1))
    else:
        similarity, rows = nearest(val.features, bank.features, min(cfg.k, len(bank)))
    accuracies = vote_accuracy(similarity, rows, bank.labels, val.labels, temperature=cfg.temperature)
    return [
        {"level": level, "knn_acc1": acc1, "knn_acc5": acc5}
        for level, (acc1, acc5) in zip(features.levels, accuracies, strict=True)
    ]
