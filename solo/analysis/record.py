"""Everything that was found: in sentences, as plain values for `analysis.json`, as a table, and how it came about."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from solo.analysis.labelling import Labelling
from solo.analysis.numbers import COSINE_ANCHORS, SPACES, Numbers, Settings
from solo.analysis.pages import finite, words_of
from solo.analysis.runs import Analysis, Run

COLLAPSED = 0.9  # mixing from which two classes count as one
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
    found = []
    for run in analysis.runs:
        numbers = run.last.spaces[analysis.spaces[0]]
        candidates = (
            _global(analysis, run, numbers),
            _accuracy(analysis, run, numbers),
            _worst_node(analysis, run, numbers),
            _worst_pair(analysis, run, numbers),
            _tree(analysis, run, numbers),
            _first_coarse(analysis, run),
        )
        found += [finding for finding in candidates if finding is not None]
    return found


def _global(analysis: Analysis, run: Run, numbers: Numbers) -> Finding | None:
    if numbers.effective_rank >= max(2.0, _FEW * min(numbers.dim, numbers.count)):
        return None
    text = (
        f"The whole {SPACES[analysis.spaces[0]]} fills only {numbers.effective_rank:.1f} directions of {numbers.dim}: "
        "a global (dimensional) collapse."
    )
    return Finding("Global collapse", run.name, f"{numbers.effective_rank:.1f}", f"of {numbers.dim}", text, True)


def _accuracy(analysis: Analysis, run: Run, numbers: Numbers) -> Finding | None:
    labelling = analysis.labelling
    fine, coarse = numbers.knn[labelling.level], numbers.knn[labelling.superlevel]
    if not math.isfinite(fine):
        return None
    more = f"; {coarse:.1f} % of its {labelling.superlevel}" if labelling.nested and math.isfinite(coarse) else ""
    text = f"of the images have the {labelling.level} that their nearest neighbours vote for{more}."
    return Finding("Neighbours agree", run.name, f"{fine:.1f}", "%", text)


def _worst_node(analysis: Analysis, run: Run, numbers: Numbers) -> Finding | None:
    nodes = [node for node in numbers.profile if node.level == 0 and math.isfinite(node.ratio)]
    if len(nodes) < 2:
        return None
    worst = min(nodes, key=lambda node: node.ratio)
    name = analysis.labelling.names[analysis.labelling.superclass][worst.node]
    text = (
        f"“{name}” is where it is poorest inside: an effective rank of {worst.effective_rank:.1f}, where as many "
        f"random images have {worst.reference:.1f}."
    )
    ratio = f"{worst.ratio:.2f}"
    return Finding("Poorest superclass inside", run.name, ratio, "local / global", text, worst.ratio < 0.3)


def _worst_pair(analysis: Analysis, run: Run, numbers: Numbers) -> Finding | None:
    if not numbers.pairs:
        return None
    pair, names = numbers.pairs[0], analysis.labelling.names[-1]
    both = f"“{names[pair.first]}” and “{names[pair.second]}”"
    done = pair.mixing >= COLLAPSED
    text = f"{both} have collapsed onto each other." if done else f"{both} are mixed most of all pairs."
    return Finding("Closest to collapse", run.name, f"{pair.mixing:.2f}", "mixing", text, done)


def _tree(analysis: Analysis, run: Run, numbers: Numbers) -> Finding | None:
    agreement = numbers.agreement
    if agreement is None or not math.isfinite(agreement.cophenetic):
        return None
    share = "" if math.isnan(agreement.recovered) else f", {100 * agreement.recovered:.0f} % of its nodes exactly"
    chance = f" (p = {agreement.p_value:.3f})" if math.isfinite(agreement.p_value) else ""
    text = f"cophenetic correlation of the emergent tree with the label tree{chance}{share}."
    return Finding("Emergent tree against the labels", run.name, f"{agreement.cophenetic:.2f}", "agreement", text)


def _first_coarse(analysis: Analysis, run: Run) -> Finding | None:
    """Which level arrives first: the epoch at which each has made most of its way."""
    labelling = analysis.labelling
    if len(run.snapshots) < 3 or not labelling.nested:
        return None
    space = analysis.spaces[0]
    reached = {}
    for level in (labelling.superlevel, labelling.level):
        curve = [snapshot.spaces[space].knn[level] for snapshot in run.snapshots]
        goal = curve[0] + _REACHED * (curve[-1] - curve[0])
        if not curve[-1] > curve[0]:
            return None
        reached[level] = next(s.epoch for s, value in zip(run.snapshots, curve, strict=True) if value >= goal)
    coarse, fine = reached[labelling.superlevel], reached[labelling.level]
    if coarse is None or fine is None:
        return None
    text = (
        f"is when the {labelling.superlevel} level has made 90 % of its gain in kNN accuracy since the first snapshot; "
        f"the {labelling.level} level is there after {fine}."
    )
    return Finding("What emerges first", run.name, f"{coarse}", f"epoch{'s' * (coarse != 1)}", text)


def record(analysis: Analysis, found: Sequence[Finding]) -> dict[str, Any]:
    """What `analysis.json` holds: protocol, labels, findings, and the numbers of every snapshot."""
    labelling = analysis.labelling

    def spaces(held: dict[str, Numbers]) -> dict[str, Any]:
        return {SPACES.get(space, space): finite(_space(numbers), digits=6) for space, numbers in held.items()}

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


Cell = str | float | int | None


@dataclass(frozen=True)
class Column:
    """A column: its heading, what it means, digits behind the point (None: text), and which end is better, if any."""

    name: str
    hint: str = ""
    digits: int | None = 2
    better: str = ""  # high, low or nothing


@dataclass(frozen=True)
class Table:
    """Rows of cells, a row for each run and space; None and NaN are unknown."""

    title: str
    caption: str
    protocol: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


# What there is of every snapshot, in each space.
_MEASURES: dict[Column, Callable[[Numbers], Cell]] = {
    Column("effective rank", "directions that carry variance, centred", 1, "high"): lambda n: n.effective_rank,
    Column("RankMe", "the same without centring", 1, "high"): lambda n: n.rankme,
    Column("local / global", "mean over the superclasses of their rank over that of as many images", 3, "high"): (
        lambda n: n.mean_ratio
    ),
    Column("LiDAR", "directions that tell images apart, relative to how views of one differ", 1, "high"): (
        lambda n: n.lidar
    ),
    Column("alpha-ReQ", "decay of the eigenvalues; about 1 goes with features that transfer"): lambda n: n.alpha,
    Column("uniformity", "log mean Gaussian potential; lower is more even", 2, "low"): lambda n: n.uniformity,
    Column("same − other", "difference of mean cosines of same-superclass and other pairs", 3, "high"): (
        lambda n: n.cosine.gap if n.cosine else None
    ),
    Column("threshold", "mean 0.99 quantile of each anchor's cosines", 3): lambda n: n.selection.threshold,
    Column("same superclass", "share of the images above the threshold, %", 1, "high"): (
        lambda n: 100 * n.selection.precision
    ),
    Column("tree agreement", "cophenetic correlation with the label tree", 3, "high"): (
        lambda n: n.agreement.cophenetic if n.agreement else None
    ),
    Column("worst mixing", "of any two classes", 3, "low"): lambda n: n.pairs[0].mixing if n.pairs else None,
}


def overview(analysis: Analysis) -> Table:
    """The last snapshot of each run in numbers."""
    rows: list[tuple[Cell, ...]] = []
    for run in analysis.runs:
        for space, numbers in run.last.spaces.items():
            found = (of(numbers) for of in _MEASURES.values())
            rows.append((run.name, SPACES.get(space, space), *numbers.knn.values(), *found))
    levels = analysis.labelling.levels
    accuracies = (Column(f"kNN, {level}", "leave-one-out top-1 accuracy, %", 2, "high") for level in levels)
    return Table(
        "All numbers" + (" of the last snapshots" if analysis.over_time else ""),
        "A row for each model and space; touch a heading to sort by it. Bold: the best run in that space.",
        " ".join(analysis.protocol[topic] for topic in ("images", "knn", "rank", "LiDAR")),
        (Column("run", digits=None), Column("space", digits=None), *accuracies, *_MEASURES),
        tuple(rows),
    )
