from types import SimpleNamespace

import pytest
import torch

from solo.callbacks import meter as module
from solo.callbacks.meter import Meter, peak_memory_mb


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(value=0.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now.value)
    return now


def test_speed_wait_and_loss_without_the_validation(clock):
    """Two steps: 1 s of waiting and 3 s of work each; 10 s of validation between them, 100 s after them."""
    meter, trainer, images = Meter(), SimpleNamespace(world_size=2, accumulate_grad_batches=2), torch.zeros(6)
    meter.on_train_epoch_start(trainer, None)
    for step, loss in enumerate((1.0, 2.0)):
        clock.value += 1
        meter.on_train_batch_start(trainer, None, [images], step)
        clock.value += 3
        meter.on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, [images, images], step)
        meter.on_validation_start(trainer, None)
        clock.value += (10, 100)[step]
        meter.on_validation_end(trainer, None)
    assert meter.seconds == pytest.approx(8)
    assert meter.images_per_second == pytest.approx(2 * 6 * 2 / 8)
    assert meter.data_wait == pytest.approx(2 / 8)
    assert meter.loss == pytest.approx(3.0)  # of a full batch: Lightning divides by the accumulation


def test_a_loader_that_tells_is_believed(clock):
    """1 s of each 5 s between two steps is spent on `next`; in the rest a GPU computes the step before."""
    meter, loader = Meter(), SimpleNamespace(waited=7.0)
    trainer = SimpleNamespace(world_size=1, accumulate_grad_batches=1, train_dataloader=loader)
    meter.on_train_epoch_start(trainer, None)
    for step in range(5):
        meter.on_train_batch_start(trainer, None, [], step)
        clock.value += 1
        meter.on_train_batch_end(trainer, None, {}, [torch.zeros(2)], step)
        loader.waited += 1
        clock.value += 5
    assert meter.seconds == pytest.approx(25) and meter.wait_seconds == pytest.approx(4)


def test_the_loss_is_the_methods_own():
    meter, trainer = Meter(), SimpleNamespace(world_size=1, accumulate_grad_batches=1)
    meter.on_train_epoch_start(trainer, None)
    for loss, classifier in ((3.0, 1.0), (2.0, 0.5)):
        module = SimpleNamespace(classifier_loss=torch.tensor(classifier))
        meter.on_train_batch_end(trainer, module, {"loss": torch.tensor(loss)}, [torch.zeros(2)], 0)
    assert meter.loss == pytest.approx(1.75)


def test_memory_of_the_process_is_plausible():
    assert 10 < peak_memory_mb(torch.device("cpu")) < 1e6
