"""The table of the report as plain data: all numbers of the last snapshots."""

from collections.abc import Callable
from dataclasses import dataclass

from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.runs import Analysis

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
