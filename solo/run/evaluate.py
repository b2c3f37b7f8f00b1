"""`solo evaluate`: what features know of every level of the label tree."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from solo.args.eval_schema import EvaluateCfg
from solo.eval.linear import CLOSE
from solo.eval.suite import Protocol, evaluate
from solo.files import write_text
from solo.run.devices import compute_device
from solo.run.feature_source import facts_of, load_features, open_folder, will_write
from solo.run.report import say, show_levels

# Number of evaluate.json -> its words in the table; the others are in the file only.
_SHOWN = {
    "linear_acc1": "linear top-1, %",
    "linear_acc5": "linear top-5, %",
    "knn_acc1": "kNN top-1, %",
    "knn_acc5": "kNN top-5, %",
    "linear_mean_per_class": "linear mean per class, %",
    "knn_mean_per_class": "kNN mean per class, %",
    "linear_ece": "linear calibration error, %",
    "linear_ece_summed": "the same of classes added up, %",
    "r_precision": "R-precision, %",
    "map_at_r": "MAP@R, %",
    "nmi": "k-means NMI",
    "ami": "k-means AMI",
    "nmi_inside": "NMI inside the level above",
    "ami_inside": "AMI inside the level above",
}
_WORDS = {"linear": "linear", "crm": "linear, least expected height (CRM)", "knn": "kNN"}
_OF_MISTAKES = {
    "severity": "severity of mistakes",
    "distance": "distance of predictions",
    "precision": "hierarchical precision",
    "recall": "hierarchical recall",
    "f1": "hierarchical F1",
    "consistency": "levels consistent, %",
    "full_path": "right at all levels, %",
    "hops": "HOPS, %",
}
_GRADED = {"h_ap": "H-AP, %", "ndcg": "NDCG, %", "asi": "ASI, %"}
_SEVERAL = {"map": "mAP, %", "map_11": "mAP at 11 recalls, %"}


def run(cfg: EvaluateCfg) -> dict[str, Any]:
    """Measure the features that `cfg` names, into `<checkpoint.dir>/evaluate/<run id>/evaluate.json`, and return it."""
    device = compute_device(cfg)
    will_write(cfg, "evaluate")
    found, cfg = load_features(cfg, cfg.feature_type, device)
    if "linear" in cfg.measures and next(iter(found.values())).train is None:
        say("no training images: the linear classifier is left out, and neighbours are the other validation images")
    for features in found.values():
        if bool((features.val.features == features.val.features[:1]).all()):
            say("note: all images have the same features; what is nearest is then the order of the images")
    protocol = Protocol(**{item.name: getattr(cfg, item.name) for item in fields(Protocol)})
    results: list[dict[str, Any]] = []
    for kind, features in found.items():
        for result in evaluate(features, protocol, device):
            results.append({"feature_type": kind, **result})
            which = "" if result["classes"] == "all" else f", {result['classes']} classes only"
            title = f"{features.name}, {features.kind}{which}: {result['images']['val']:,} images"
            if several := result.get("several"):  # a column for each of many labels is too wide
                show_levels(title, [{"level": f"{several['labels']} labels at once", **several}], _SEVERAL)
            else:
                show_levels(title, result["levels"], _shown(protocol))
            _warn_of_gradients(result["levels"], protocol)
            if len(features.levels) > 1:  # with one, they say what the accuracies say
                _show_hierarchy(result.get("hierarchy", {}))
    folder = open_folder(cfg, "evaluate")
    source = dict(next(iter(found.values())).facts)
    facts = facts_of(cfg, "evaluate", seed=cfg.seed, source=source, protocol=_protocol(protocol)) | {"results": results}
    write_text(folder / "evaluate.json", json.dumps(facts, indent=2) + "\n")
    say(f"files in {folder}: evaluate.json, config.yaml")
    return facts


def _show_hierarchy(found: Mapping[str, Any]) -> None:
    """The mistakes of each classifier beside each other, and a line on the embedding's tree."""
    classifiers = [{"level": _WORDS[name], **numbers} for name, numbers in found.items() if name in _WORDS]
    if classifiers:
        show_levels("mistakes in the label tree", classifiers, _OF_MISTAKES)
    if "retrieval" in found:
        show_levels("retrieval with graded relevance", [{"level": "all", **found["retrieval"]}], _GRADED)
    if "tree" in found:
        tree = {key: "-" if value is None else f"{value:.3f}" for key, value in found["tree"].items()}
        say(
            f"tree of the classes' mean features: cophenetic correlation with the label tree {tree['cophenetic']} "
            f"(p {tree['p_value']}), Baker's gamma {tree['gamma']}, "
            f"CPCC {tree['cpcc']}, subtrees recovered {tree['recovered']}"
        )


def _warn_of_gradients(levels: Sequence[Mapping[str, Any]], protocol: Protocol) -> None:
    for level in levels:
        if level.get("linear_gap", 0) > CLOSE:
            say(
                f"warning: the linear classifier of level '{level['level']}' is not solved after "
                f"{protocol.linear_steps:,} steps: gradient {level['linear_gradient']:.2g}, objective up to "
                f"{level['linear_gap']:.2g} above its optimum; raise linear_steps or l2"
            )


def _shown(protocol: Protocol) -> dict[str, str]:
    top = {f"retrieval_top{k}": f"retrieval top-{k}, %" for k in protocol.top_k}
    names = list(_SHOWN.items())
    return dict([*names[:8], *top.items(), *names[8:]])


def _protocol(protocol: Protocol) -> dict[str, str]:
    """How each number came about, in words."""
    texts = {}
    if "linear" in protocol.measures:
        texts["linear"] = (
            f"logistic regression on standardised features of training images, L2 penalty {protocol.l2:g}, each level "
            f"by itself, by L-BFGS until the objective is within {CLOSE:g} of its optimum or {protocol.linear_steps} "
            "steps; linear_gap bounds what is left, linear_gradient is its size; left out without training images; "
            "mean_per_class, mean of the classes' accuracies; ece, expected calibration error in 15 equal bins; "
            "ece_summed, the same where a level's probabilities are the sums of its classes'; where no column of the "
            "labels is of a tree and all are 0 or 1, map is mean average precision over the columns, and map_11 "
            "VOC2007's over eleven recalls"
        )
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
            "k-means of L2-normalised validation features, k = classes of the level, best of 3 runs (1 above 1,000); "
            "NMI with arithmetic mean; inside: mean over the classes of the level above, each clustered by itself"
        )
    if "hierarchy" in protocol.measures:
        texts["hierarchy"] = (
            "predicted classes against the label tree: severity, height of the lowest common ancestor of mistakes; "
            "distance, the same over all images; precision, recall, f1 over ancestors; consistency, predictions of all "
            "levels on one path, full_path, all of them right, in percent; hops of arXiv 2503.07853 by the linear "
            "classifier's scores, in percent; retrieval: H-AP, NDCG and ASI of HAPPIER (ECCV 2022), queries and "
            "galleries as in retrieval; tree: average linkage of the classes' mean features by cosine, cophenetic "
            "correlation with the label tree, p_value of 199 re-labellings"
        )
    texts["unknown labels"] = "left out at their level, and counted (unknown, queries_unknown)"
    texts["seen and unseen classes"] = "validation and training images of these classes only"
    if protocol.intervals:
        texts["_ci"] = (
            "95 % interval over the choice of the images measured, not over training runs: Wilson's or Jeffreys's, as "
            "a coin says, where training images vote or teach; else, and for retrieval, by the differences of 50 "
            "random halves, whose images are each other's gallery"
        )
    return texts
