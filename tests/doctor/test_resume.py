"""The resume contract of every method, and that the check finds planted bugs."""

from __future__ import annotations

import warnings

import pytest
import torch

from solo.doctor.resume import differing, resume
from solo.doctor.toy import Case
from solo.methods.catalogue import CATALOGUE
from tests.doctor import faults


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    with warnings.catch_warnings():
        yield


@pytest.mark.sampled(4)
@pytest.mark.parametrize("method", CATALOGUE)
def test_every_method_goes_on_exactly(method):
    outcome = resume(Case(method, "HEX_adaptive" if CATALOGUE[method].hex else "standard"))
    assert outcome.ok, outcome.detail
    assert outcome.detail == "6 steps, killed, resumed: identical to 8 steps"


@pytest.mark.parametrize("bug", [faults.shifted_random_numbers, faults.empty_queue, faults.first_batches_again])
def test_planted_bugs_are_found(bug):
    with bug():
        outcome = resume(Case("nnclr"))
    assert not outcome.ok and "differs from 8 steps in" in outcome.detail


@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", ["swav", "deepclusterv2", "byol"])
def test_every_process_goes_on_with_what_is_its_own(method):
    outcome = resume(Case(method), processes=2)
    assert outcome.ok, outcome.detail


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    resume(Case("simclr"))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_differs_is_named():
    a = {"x": [torch.ones(2), 1.0], "y": {"z": float("nan")}}
    assert differing(a, {"x": [torch.ones(2), 1.0], "y": {"z": float("nan")}}) == []
    assert differing(a, {"x": [torch.tensor([1.0, 2.0]), 2.0], "y": {"z": 0.0}}) == [".x[0]", ".x[1]", ".y.z"]
    assert differing(a, {"x": [], "w": 1}) == [""] and differing([1], [True]) == ["[0]"]
