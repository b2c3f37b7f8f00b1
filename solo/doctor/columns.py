"""The guarantees: for each the check that holds it. Bugs that turn each of them red are planted in `tests/doctor`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from solo.doctor.case import Case, Outcome
from solo.methods.catalogue import names

Many = Callable[[Any, Sequence[Case]], list[Outcome | None]]


@dataclass(frozen=True)
class Column:
    """One guarantee."""

    name: str  # its heading
    says: str  # what a green cell means, in one sentence
    module: str  # of `solo.doctor`, imported when it is needed
    run: Many  # (the module, cases) -> an outcome for each case; None where it doesn't apply

    def check(self, cases: Sequence[Case]) -> list[Outcome | None]:
        """Run the check; what it raises is an outcome, too."""
        try:
            return self.run(importlib.import_module(f"solo.doctor.{self.module}"), cases)
        except Exception as error:
            return [_failed(error)] * len(cases)


def each(function: str) -> Many:
    """Run a function of the module for every case."""

    def run(module: Any, cases: Sequence[Case]) -> list[Outcome | None]:
        return [_one(getattr(module, function), case) for case in cases]

    return run


def _one(check: Callable[[Case], Outcome | None], case: Case) -> Outcome | None:
    try:
        return check(case)
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> Outcome:
    return Outcome(False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _parity(processes: int) -> Many:
    return lambda module, cases: list(module.parities(cases, processes))


def _exactness(module: Any, cases: Sequence[Case]) -> list[Outcome | None]:
    """None for methods that refuse `accumulate: exact`, which they say before they train."""
    refused = "accumulate=exact is not for"
    found = each("exactness")(module, cases)
    return [None if outcome is not None and outcome.ok and refused in outcome.detail else outcome for outcome in found]


COLUMNS = (
    Column(
        "parity 2",
        "loss, gradients, metrics and state on 2 processes equal those of one on the whole batch (1e-6, float64)",
        "parity",
        _parity(2),
    ),
    Column("parity 4", "the same on 4 processes", "parity", _parity(4)),
    Column(
        "resume",
        "k steps, an end by force, n steps: the same weights, to the last bit, as k + n steps",
        "resume",
        each("resume"),
    ),
    Column(
        "bf16",
        "the loss in bfloat16 (and float16, float32) agrees with float64 to its precision, and is finite for zero, "
        "equal, huge and tiny embeddings",
        "numbers",
        each("numbers"),
    ),
    Column(
        "exact accumulation",
        "gradients of `accumulate: exact` equal those of the batch in one piece",
        "exact",
        _exactness,
    ),
)


def all_cases() -> list[Case]:
    """Every method with its own loss, and with HEX where it has a place for it."""
    found = [Case(method) for method in names()]
    found += [Case(method, "HEX_adaptive") for method in names(lambda facts: facts.hex)]
    return sorted(found, key=lambda case: (case.method, case.type != "standard"))
