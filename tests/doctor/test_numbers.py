"""Every method's loss in every number format, and the check itself against a planted bug."""

from __future__ import annotations

import pytest

from solo.doctor.toy import Case
from tests.doctor import faults
from tests.doctor.cases import ALL, STANDARD
from tests.doctor.formats import numbers


def tell(case: Case) -> str:
    return f"{case.method}-{case.type}"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", [*STANDARD, Case("nnclr", "HEX_adaptive"), Case("vicreg", "HEX_fixed")], ids=tell)
def test_a_loss_is_right_in_every_format(case: Case) -> None:
    outcome = numbers(case)
    assert outcome.ok, outcome.detail


@pytest.mark.thorough
@pytest.mark.parametrize("case", ALL, ids=tell)
def test_every_type(case: Case) -> None:
    outcome = numbers(case)
    assert outcome.ok, outcome.detail


@pytest.mark.parametrize("method", ["simclr", "vicreg"])
def test_a_loss_in_half_precision_turns_the_outcome_red(method: str) -> None:
    with faults.half_precision():
        outcome = numbers(Case(method))
    assert not outcome.ok and "differs from float64" in outcome.detail
