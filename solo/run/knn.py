"""`solo knn`: k-nearest-neighbour accuracy of a checkpoint's features, for all combinations of its settings."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from solo.args.eval_schema import KnnCfg
from solo.errors import UserError
from solo.eval.features import FeatureTable
from solo.eval.knn import nearest, vote_accuracy
from solo.files import csv_text, write_text
from solo.run.feature_source import facts_of, load_features, open_folder, will_write
from solo.run.machine import compute_device
from solo.run.report import say, show_table

Row = dict[str, Any]


def run(cfg: KnnCfg) -> None:
    """Measure the features that `cfg` names; write into `<checkpoint.dir>/knn/<run id>/`."""
    device = compute_device(cfg)
    will_write(cfg, "knn")
    found, cfg = load_features(cfg, cfg.feature_type, device)
    rows: list[Row] = []
    voters = 0
    for kind, features in found.items():
        bank, queries, levels = features.train, features.val, features.levels
        if bank is None:
            raise UserError(
                f"solo knn needs training images, and {features.name} has none; a file of features takes them as "
                "train_features and train_labels"
            )
        if not levels:
            raise UserError(f"solo knn needs labels, and {features.name} has none")
        voters = len(bank)
        say(f"{kind} features, {bank.features.shape[1]} numbers each")
        rows += ({"feature_type": kind, **row} for row in _measure(cfg, bank, queries, levels, device))
    folder = open_folder(cfg, "knn")
    protocol = (
        f"bank: {voters:,} plain training images without augmentation; all {len(queries):,} validation images; "
        "votes weighted by exp(cosine / temperature) or 1 / (euclidean distance + 1e-5)"
    )
    source = {"method": cfg.pretrain_method, "backbone": cfg.backbone.name, "features": cfg.features}
    source["checkpoint"] = cfg.pretrained_feature_extractor
    facts = {**facts_of(cfg, "knn", **source, protocol=protocol), "results": rows}
    write_text(folder / "knn.json", json.dumps(facts, indent=2) + "\n")
    write_text(folder / "knn.csv", csv_text(rows))
    short = {"feature_type": "features", "distance_function": "distance", "temperature": "T"}
    shown = [{short.get(name, name): value for name, value in row.items()} for row in rows]
    show_table(f"{cfg.name} on {cfg.data.dataset or cfg.features}: accuracy in percent", shown)
    say(f"protocol: {protocol}\nfiles in {folder}: knn.json, knn.csv, config.yaml")


def _measure(
    cfg: KnnCfg, bank: FeatureTable, queries: FeatureTable, levels: Sequence[str], device: torch.device
) -> Iterator[Row]:
    keys, query = bank.features.to(device), queries.features.to(device)
    targets = bank.labels.to(device), queries.labels.to(device)
    most = min(max(cfg.k), len(keys))
    if most < max(cfg.k):
        say(f"k={max(cfg.k)} is more than the {len(keys)} training images; all of them vote")
    for distance in cfg.distance_function:
        similarity, rows = nearest(query, keys, most, distance)
        for k in cfg.k:
            for temperature in cfg.temperature if distance == "cosine" else [None]:
                t = "" if temperature is None else f", T={temperature:g}"
                say(f"Running k-NN with params: distance_fx={distance}, k={k}{t}")
                options: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
                found = vote_accuracy(similarity[:, :k], rows[:, :k], *targets, distance=distance, **options)
                say(f"Result: acc@1={found[-1][0]:.2f}, acc@5={found[-1][1]:.2f}")
                row: Row = {"distance_function": distance, "k": k, "temperature": temperature}
                for level, (acc1, acc5) in zip(levels, found, strict=True):
                    row |= {f"{level}_acc1": round(acc1, 4), f"{level}_acc5": round(acc5, 4)}
                yield row
