"""Tables as plain data, for the report."""

from __future__ import annotations

from dataclasses import dataclass

from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.runs import Analysis
from solo.analysis.trends import mean_ratio

Cell = str | float | int | None


@dataclass(frozen=True)
class Column:
    """A column: its heading, what it means, digits behind the point, and which end is better, if any."""

    name: str
    hint: str = ""
    digits: int = 2
    better: str = ""  # high, low or nothing
    text: bool = False


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


def tables(analysis: Analysis) -> list[Table]:
    """All tables that have rows."""
    found = [overview(analysis), history(analysis), nodes(analysis), pairs(analysis)]
    return [table for table in found if table.rows]


def overview(analysis: Analysis) -> Table:
    """A row for each run and space: the last snapshot."""
    rows: list[tuple[Cell, ...]] = []
    for run in analysis.runs:
        for space, numbers in run.last.spaces.items():
            rows.append((run.name, SPACES.get(space, space), *_cells(numbers, analysis.labelling.levels)))
    return Table(
        "overview",
        "Overview",
        "All numbers" + (" of the last snapshots" if analysis.over_time else ""),
        "A row for each model and space; touch a heading to sort by it. Bold: the best run in that space.",
        f"{analysis.protocol['images']} {analysis.protocol['knn']} {analysis.protocol['rank']} "
        f"{analysis.protocol['LiDAR']}",
        (Column("run", text=True), Column("space", text=True), *_columns(analysis)),
        tuple(rows),
        compares=True,
    )


def history(analysis: Analysis) -> Table:
    """A row for each snapshot and space, of runs that have several."""
    rows: list[tuple[Cell, ...]] = []
    for run in analysis.runs if analysis.over_time else ():
        for snapshot in run.snapshots:
            for space, numbers in snapshot.spaces.items():
                cells = _cells(numbers, analysis.labelling.levels)
                rows.append((run.name, snapshot.epoch, SPACES.get(space, space), *cells))
    return Table(
        "history",
        "Emergence",
        "Every snapshot in numbers",
        "The curves above, to be read off and sorted.",
        f"{analysis.protocol['images']} {analysis.protocol['knn']} {analysis.protocol['rank']} "
        f"{analysis.protocol['LiDAR']}",
        (
            Column("run", text=True),
            Column("epochs", "epochs trained", 0),
            Column("space", text=True),
            *_columns(analysis),
        ),
        tuple(rows),
    )


def nodes(analysis: Analysis) -> Table:
    """A row for each node of the label tree, run and space: the collapse profile."""
    labelling, rows = analysis.labelling, []
    for run in analysis.runs:
        for space in analysis.spaces:
            for node in run.last.spaces[space].profile:
                if node.level < 0:
                    continue
                level = labelling.superclass + node.level
                rows.append(
                    (
                        labelling.names[level][node.node],
                        labelling.levels[level],
                        run.name,
                        SPACES[space],
                        node.count,
                        node.effective_rank,
                        node.reference,
                        node.ratio,
                    )
                )
    columns = (
        Column("node", text=True),
        Column("level", text=True),
        Column("run", text=True),
        Column("space", text=True),
        Column("images", digits=0),
        Column("effective rank", "of its images, centred", 1, "high"),
        Column("as many random images", "the same of a random subset of that size", 1),
        Column("local / global", "1: no local collapse; 0: one point", 3, "high"),
    )
    return Table(
        "nodes",
        "Local collapse",
        "The collapse profile in numbers",
        "Sort by the last column: the nodes that have collapsed come first.",
        analysis.protocol["rank"],
        columns,
        tuple(rows),
    )


def pairs(analysis: Analysis) -> Table:
    """A row for each confusable pair and run."""
    names, rows = analysis.labelling.names[-1], []
    for run in analysis.runs:
        for pair in run.last.spaces[analysis.spaces[0]].pairs:
            rows.append((names[pair.first], names[pair.second], run.name, pair.mixing, pair.separation, pair.cosine))
    columns = (
        Column(analysis.labelling.level, text=True),
        Column("and", text=True),
        Column("run", text=True),
        Column("mixing", "0: apart, 1: one", 3, "low"),
        Column("separation", "distance of the centroids over the spread around them", 2, "high"),
        Column("cosine", "of the centroids", 3, "low"),
    )
    return Table(
        "pairs",
        "Local collapse",
        "The most confusable pairs in numbers",
        "The twenty most mixed pairs of each run.",
        f"{SPACES[analysis.spaces[0]].capitalize()}. {analysis.protocol['mixing']}",
        columns,
        tuple(rows),
    )


def _columns(analysis: Analysis) -> list[Column]:
    labelling = analysis.labelling
    found = [Column(f"kNN, {level}", "leave-one-out top-1 accuracy, %", 2, "high") for level in labelling.levels]
    inside = f"mean over each {labelling.superlevel} of its rank over that of as many images"
    return [
        *found,
        Column("effective rank", "directions that carry variance, centred", 1, "high"),
        Column("RankMe", "the same without centring", 1, "high"),
        Column("local / global", inside, 3, "high"),
        Column("LiDAR", "directions that tell images apart, relative to how views of one differ", 1, "high"),
        Column("alpha-ReQ", "decay of the eigenvalues; about 1 goes with features that transfer", 2),
        Column("uniformity", "log mean Gaussian potential; lower is more even", 2, "low"),
        Column("same − other", "difference of mean cosines of same-superclass and other pairs", 3, "high"),
        Column("threshold", "mean 0.99 quantile of each anchor's cosines", 3),
        Column("same superclass", "share of the images above the threshold, %", 1, "high"),
        Column("tree agreement", "cophenetic correlation with the label tree", 3, "high"),
        Column("worst mixing", "of any two classes", 3, "low"),
    ]


def _cells(numbers: Numbers, levels: tuple[str, ...]) -> list[Cell]:
    found: list[Cell] = [numbers.knn[level] for level in levels]
    found += [numbers.effective_rank, numbers.rankme, mean_ratio(numbers), numbers.lidar]
    found += [numbers.alpha, numbers.uniformity]
    found += [numbers.cosine.gap if numbers.cosine else None, numbers.selection.threshold]
    found += [100 * numbers.selection.precision]
    found += [numbers.agreement.cophenetic if numbers.agreement else None]
    found += [numbers.pairs[0].mixing if numbers.pairs else None]
    return found
