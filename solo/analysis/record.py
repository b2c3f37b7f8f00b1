"""Everything that was found: in sentences, as plain values for `analysis.json`, and how it came about."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from solo.analysis.labelling import Labelling
from solo.analysis.numbers import COSINE_ANCHORS, SPACES, Analysis, Numbers, Run, Settings
from solo.analysis.pages import finite, words_of

_COLLAPSED = 0.9  # mixing from which two classes count as one
_FEW = 0.05  # share of the dimensions below which the whole counts as collapsed
_REACHED = 0.9  # share of a curve's way up


@dataclass(frozen=True)
class Finding:
    """One statement on a run, with the number behind it."""

    topic: str  # what it is about; findings of several runs stand together under it
    run: str  # whose
    value: str  # the number to print large
    unit: str  # behind it
    text: str  # the sentence
    warn: bool = False  # whether it is bad news


def findings(analysis: Analysis) -> list[Finding]:
    """Of every run's last snapshot, and of its way there."""
    return [Finding(topic, run.name, *said) for run in analysis.runs for topic, *said in _found(analysis, run)]


def _found(analysis: Analysis, run: Run) -> Iterator[tuple[Any, ...]]:
    """Topic, value, unit, sentence, and whether it is bad news."""
    labelling, numbers = analysis.labelling, run.last.spaces[analysis.spaces[0]]
    if numbers.effective_rank < max(2.0, _FEW * min(numbers.dim, numbers.count)):
        text = (
            f"The whole {SPACES[analysis.spaces[0]]} fills only {numbers.effective_rank:.1f} directions of "
            f"{numbers.dim}: a global (dimensional) collapse."
        )
        yield "Global collapse", f"{numbers.effective_rank:.1f}", f"of {numbers.dim}", text, True
    fine, coarse = numbers.knn[labelling.level], numbers.knn[labelling.superlevel]
    if math.isfinite(fine):
        more = f"; {coarse:.1f} % of its {labelling.superlevel}" if labelling.nested and math.isfinite(coarse) else ""
        text = f"of the images have the {labelling.level} that their nearest neighbours vote for{more}."
        yield "Neighbours agree", f"{fine:.1f}", "%", text
    if len(numbers.superclasses) > 1:
        worst = min(numbers.superclasses, key=lambda node: node.ratio)
        text = (
            f"“{labelling.names[labelling.superclass][worst.node]}” is where it is poorest inside: an effective rank "
            f"of {worst.effective_rank:.1f}, where as many random images have {worst.reference:.1f}."
        )
        yield "Poorest superclass inside", f"{worst.ratio:.2f}", "local / global", text, worst.ratio < 0.3
    if numbers.pairs:
        pair, names = numbers.pairs[0], labelling.names[-1]
        done = pair.mixing >= _COLLAPSED
        end = "have collapsed onto each other." if done else "are mixed most of all pairs."
        text = f"“{names[pair.first]}” and “{names[pair.second]}” {end}"
        yield "Closest to collapse", f"{pair.mixing:.2f}", "mixing", text, done
    agreement = numbers.agreement
    if agreement is not None and math.isfinite(agreement.cophenetic):
        share = "" if math.isnan(agreement.recovered) else f", {100 * agreement.recovered:.0f} % of its nodes exactly"
        chance = f" (p = {agreement.p_value:.3f})" if math.isfinite(agreement.p_value) else ""
        text = f"cophenetic correlation of the emergent tree with the label tree{chance}{share}."
        yield "Emergent tree against the labels", f"{agreement.cophenetic:.2f}", "agreement", text
    if len(run.snapshots) > 2 and labelling.nested:
        first, second = (_reached(analysis, run, level) for level in (labelling.superlevel, labelling.level))
        if first is not None and second is not None:
            text = (
                f"is when the {labelling.superlevel} level has made 90 % of its gain in kNN accuracy since the first "
                f"snapshot; the {labelling.level} level is there after {second}."
            )
            yield "What emerges first", f"{first}", f"epoch{'s' * (first != 1)}", text


