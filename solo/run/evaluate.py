"""`solo evaluate`: what features know of every level of the label tree."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from solo.analysis.pages import words_of
from solo.args.eval_schema import EvaluateCfg
from solo.eval.linear import CLOSE
from solo.eval.suite import MEASURES, Protocol, evaluate
from solo.files import write_text
from solo.run.feature_source import facts_of, load_features, open_folder, will_write
from solo.run.machine import compute_device
from solo.run.report import say, show_levels


def run(cfg: EvaluateCfg) -> dict[str, Any]:
    """Measure the features that `cfg` names, into `<checkpoint.dir>/evaluate/<run id>/evaluate.json`, and return it."""
    device, words = compute_device(cfg), words_of("evaluate")
    will_write(cfg, "evaluate")
    found, cfg = load_features(cfg, cfg.feature_type, device)
    if "linear" in cfg.measures and next(iter(found.values())).train is None:
        say("no training images: the linear classifier is left out, and neighbours are the other validation images")
    for features in found.values():
        if bool((features.val.features == features.val.features[:1]).all()):
            say("note: all images have the same features; what is nearest is then the order of the images")
    protocol = Protocol(**{item.name: getattr(cfg, item.name) for item in fields(Protocol)})
    shown: dict[str, str] = {}
    for name, text in words["levels"].items():
        shown |= {f"{name}{k}": text.format(k=k) for k in protocol.top_k} if name == "retrieval_top" else {name: text}
    results: list[dict[str, Any]] = []
    for kind, features in found.items():
        for result in evaluate(features, protocol, device):
            results.append({"feature_type": kind, **result})
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
            if len(features.levels) > 1:  # with one, they say what the accuracies say
                _show_hierarchy(result.get("hierarchy", {}))
    folder = open_folder(cfg, "evaluate")
    source = dict(next(iter(found.values())).facts)
    left_out = {*MEASURES} - {*protocol.measures} | (set() if protocol.intervals else {"_ci"})
    told = {name: text for name, text in words["protocol"].items() if name not in left_out}
    told = {name: text.format(close=CLOSE, **vars(protocol)) for name, text in told.items()}
    facts = facts_of(cfg, "evaluate", seed=cfg.seed, source=source, protocol=told) | {"results": results}
    write_text(folder / "evaluate.json", json.dumps(facts, indent=2) + "\n")
    say(f"files in {folder}: evaluate.json, config.yaml")
    return facts


def _show_hierarchy(found: Mapping[str, Any]) -> None:
    """The mistakes of each classifier beside each other, and a line on the embedding's tree."""
    words = words_of("evaluate")
    named = words["classifiers"].items()
    if classifiers := [{"level": text, **found[name]} for name, text in named if name in found]:
        show_levels("mistakes in the label tree", classifiers, words["mistakes"])
    if "retrieval" in found:
        show_levels("retrieval with graded relevance", [{"level": "all", **found["retrieval"]}], words["graded"])
    if "tree" in found:
        tree = {key: "-" if value is None else f"{value:.3f}" for key, value in found["tree"].items()}
        say(words["tree"].format(**tree))
