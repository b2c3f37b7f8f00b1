"""Everything that was found as plain values, for `analysis.json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from solo.analysis.findings import Finding
from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.runs import Analysis
from solo.analysis.trends import local_rank, mean_ratio

Plain = str | float | int | None


def record(analysis: Analysis, found: Sequence[Finding]) -> dict[str, Any]:
    """What `analysis.json` holds: protocol, labels, findings, and the numbers of every snapshot."""
    labelling = analysis.labelling
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
                    {
                        "name": snapshot.name,
                        "epoch": snapshot.epoch,
                        "facts": dict(snapshot.facts),
                        "spaces": {
                            SPACES.get(space, space): _space(numbers, labelling.levels)
                            for space, numbers in snapshot.spaces.items()
                        },
                    }
                    for snapshot in run.snapshots
                ],
            }
            for run in analysis.runs
        ],
    }


def _space(numbers: Numbers, levels: tuple[str, ...]) -> dict[str, object]:
    """One space of one snapshot as plain values; what isn't finite is null."""
    low, mean, high = local_rank(numbers)
    found: dict[str, object] = {
        "images": numbers.count,
        "dim": numbers.dim,
        "knn_acc1": {level: plain(numbers.knn[level]) for level in levels},
        "effective_rank": plain(numbers.effective_rank),
        "rankme": plain(numbers.rankme),
        "alpha_req": plain(numbers.alpha),
        "lidar": plain(numbers.lidar),
        "uniformity": plain(numbers.uniformity),
        "local_effective_rank": {"lowest": plain(low), "mean": plain(mean), "highest": plain(high)},
        "local_over_global": plain(mean_ratio(numbers)),
        "eigenvalues": [plain(value) for value in numbers.eigenvalues[:512].tolist()],
        "threshold": {
            "cosine": plain(numbers.selection.threshold),
            "images_above": plain(numbers.selection.selected),
            "precision": plain(numbers.selection.precision),
            "recall": plain(numbers.selection.recall),
        },
        "profile": [
            {"level": node.level, "node": node.node, "images": node.count, "ratio": plain(node.ratio)}
            | {"effective_rank": plain(node.effective_rank), "reference": plain(node.reference)}
            for node in numbers.profile
        ],
        "pairs": [
            {"first": pair.first, "second": pair.second, "mixing": plain(pair.mixing)}
            | {"separation": plain(pair.separation), "cosine": plain(pair.cosine)}
            | {"examples": [list(rows) for rows in pair.examples]}
            for pair in numbers.pairs
        ],
    }
    if numbers.cosine is not None:
        found["cosine"] = {
            name: {
                "pairs": part.pairs,
                "mean": plain(part.mean),
                "std": plain(part.std),
                "histogram": [plain(value) for value in part.histogram.tolist()],
            }
            for name, part in (("same", numbers.cosine.same), ("other", numbers.cosine.other))
        } | {"ratio": plain(numbers.cosine.ratio), "gap": plain(numbers.cosine.gap)}
    if numbers.tree is not None:
        found["tree"] = {
            "classes": numbers.classes.tolist(),
            "merges": [[plain(value) for value in merge] for merge in numbers.tree.merges.tolist()],
            "fidelity": plain(numbers.tree.fidelity),
        }
    if numbers.agreement is not None:
        agreement = numbers.agreement
        found["tree_agreement"] = {
            "cophenetic": plain(agreement.cophenetic),
            "p_value": plain(agreement.p_value),
            "gamma": plain(agreement.gamma),
            "recovered": plain(agreement.recovered),
            "purity": {levels[level]: plain(value) for level, value in agreement.purity.items()},
            "dendrogram_purity": {levels[level]: plain(value) for level, value in agreement.dendrogram_purity.items()},
        }
    return found


def plain(value: Plain) -> Plain:
    """A number as JSON has it, with six significant digits; None where it isn't finite."""
    if isinstance(value, (str, int)) or value is None:
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
