"""Everything that was found: as plain values for `analysis.json`, as a table, and in words how it came about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from solo.analysis.findings import Finding
from solo.analysis.labelling import Labelling
from solo.analysis.numbers import COSINE_ANCHORS, SPACES, Numbers, Settings
from solo.analysis.pages import finite, words_of
from solo.analysis.runs import Analysis


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
    accuracies = (
        Column(f"kNN, {level}", "leave-one-out top-1 accuracy, %", 2, "high") for level in analysis.labelling.levels
    )
    return Table(
        "All numbers" + (" of the last snapshots" if analysis.over_time else ""),
        "A row for each model and space; touch a heading to sort by it. Bold: the best run in that space.",
        " ".join(analysis.protocol[topic] for topic in ("images", "knn", "rank", "LiDAR")),
        (Column("run", digits=None), Column("space", digits=None), *accuracies, *_MEASURES),
        tuple(rows),
    )
