"""The guarantees: for each the check that holds it, and the bugs that can be planted to see the check turn red."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from solo.doctor.case import Case, Outcome
from solo.methods.catalogue import names

Many = Callable[[Sequence[Case], str | None], list[Outcome | None]]


@dataclass(frozen=True)
class Column:
    """One guarantee.

    Attributes:
        name: its heading.
        says: what a green cell means, in one sentence.
        module: of `solo.doctor`, imported when it is needed.
        run: (the module, cases, planted bug) -> an outcome for each case; None where it doesn't apply.
        bugs: planted bug -> what it does, and a case that must turn red with it.
    """

    name: str
    says: str
    module: str
    run: Callable[[Any, Sequence[Case], str | None], list[Outcome | None]]
    bugs: dict[str, tuple[str, Case]]

    def check(self, cases: Sequence[Case], tamper: str | None = None) -> list[Outcome | None]:
        """Run the check; what it raises is an outcome, too."""
        try:
            return self.run(importlib.import_module(f"solo.doctor.{self.module}"), cases, tamper)
        except Exception as error:
            text = " ".join(str(error).split())
            return [Outcome(False, f"{type(error).__name__}: {text[:300]}")] * len(cases)


def _each(function: str) -> Callable[[Any, Sequence[Case], str | None], list[Outcome | None]]:
    def run(module: Any, cases: Sequence[Case], tamper: str | None) -> list[Outcome | None]:
        return [_one(getattr(module, function), case, tamper) for case in cases]

    return run


def _one(check: Callable[..., Outcome | None], case: Case, tamper: str | None) -> Outcome | None:
    try:
        return check(case, tamper=tamper)
    except Exception as error:
        text = " ".join(str(error).split())
        return Outcome(False, f"{type(error).__name__}: {text[:300]}")


def _parity(processes: int) -> Callable[[Any, Sequence[Case], str | None], list[Outcome | None]]:
    def run(module: Any, cases: Sequence[Case], tamper: str | None) -> list[Outcome | None]:
        return list(module.parities(cases, processes, tamper))

    return run


def _exactness(module: Any, cases: Sequence[Case], tamper: str | None) -> list[Outcome | None]:
    """None for methods that refuse `accumulate: exact`, which they say before they train."""
    found = _each("exactness")(module, cases, tamper)
    refused = "accumulate=exact is not for"
    return [None if outcome is not None and outcome.ok and refused in outcome.detail else outcome for outcome in found]


_PARITY_BUGS = {
    "gather": ("the gather passes no gradient to the other processes", Case("simclr")),
    "queue": ("the queue keeps a process's own rows only", Case("nnclr")),
    "batchnorm": ("BatchNorm uses a process's own statistics", Case("byol")),
    "counts": ("means over labelled rows are not shared", Case("linear")),
}
COLUMNS = (
    Column(
        "parity 2",
        "loss, gradients, metrics and state on 2 processes equal those of one on the whole batch (1e-6, float64)",
        "parity",
        _parity(2),
        _PARITY_BUGS,
    ),
    Column(
        "parity 4",
        "the same on 4 processes",
        "parity",
        _parity(4),
        {bug: _PARITY_BUGS[bug] for bug in ("gather", "queue")},
    ),
    Column(
        "resume",
        "k steps, an end by force, n steps: the same weights, to the last bit, as k + n steps",
        "resume",
        _each("resume"),
        {
            "rng": ("the random streams go on one number later", Case("simclr")),
            "queue": ("the queue starts empty again", Case("nnclr")),
            "sampler": ("the sampler starts the epoch again", Case("simclr")),
        },
    ),
    Column(
        "bf16",
        "the loss in bfloat16 (and float16, float32) agrees with float64 to its precision, and is finite for zero, "
        "equal, huge and tiny embeddings",
        "numbers",
        _each("numbers"),
        {"half": ("similarities are computed in half precision", Case("simclr"))},
    ),
    Column(
        "exact accumulation",
        "gradients of `accumulate: exact` equal those of the batch in one piece",
        "exact",
        _exactness,
        {
            "plain": ("every part has a loss of its own", Case("simclr")),
            "last": ("the gradient of the last part is lost", Case("simclr")),
        },
    ),
)


def all_cases() -> list[Case]:
    """Every method with its own loss, and with HEX where it has a place for it."""
    found = [Case(method) for method in names()]
    found += [Case(method, "HEX_adaptive") for method in names(lambda facts: facts.hex)]
    return sorted(found, key=lambda case: (case.method, case.type != "standard"))
