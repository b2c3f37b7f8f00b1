"""Tables as plain data, for the report."""

from __future__ import annotations

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
    """Rows of cells; None and NaN are unknown. `compares`: the best of each column is worth marking."""

    key: str
    section: str
    title: str
    caption: str
    protocol: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    compares: bool = False


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
_RUN, _SPACE = Column("run", digits=None), Column("space", digits=None)


def tables(analysis: Analysis) -> list[Table]:
    """All tables that have rows."""
    found = [overview(analysis), history(analysis), nodes(analysis), pairs(analysis)]
    return [table for table in found if table.rows]


def overview(analysis: Analysis) -> Table:
    """A row for each run and space: the last snapshot."""
    title = "All numbers" + (" of the last snapshots" if analysis.over_time else "")
    caption = "A row for each model and space; touch a heading to sort by it. Bold: the best run in that space."
    return _numbers(analysis, "overview", "Overview", title, caption)


def history(analysis: Analysis) -> Table:
    """A row for each snapshot and space, of runs that have several."""
    words = ("Every snapshot in numbers", "The curves above, to be read off and sorted.")
    return _numbers(analysis, "history", "Emergence", *words, every=True)


def _numbers(analysis: Analysis, key: str, section: str, title: str, caption: str, every: bool = False) -> Table:
    """The measures of the last snapshots, or of every one, where there are several."""
    rows: list[tuple[Cell, ...]] = []
    for run in analysis.runs if analysis.over_time or not every else ():
        for snapshot in run.snapshots if every else (run.last,):
            for space, numbers in snapshot.spaces.items():
                which = (run.name, *([snapshot.epoch] if every else ()), SPACES.get(space, space))
                found = (of(numbers) for of in _MEASURES.values())
                rows.append((*which, *numbers.knn.values(), *found))
    epochs = (Column("epochs", "epochs trained", 0),) if every else ()
    accuracies = (
        Column(f"kNN, {level}", "leave-one-out top-1 accuracy, %", 2, "high") for level in analysis.labelling.levels
    )
    return Table(
        key,
        section,
        title,
        caption,
        " ".join(analysis.protocol[topic] for topic in ("images", "knn", "rank", "LiDAR")),
        (_RUN, *epochs, _SPACE, *accuracies, *_MEASURES),
        tuple(rows),
        compares=not every,
    )


def nodes(analysis: Analysis) -> Table:
    """A row for each node of the label tree, run and space: the collapse profile."""
    labelling, rows = analysis.labelling, list[tuple[Cell, ...]]()
    for run in analysis.runs:
        for space in analysis.spaces:
            for node in run.last.spaces[space].profile:
                if node.level >= 0:
                    level = labelling.superclass + node.level
                    which = (labelling.names[level][node.node], labelling.levels[level], run.name, SPACES[space])
                    rows.append((*which, node.count, node.effective_rank, node.reference, node.ratio))
    columns = (
        Column("node", digits=None),
        Column("level", digits=None),
        _RUN,
        _SPACE,
        Column("images", digits=0),
        Column("effective rank", "of its images, centred", 1, "high"),
        Column("as many random images", "the same of a random subset of that size", 1),
        Column("local / global", "1: no local collapse; 0: one point", 3, "high"),
    )
    title = "The collapse profile in numbers"
    caption = "Sort by the last column: the nodes that have collapsed come first."
    return Table("nodes", "Local collapse", title, caption, analysis.protocol["rank"], columns, tuple(rows))


def pairs(analysis: Analysis) -> Table:
    """A row for each confusable pair and run."""
    names, space = analysis.labelling.names[-1], analysis.spaces[0]
    rows = tuple(
        (names[pair.first], names[pair.second], run.name, pair.mixing, pair.separation, pair.cosine)
        for run in analysis.runs
        for pair in run.last.spaces[space].pairs
    )
    columns = (
        Column(analysis.labelling.level, digits=None),
        Column("and", digits=None),
        _RUN,
        Column("mixing", "0: apart, 1: one", 3, "low"),
        Column("separation", "distance of the centroids over the spread around them", 2, "high"),
        Column("cosine", "of the centroids", 3, "low"),
    )
    protocol = f"{SPACES[space].capitalize()}. {analysis.protocol['mixing']}"
    title, caption = "The most confusable pairs in numbers", "The twenty most mixed pairs of each run."
    return Table("pairs", "Local collapse", title, caption, protocol, columns, rows)