def _reached(analysis: Analysis, run: Run, level: str) -> int | None:
    """The epoch at which a level has made most of its way; None if it has made none, or nobody knows the epoch."""
    curve = [snapshot.spaces[analysis.spaces[0]].knn[level] for snapshot in run.snapshots]
    if not curve[-1] > curve[0]:
        return None
    goal = curve[0] + _REACHED * (curve[-1] - curve[0])
    return next(one.epoch for one, value in zip(run.snapshots, curve, strict=True) if value >= goal)


def record(analysis: Analysis, found: Sequence[Finding]) -> dict[str, Any]:
    """What `analysis.json` holds: protocol, labels, findings, and the numbers of every snapshot."""
    labelling, runs = analysis.labelling, []
    for run in analysis.runs:
        snapshots = []
        for one in run.snapshots:
            spaces = {SPACES.get(space, space): finite(_space(n), digits=6) for space, n in one.spaces.items()}
            snapshots.append({"name": one.name, "epoch": one.epoch, "facts": dict(one.facts), "spaces": spaces})
        runs.append({"name": run.name, "snapshots": snapshots})
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
        "runs": runs,
    }


def _space(numbers: Numbers) -> dict[str, Any]:
    """One space of one snapshot."""
    chosen, cosine, tree, agreement = numbers.selection, numbers.cosine, numbers.tree, numbers.agreement
    found: dict[str, Any] = {
        "images": numbers.count,
        "dim": numbers.dim,
        "knn_acc1": numbers.knn,
        **{name: getattr(numbers, name) for name in ("effective_rank", "rankme", "lidar", "uniformity")},
        "alpha_req": numbers.alpha,
        "local_effective_rank": dict(zip(("lowest", "mean", "highest"), numbers.local_rank, strict=True)),
        "local_over_global": numbers.mean_ratio,
        "eigenvalues": numbers.eigenvalues[:512].tolist(),
        "threshold": {"cosine": chosen.threshold, "images_above": chosen.selected}
        | {"precision": chosen.precision, "recall": chosen.recall},
        "profile": [
            {"level": node.level, "node": node.node, "images": node.count, "ratio": node.ratio}
            | {"effective_rank": node.effective_rank, "reference": node.reference}
            for node in numbers.profile
        ],
        "pairs": [vars(pair) for pair in numbers.pairs],
    }
    if cosine is not None:
        found["cosine"] = {
            name: {"pairs": part.pairs, "mean": part.mean, "std": part.std, "histogram": part.histogram.tolist()}
            for name, part in (("same", cosine.same), ("other", cosine.other))
        } | {"ratio": cosine.ratio, "gap": cosine.gap}
    if tree is not None:
        found["tree"] = {"classes": numbers.classes.tolist(), "merges": tree.merges.tolist(), "fidelity": tree.fidelity}
    if agreement is not None:
        found["tree_agreement"] = vars(agreement)
    return found


def protocol_of(
    count: int, total: int, labelling: Labelling, settings: Settings, lidar: tuple[int, int], seen: Sequence[bool]
) -> dict[str, str]:
    """The sentences by topic, for `count` of `total` images.

    `lidar` says how many images LiDAR compares, and views of each; `seen` whether each snapshot has views.
    """
    anchors, cosine_anchors = (
        f"all {count:,} images"
        if count <= most
        else f"{most:,} random images (max_anchors, seed {settings.seed}), each against all {count:,}"
        for most in (settings.max_anchors, min(settings.max_anchors, COSINE_ANCHORS))
    )
    facts: dict[str, Any] = {
        **vars(settings),
        **{"count": count, "level": labelling.level, "superlevel": labelling.superlevel, "labels": labelling.protocol},
        **{"anchors": anchors, "cosine_anchors": cosine_anchors, "lidar_images": lidar[0], "lidar_views": lidar[1]},
        "of": "" if count == total else f" of {total:,}, drawn at random (max_images, seed {settings.seed})",
        "not_all": "" if all(seen) else " Not of snapshots whose checkpoint doesn't say how its run made views.",
    }
    found = {topic: text.format(**facts) for topic, text in words_of("protocol").items()}
    none = found.pop("no LiDAR")
    return found if any(seen) else {**found, "LiDAR": none}
