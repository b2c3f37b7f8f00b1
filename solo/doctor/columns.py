"""The guarantees: for each the check that holds it. Bugs that turn each of them red are planted in `tests/doctor`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from solo.doctor.case import Case, Outcome
from solo.methods.catalogue import names


@dataclass(frozen=True)
class Column:
    """One guarantee, and how it is checked."""

    name: str  # its heading
    says: str  # what a green cell means, in one sentence
    run: Callable[[Sequence[Case]], list[Outcome]]

    def check(self, cases: Sequence[Case]) -> list[Outcome]:
        """Run the check; what it raises is an outcome, too."""
        try:
            return self.run(cases)
        except Exception as error:
            return [_failed(error)] * len(cases)


def _failed(error: Exception) -> Outcome:
    return Outcome(False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _parity(processes: int) -> Callable[[Sequence[Case]], list[Outcome]]:
    def run(cases: Sequence[Case]) -> list[Outcome]:
        from solo.doctor.parity import parities

        return parities(cases, processes)

    return run


def _resume(cases: Sequence[Case]) -> list[Outcome]:
    from solo.doctor.resume import resume

    found = []
    for case in cases:  # one that raises is red alone
        try:
            found.append(resume(case))
        except Exception as error:
            found.append(_failed(error))
    return found


COLUMNS = (
    Column(
        "parity 2",
        "loss, gradients, metrics and state on 2 processes equal those of one on the whole batch (1e-6, float64)",
        _parity(2),
    ),
    Column("parity 4", "the same on 4 processes", _parity(4)),
    Column("resume", "k steps, an end by force, n steps: the same weights, to the last bit, as k + n steps", _resume),
)


def all_cases() -> list[Case]:
    """Every method with its own loss, and with HEX where it has a place for it."""
    found = [Case(method) for method in names()]
    found += [Case(method, "HEX_adaptive") for method in names(lambda facts: facts.hex)]
    return sorted(found, key=lambda case: (case.method, case.type != "standard"))
