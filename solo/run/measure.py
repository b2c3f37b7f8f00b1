"""`solo evaluate`, `solo knn` and `solo umap`: what features know of every level of the label tree."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from solo.analysis.pages import words_of
from solo.analysis.plots import draw_embedding
from solo.args.eval_schema import EvaluateCfg, KnnCfg, UmapCfg
from solo.errors import UserError
from solo.eval.features import Features
from solo.eval.knn import nearest, vote_accuracy
from solo.eval.linear import CLOSE
from solo.eval.suite import MEASURES, Protocol
from solo.eval.suite import evaluate as measure
from solo.files import csv_text, write_text
from solo.run.features import facts_of, load_features, open_folder, will_write
from solo.run.machine import compute_device
from solo.run.report import say, show_levels, show_table

Row = dict[str, Any]


def evaluate(cfg: EvaluateCfg) -> dict[str, Any]:
    """Measure the features that `cfg` names, into `<checkpoint.dir>/evaluate/<run id>/evaluate.json`, and return it."""
    device, words = compute_device(cfg), words_of("evaluate")
    will_write(cfg, "evaluate")
    found, cfg = load_features(cfg, cfg.feature_type, device)
    first = next(iter(found.values()))
    if "linear" in cfg.measures and first.train is None:
        say("no training images: the linear classifier is left out, and neighbours are the other validation images")
    protocol = Protocol(**{item.name: getattr(cfg, item.name) for item in fields(Protocol)})
    shown: dict[str, str] = {}
    for name, text in words["levels"].items():
        shown |= {f"{name}{k}": text.format(k=k) for k in protocol.top_k} if name == "retrieval_top" else {name: text}
    results: list[Row] = []
    for kind, features in found.items():
        if bool((features.val.features == features.val.features[:1]).all()):
            say("note: all images have the same features; what is nearest is then the order of the images")
        for result in measure(features, protocol, device):
            results.append({"feature_type": kind, **result})
            _show(result, features, protocol, words, shown)
    folder = open_folder(cfg, "evaluate")
    left_out = {*MEASURES} - {*protocol.measures} | (set() if protocol.intervals else {"_ci"})
    told = {name: text for name, text in words["protocol"].items() if name not in left_out}
    told = {name: text.format(close=CLOSE, **vars(protocol)) for name, text in told.items()}
    facts = facts_of(cfg, "evaluate", seed=cfg.seed, source=dict(first.facts), protocol=told) | {"results": results}
    write_text(folder / "evaluate.json", json.dumps(facts, indent=2) + "\n")
    say(f"files in {folder}: evaluate.json, config.yaml")
    return facts


def _show(
    result: Row, features: Features, protocol: Protocol, words: Mapping[str, Any], shown: Mapping[str, str]
) -> None:
    """The tables of one kind of features: levels, mistakes of each classifier, a line on the embedding's tree."""
    which = "" if result["classes"] == "all" else f", {result['classes']} classes only"
    title = f"{features.name}, {features.kind}{which}: {result['images']['val']:,} images"
    if several := result.get("several"):  # a column for each of many labels is too wide
        show_levels(title, [{"level": f"{several['labels']} labels at once", **several}], words["several"])
    else:
        show_levels(title, result["levels"], shown)
    for level in result["levels"]:
        if level.get("linear_gap", 0) > CLOSE:
            say(
                f"warning: the linear classifier of level '{level['level']}' is not solved after "
                f"{protocol.linear_steps:,} steps: gradient {level['linear_gradient']:.2g}, objective up to "
                f"{level['linear_gap']:.2g} above its optimum; raise linear_steps or l2"
            )
    found = result.get("hierarchy", {}) if len(features.levels) > 1 else {}  # of one, the accuracies say the same
    if classifiers := [{"level": x, **found[name]} for name, x in words["classifiers"].items() if name in found]:
        show_levels("mistakes in the label tree", classifiers, words["mistakes"])
    if "retrieval" in found:
        show_levels("retrieval with graded relevance", [{"level": "all", **found["retrieval"]}], words["graded"])
    if "tree" in found:
        tree = {key: "-" if value is None else f"{value:.3f}" for key, value in found["tree"].items()}
        say(words["tree"].format(**tree))


def knn(cfg: KnnCfg) -> None:
    """Accuracies for all combinations of the settings of k-NN; write into `<checkpoint.dir>/knn/<run id>/`."""
    device = compute_device(cfg)
    will_write(cfg, "knn")
    found, cfg = load_features(cfg, cfg.feature_type, device)
    rows = [{"feature_type": kind, **row} for kind, features in found.items() for row in _votes(cfg, features, device)]
    last = next(reversed(found.values()))
    folder = open_folder(cfg, "knn")
    protocol = (
        f"bank: {len(last.train or ()):,} plain training images without augmentation; all {len(last.val):,} validation "
        "images; votes weighted by exp(cosine / temperature) or 1 / (euclidean distance + 1e-5)"
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


def _votes(cfg: KnnCfg, features: Features, device: torch.device) -> Iterator[Row]:
    bank, queries = features.train, features.val
    if bank is None:
        raise UserError(
            f"solo knn needs training images, and {features.name} has none; a file of features takes them as "
            "train_features and train_labels"
        )
    if not features.levels:
        raise UserError(f"solo knn needs labels, and {features.name} has none")
    say(f"{features.kind} features, {bank.features.shape[1]} numbers each")
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
                options: Row = {} if temperature is None else {"temperature": temperature}
                found = vote_accuracy(similarity[:, :k], rows[:, :k], *targets, distance=distance, **options)
                say(f"Result: acc@1={found[-1][0]:.2f}, acc@5={found[-1][1]:.2f}")
                row: Row = {"distance_function": distance, "k": k, "temperature": temperature}
                for level, (acc1, acc5) in zip(features.levels, found, strict=True):
                    row |= {f"{level}_acc1": round(acc1, 4), f"{level}_acc5": round(acc5, 4)}
                yield row


def umap(cfg: UmapCfg) -> None:
    """Draw the features as PDF and PNG, into `<checkpoint.dir>/umap/<run id>/`, or where `plot_name` says."""
    will_write(cfg, "umap")
    kinds, cfg = load_features(cfg, [cfg.feature_type], compute_device(cfg))
    found = next(iter(kinds.values()))
    folder = open_folder(cfg, "umap")
    names = [(level, found.class_names(place)) for place, level in enumerate(found.levels)]
    start = f"{folder}/" if cfg.plot_name is None else f"{Path(cfg.plot_name).expanduser()}_"
    how: Row = {"embedding": cfg.embedding, "palette": cfg.color_palette, "max_points": cfg.max_points}
    for split, part in (("train", found.train), ("val", found.val)):
        if part is None:
            continue
        files = [Path(f"{start}{split}_{cfg.embedding}.{ending}") for ending in ("pdf", "png")]
        title = f"{cfg.data.dataset or Path(str(cfg.features)).name}, {split}, {found.kind} of {found.name}"
        points, labels = part.features.numpy(), part.labels.numpy()
        drawn = draw_embedding(points, labels, files, names=names, title=title, seed=cfg.seed, **how)
        of = "" if drawn == len(part) else f" of {len(part):,} drawn at random (max_points, seed {cfg.seed})"
        say(f"{files[0]} and .png: {drawn:,} images{of}")
