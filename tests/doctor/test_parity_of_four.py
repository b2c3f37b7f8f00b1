"""Four processes against one: every type, and every fourth method without (`solo doctor --full` has them all)."""

from __future__ import annotations

import pytest

from solo.doctor.parity import parities
from tests.doctor.cases import SOME, STANDARD


@pytest.mark.thorough
def test_four_processes_train_as_one() -> None:
    cases = [*SOME, *STANDARD[::4]]
    outcomes = zip(cases, parities(cases, 4), strict=True)
    assert not {case: outcome.detail for case, outcome in outcomes if not outcome.ok}
