"""Every method on several processes against one, and the check itself against planted bugs."""

from __future__ import annotations

import pytest

from solo.doctor import parity
from solo.doctor.parity import parities
from solo.doctor.toy import Case
from solo.errors import UserError
from tests.doctor import faults
from tests.doctor.cases import ALL, EACH_ONCE, STANDARD

# A bug -> a method in which it must show.
SHOWS = {
    faults.gather_without_gradient: Case("simclr"),
    faults.queue_of_own_rows: Case("nnclr"),
    faults.own_batch_statistics: Case("byol"),
    faults.counts_not_shared: Case("linear"),
}


def test_two_processes_train_as_one() -> None:
    cases = EACH_ONCE[::5]  # all of them below
    outcomes = zip(cases, parities(cases, 2), strict=True)
    assert not {case: outcome.detail for case, outcome in outcomes if not outcome.ok}


@pytest.mark.thorough
def test_every_method_and_type() -> None:
    cases = [*STANDARD, *ALL]
    outcomes = zip(cases, parities(cases, 2), strict=True)
    assert not {case: outcome.detail for case, outcome in outcomes if not outcome.ok}


@pytest.mark.parametrize(("bug", "case"), SHOWS.items(), ids=[bug.__name__ for bug in SHOWS])
def test_a_planted_bug_turns_the_outcome_red(bug: parity.Fault, case: Case) -> None:
    (outcome,) = parities([case], fault=bug)
    assert not outcome.ok and "differs by" in outcome.detail


def test_what_can_not_be_checked_is_refused() -> None:
    with pytest.raises(UserError, match="processes=3 can't share batches of 16; choose 2 or 4"):
        parities([Case("simclr")], 3)


def test_a_method_that_fails_says_why() -> None:
    (outcome,) = parities([Case("mocov3", "HEX_fixed")])
    assert not outcome.ok and "does nothing in method=mocov3" in outcome.detail
