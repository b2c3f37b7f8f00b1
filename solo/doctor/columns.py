"""The guarantees: for each the check that holds it. Bugs that turn each of them red are planted in `tests/doctor`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from solo.doctor.case import Case, Outcome
from solo.methods.catalogue import names

Outcomes = list[Outcome | None]  # None where a guarantee doesn't apply


@dataclass(frozen=True)
class Column:
    """One guarantee, and how it is checked."""

    name: str  # its heading
    says: str  # what a green cell means, in one sentence
    run: Callable[[Sequence[Case]], Outcomes]

    def check(self, cases: Sequence[Case]) -> Outcomes:
        """Run the check; what it raises is an outcome, too."""
        try:
            return self.run(cases)
        except Exception as error:
            return [_failed(error)] * len(cases)


def each(check: Callable[[Case], Outcome | None]) -> Callable[[Sequence[Case]], Outcomes]:
    """Run a check for every case."""

    def one(case: Case) -> Outcome | None:
        try:
            return check(case)
        except Exception as error:
            return _failed(error)

    return lambda cases: list(map(one, cases))


def _failed(error: Exception) -> Outcome:
    return Outcome(False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _parity(processes: int) -> Callable[[Sequence[Case]], Outcomes]:
    return lambda cases: importlib.import_module("solo.doctor.parity").parities(cases, processes)  # type: ignore[no-any-return]


def _own(module: str, name: str) -> Callable[[Case], Outcome | None]:
    """A check of a module of its own, which is imported when it is needed."""
    return lambda case: getattr(importlib.import_module(f"solo.doctor.{module}"), name)(case)  # type: ignore[no-any-return]


def _exact(case: Case) -> Outcome | None:
    """None for methods that refuse `accumulate: exact`, which they say before they train."""
    found = _own("exact", "exactness")(case)
    return None if found and found.ok and "accumulate=exact is not for" in found.detail else found


COLUMNS = (
    Column(
        "parity 2",
        "loss, gradients, metrics and state on 2 processes equal those of one on the whole batch (1e-6, float64)",
        _parity(2),
    ),
    Column("parity 4", "the same on 4 processes", _parity(4)),
    Column(
        "resume",
        "k steps, an end by force, n steps: the same weights, to the last bit, as k + n steps",
        each(_own("resume", "resume")),
    ),
    Column(
        "bf16",
        "the loss in bfloat16 (and float16, float32) agrees with float64 to its precision, and is finite for zero, "
        "equal, huge and tiny embeddings",
        each(_own("numbers", "numbers")),
    ),
    Column(
        "exact accumulation", "gradients of `accumulate: exact` equal those of the batch in one piece", each(_exact)
    ),
)


def all_cases() -> list[Case]:
    """Every method with its own loss, and with HEX where it has a place for it."""
    found = [Case(method) for method in names()]
    found += [Case(method, "HEX_adaptive") for method in names(lambda facts: facts.hex)]
    return sorted(found, key=lambda case: (case.method, case.type != "standard"))
