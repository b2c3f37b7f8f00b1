"""Thresholds are pure functions of the epoch."""

from __future__ import annotations

import pytest

from solo.hex import Constant, Cosine, Step


def test_step():
    schedule = Step(start=0.9, end=0.65, down=0.1, every=10)
    values = [schedule(epoch, 100) for epoch in (0, 9, 10, 19, 20, 29, 30, 99)]
    assert values == pytest.approx([0.9, 0.9, 0.8, 0.8, 0.7, 0.7, 0.65, 0.65])


def test_cosine():
    schedule = Cosine(start=0.95, end=0.65)
    assert [schedule(epoch, 100) for epoch in (0, 50, 100, 200)] == pytest.approx([0.95, 0.8, 0.65, 0.65])
    values = [schedule(epoch, 37) for epoch in range(38)]
    assert values == sorted(values, reverse=True)
    assert values == [schedule(epoch, 37) for epoch in range(38)]


def test_constant():
    assert Constant(0.7)(3, 10) == Constant(0.7)(9, 10) == 0.7


def test_step_length_is_checked():
    with pytest.raises(ValueError, match="at least 1"):
        Step(0.9, 0.3, 0.1, every=0)
