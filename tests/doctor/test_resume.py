"""The resume contract of every method, and that the check finds planted bugs."""

from __future__ import annotations

import warnings

import pytest
import torch

from solo.doctor.case import Case
from solo.doctor.resume import TAMPERS, differing, resume
from solo.methods.catalogue import CATALOGUE


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


@pytest.mark.parametrize(("method", "tamper"), [("nnclr", tamper) for tamper in TAMPERS] + [("simclr", "queue")])
def test_planted_bugs_are_found(method, tamper):
    outcome = resume(Case(method), tamper)
    assert not outcome.ok and "differs from 8 steps in" in outcome.detail
    found = {"rng": "rng.torch", "queue": "queue" if method == "nnclr" else "logged.", "sampler": "state_dict."}
    assert found[tamper] in outcome.detail or (method, tamper) == ("nnclr", "queue")


@pytest.mark.parametrize("method", ["swav", "deepclusterv2", "byol"])
def test_every_process_goes_on_with_what_is_its_own(method):
    outcome = resume(Case(method), processes=2)
    assert outcome.ok, outcome.detail


def test_a_forgotten_memory_of_the_second_process_is_found():
    outcome = resume(Case("swav"), "queue", processes=2)
    assert not outcome.ok, outcome.detail


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


def test_an_unknown_bug():
    with pytest.raises(ValueError, match="choose rng, queue, sampler"):
        resume(Case("simclr"), "que")
