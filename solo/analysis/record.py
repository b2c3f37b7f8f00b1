"""Everything that was found as plain values, for `analysis.json`."""

import math
from collections.abc import Sequence
from typing import Any

from solo.analysis.findings import Finding
from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.runs import Analysis


def record(analysis: Analysis, found: Sequence[Finding]) -> dict[str, Any]:
    """What `analysis.json` holds: protocol, labels, findings, and the numbers of every snapshot."""
    labelling = analysis.labelling

    def spaces(held: dict[str, Numbers]) -> dict[str, Any]:
        return {SPACES.get(space, space): plain(_space(numbers)) for space, numbers in held.items()}

    return {
        "kind": "analysis",
        "title": analysis.title,
        "protocol": analysis.protocol,
        "labels": {
            "levels": labelling.levels,
            "names": labelling.names,
            "superclass": labelling.superlevel,
            "given": labelling.levels[len(labelling.levels) - labelling.given :],
        },
        "findings": [vars(one) for one in found],
        "runs": [
            {
                "name": run.name,
                "snapshots": [
                    {"name": one.name, "epoch": one.epoch, "facts": dict(one.facts), "spaces": spaces(one.spaces)}
                    for one in run.snapshots
                ],
            }
            for run in analysis.runs
        ],
    }


def _space(numbers: Numbers) -> dict[str, Any]:
    """One space of one snapshot."""
    low, mean, high = numbers.local_rank
    chosen, cosine, tree, agreement = numbers.selection, numbers.cosine, numbers.tree, numbers.agreement
    found: dict[str, Any] = {
        "images": numbers.count,
        "dim": numbers.dim,
        "knn_acc1": numbers.knn,
        "effective_rank": numbers.effective_rank,
        "rankme": numbers.rankme,
        "alpha_req": numbers.alpha,
        "lidar": numbers.lidar,
        "uniformity": numbers.uniformity,
        "local_effective_rank": {"lowest": low, "mean": mean, "highest": high},
        "local_over_global": numbers.mean_ratio,
        "eigenvalues": numbers.eigenvalues[:512].tolist(),
        "threshold": {
            "cosine": chosen.threshold,
            "images_above": chosen.selected,
            "precision": chosen.precision,
            "recall": chosen.recall,
        },
        "profile": [
            {"level": node.level, "node": node.node, "images": node.count, "ratio": node.ratio}
            | {"effective_rank": node.effective_rank, "reference": node.reference}
            for node in numbers.profile
        ],
        "pairs": [vars(pair) for pair in numbers.pairs],
    }
    if cosine is not None:
        kinds = {"same": cosine.same, "other": cosine.other}
        found["cosine"] = {
            name: {"pairs": part.pairs, "mean": part.mean, "std": part.std, "histogram": part.histogram.tolist()}
            for name, part in kinds.items()
        } | {"ratio": cosine.ratio, "gap": cosine.gap}
    if tree is not None:
        found["tree"] = {"classes": numbers.classes.tolist(), "merges": tree.merges.tolist(), "fidelity": tree.fidelity}
    if agreement is not None:
        found["tree_agreement"] = vars(agreement)
    return found


def plain(value: Any) -> Any:
    """Numbers as JSON has them, with six significant digits, null where they aren't finite; in mappings and lists."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
