"""What the numbers say, in sentences: the first thing on the page."""

import math
from dataclasses import dataclass

from solo.analysis.numbers import SPACES, Numbers
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
    return Finding(
        "Poorest superclass inside", run.name, f"{worst.ratio:.2f}", "local / global", text, worst.ratio < 0.3
    )


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
