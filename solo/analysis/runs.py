"""What was analysed: runs, their snapshots over time, and the subsets of images that are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from solo.analysis.embedding import Embedding
from solo.analysis.figure import Figure, Panel
from solo.analysis.labelling import Labelling
from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.pages import words_of
from solo.analysis.palette import run_colour
from solo.eval.rows import Array, draw

_RANDOM_SUPERCLASSES = 5  # as in figure 10 of the paper


@dataclass(frozen=True)
class View:
    """Images that are drawn as points, together."""

    key: str  # short name
    title: str  # which images
    rows: Array  # their row numbers
    fine: bool  # coloured by class, else by superclass


@dataclass(frozen=True)
class Snapshot:
    """One model at one time."""

    name: str  # as the source calls it
    epoch: int | None  # epochs trained; None where nobody knows
    spaces: dict[str, Numbers]  # numbers of the `backbone` and the `projector`
    # points (len(view.rows), 2) of each view's key, of the backbone; empty where it isn't drawn
    clouds: dict[str, Array] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # how the features came about


@dataclass(frozen=True)
class Run:
    """One or more snapshots of one training, in order."""

    name: str
    snapshots: tuple[Snapshot, ...]
    place: int = 0

    @property
    def colour(self) -> str:
        """Its colour in every figure."""
        return run_colour(self.place)

    @property
    def first(self) -> Snapshot:
        """The earliest snapshot of the run."""
        return self.snapshots[0]

    @property
    def last(self) -> Snapshot:
        """The latest snapshot: what single-model figures show."""
        return self.snapshots[-1]

    @property
    def ends(self) -> list[tuple[Snapshot, bool]]:
        """The latest snapshot, and the earliest where there are two; the flag is True for the latter."""
        return [(self.last, False), *([(self.first, True)] if len(self.snapshots) > 1 else [])]


@dataclass(frozen=True)
class Analysis:
    """Everything the figures and the report are made of."""

    title: str  # of the report
    runs: tuple[Run, ...]  # at least one
    labelling: Labelling  # the same for all
    views: tuple[View, ...]  # what is drawn as points
    embedding: Embedding  # how features become points
    protocol: dict[str, str]  # sentences that hold for every number, by topic
    max_points: int = 2000  # images of a view at most
    seed: int = 5  # of every draw

    @property
    def over_time(self) -> bool:
        """Whether any run has several snapshots."""
        return any(len(run.snapshots) > 1 for run in self.runs)

    @property
    def spaces(self) -> list[str]:
        """The spaces that every snapshot has, the representation first."""
        return [
            space
            for space in ("backbone", "projector")
            if all(space in snapshot.spaces for run in self.runs for snapshot in run.snapshots)
        ] or [next(iter(self.runs[0].last.spaces))]

    def figure(
        self, key: str, panels: Sequence[Panel], legend: tuple[tuple[str, str], ...] = (), **facts: Any
    ) -> Figure:
        """Panels under the words that `page/figures.yaml` has for `key`, into which `facts` are filled."""
        spaces = [SPACES[space] for space in (self.spaces[0], self.spaces[-1])]
        facts |= {"main_space": spaces[0], "space": spaces[0].capitalize(), "last_space": spaces[1].capitalize()}
        facts |= {"level": self.labelling.level, "superlevel": self.labelling.superlevel, "seed": self.seed}
        words = {name: text.format(**facts, **self.protocol) for name, text in words_of("figures")[key].items()}
        return Figure(key, **words, panels=tuple(panels), legend=legend)

    def titled(self, run: Run, text: str = "") -> str:
        """The title of a run's panel: its name, where there are several, and more."""
        return ", ".join(part for part in (run.name if len(self.runs) > 1 else "", text) if part)


def time_of(epoch: int | None) -> str:
    """So many epochs, in words; empty where nobody knows."""
    if epoch == 0:
        return "before training"
    return "" if epoch is None else f"after {epoch} epoch{'s' * (epoch != 1)}"


def choose_views(labelling: Labelling, worst: int | None, max_points: int, seed: int) -> tuple[View, ...]:
    """All images by superclass; of five random superclasses; and inside one, by class: the rows of figure 10.

    `worst` is the superclass to look into; None: that with most classes.
    """
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(labelling.coarse >= 0)
    rows = known if len(known) else np.arange(len(labelling.labels))
    views = [View("all", "All images", _drawn(rows, max_points, seed), False)]
    present = np.unique(labelling.coarse[known])
    if len(present) > _RANDOM_SUPERCLASSES + 1:
        chosen = rng.choice(present, _RANDOM_SUPERCLASSES, replace=False)
        inside = np.flatnonzero(np.isin(labelling.coarse, chosen))
        title = f"{_RANDOM_SUPERCLASSES} random superclasses"
        views.append(View("some", title, _drawn(inside, max_points, seed), False))
    if labelling.nested and len(present):
        parents = np.array(labelling.parents())
        sizes = {int(group): int((parents == group).sum()) for group in present}
        group = worst if worst in sizes and sizes[worst] > 1 else max(sizes, key=lambda key: sizes[key])
        if sizes[group] > 1:
            inside = np.flatnonzero((labelling.coarse == group) & (labelling.fine >= 0))
            title = f"Inside “{labelling.names[labelling.superclass][group]}”"
            views.append(View("inside", title, _drawn(inside, max_points, seed), True))
    return tuple(view for view in views if len(view.rows) >= 2)


def worst_superclass(numbers: Numbers) -> int | None:
    """The superclass whose local over global rank is lowest."""
    ranked = [node for node in numbers.profile if node.level == 0 and node.ratio == node.ratio]
    return min(ranked, key=lambda node: node.ratio).node if ranked else None


def _drawn(rows: Array, most: int, seed: int) -> Array:
    return np.asarray(rows[draw(len(rows), most, seed).numpy()])
