"""The alarm is raised for a collapse and not for a healthy run; each thing is said once."""

from __future__ import annotations

import pytest

from solo.callbacks.watchers import TrainingDiagnosis

HEALTHY = {"online/std/projection": 0.9, "online/effective_rank/projection": 30.0, "online/alignment/projection": 0.5}


def _see(diagnosis, rows):
    said = []
    for epoch, row in enumerate(rows):
        said += diagnosis.judge({"epoch": float(epoch), **row}, epoch + 1 == len(rows))
    return said


@pytest.mark.parametrize(
    ("sick", "words"),
    [
        ({"online/std/projection": 0.01}, "nearly the same projection"),
        ({"online/effective_rank/projection": 1.1}, "line"),
    ],
)
@pytest.mark.parametrize(
    ("kept_by", "cause"), [("prediction", "momentum"), ("decorrelation", "variance"), ("contrast", "temperature")]
)
def test_a_collapse_is_said_once_with_its_causes(sick, words, kept_by, cause):
    diagnosis = TrainingDiagnosis(kept_by)
    said = _see(diagnosis, [HEALTHY, *[{**HEALTHY, **sick}] * 5])
    assert len(said) == 1 and said == diagnosis.messages and diagnosis.collapsed
    assert "COLLAPSE, epoch 3" in said[0] and words in said[0] and cause in said[0] and "\n" not in said[0]


def test_an_untrained_network_is_no_collapse():
    assert _see(TrainingDiagnosis(), [{**HEALTHY, "online/std/projection": 0.01}, HEALTHY, HEALTHY]) == []
    assert (
        len(_see(TrainingDiagnosis(), [{**HEALTHY, "online/std/projection": 0.01}])) == 1
    )  # nothing follows that could confirm it


def test_features_are_judged_where_there_is_no_projection():
    said = _see(TrainingDiagnosis(), [{"online/std/features": 0.001, "online/effective_rank/features": 3.0}] * 3)
    assert "nearly the same features" in said[0]


def _losses(values, lr=1.0, **more):
    return [{**HEALTHY, "loss": value, "lr": lr, **more} for value in values]


def test_a_loss_that_stands_still_is_said_once():
    said = _see(TrainingDiagnosis(max_epochs=50), _losses([5, 4, 3, *[2.0] * 12]))
    assert len(said) == 1 and "plateau, epoch 9" in said[0] and "5 epochs" in said[0]


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        (_losses([3, 2, 2.2, 2.1, 2.3, 2.0, 2.2, 2.1]), "up and down"),
        (_losses([2.0] * 8, **{"online/alignment/projection": 0.01}), "too weak"),
        (_losses([2.0] * 8, **{"online/alignment/projection": 1.5}), "too strong"),
        (_losses([2.0] * 8), "larger one"),
    ],
)
def test_likely_reasons_of_a_plateau(rows, cause):
    said = _see(TrainingDiagnosis(max_epochs=50), rows)
    assert len(said) == 1 and cause in said[0]


def test_a_schedule_that_ends_is_no_plateau():
    rows = _losses([5, 4, 3, 2]) + _losses([2.0] * 10, lr=0.1)
    assert _see(TrainingDiagnosis(max_epochs=50), rows) == []
    assert _see(TrainingDiagnosis(max_epochs=50), _losses([3 * 0.99**i for i in range(30)])) == []
    assert _see(TrainingDiagnosis(), [{"epoch": 0.0}] * 3) == []  # nothing known


def test_a_resumed_watch_goes_on():
    rows = _losses([5, 4, 3, *[2.0] * 12])
    whole, first, second = (TrainingDiagnosis(max_epochs=50) for _ in range(3))
    _see(whole, rows)
    for epoch, row in enumerate(rows[:6]):
        first.judge({"epoch": float(epoch), **row})
    held = second.messages
    second.load(first.state())
    for epoch, row in enumerate(rows[6:], start=6):
        second.judge({"epoch": float(epoch), **row})
    assert second.state() == whole.state() and held is second.messages and len(held) == 1


def test_a_state_stays_as_it_was_taken():
    watch = TrainingDiagnosis(max_epochs=50)
    _see(watch, _losses([5, 4, 3]))
    state = watch.state()
    _see(watch, _losses([2.0] * 12))
    assert state["_losses"] == [5, 4, 3] and state["messages"] == [] and len(watch.messages) == 1
    watch.load(state)
    assert watch.state() == state and watch.messages == []
