"""Figures that compare every class with every other one, in the order of the first run's tree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from solo.analysis.figure import Figure, Matrix
from solo.analysis.labelling import Array
from solo.analysis.numbers import SPACES, Numbers
from solo.analysis.runs import Analysis

_MOST_CLASSES = {"similarity": 150, "mixing": 60}  # more are left to the tables


def similarity(analysis: Analysis) -> Figure | None:
    """A heat map of the cosines between class centroids."""
    tables = _tables(analysis, lambda numbers: numbers.similarity, _MOST_CLASSES["similarity"])
    if not tables:
        return None
    low = min(0.0, *(float(values.min()) for values in tables))
    return Figure(
        "similarity",
        "The emergent tree",
        "Blocks on the diagonal: cosines of class centroids",
        "Classes in the order of the first tree. Squares of high cosines on the diagonal are emergent superclasses; a "
        "high one off the diagonal is a pair that is about to become one.",
        f"Cosine of the means of unit features, {SPACES[analysis.spaces[0]]}. {analysis.protocol['images']}",
        _panels(analysis, "cosine", tables, low, 1.0),
    )


def mixing(analysis: Analysis) -> Figure | None:
    """A heat map of how far the classes of each pair mix."""
    tables = _tables(analysis, lambda numbers: numbers.mixing, _MOST_CLASSES["mixing"])
    if not tables:
        return None
    for values in tables:
        np.fill_diagonal(values, np.nan)
    high = max(0.05, *(float(np.nan_to_num(values).max()) for values in tables))
    return Figure(
        "mixing",
        "Local collapse",
        "Every pair of classes: how far are they one?",
        "Classes in the order of the first tree, so that relatives stand beside each other. High values near the "
        "diagonal are local collapse; high ones far from it are classes that got lost.",
        f"{SPACES[analysis.spaces[0]].capitalize()}. {analysis.protocol['mixing']}",
        _panels(analysis, "mixing", tables, 0.0, high),
    )


def _tables(analysis: Analysis, of: Callable[[Numbers], Array], most: int) -> list[Array]:
    """A copy of each run's matrix, classes in the first tree's order; none where the runs' classes differ."""
    found = [run.last.spaces[analysis.spaces[0]] for run in analysis.runs]
    first = found[0]
    if first.tree is None or not 2 < len(first.classes) <= most:
        return []
    if not all(len(of(numbers)) and np.array_equal(numbers.classes, first.classes) for numbers in found):
        return []
    order = first.tree.order()
    return [of(numbers)[np.ix_(order, order)].copy() for numbers in found]


def _panels(analysis: Analysis, value: str, tables: list[Array], low: float, high: float) -> tuple[Matrix, ...]:
    """A panel for each run, all on one scale."""
    first, several = analysis.runs[0].last.spaces[analysis.spaces[0]], len(analysis.runs) > 1
    assert first.tree is not None
    names = tuple(analysis.labelling.names[-1][label] for label in first.classes[first.tree.order()])
    return tuple(
        Matrix(run.name if several else "", value, names, values, low, high)
        for run, values in zip(analysis.runs, tables, strict=True)
    )
