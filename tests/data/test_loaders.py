from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from solo.data.batches.loaders import (
    NormalisedBatches,
    SeededDataset,
    beside,
    end_workers,
    eval_loader,
    train_loader,
    whole_batches,
)
from solo.data.batches.samplers import SeededSampler
from solo.data.sources.images import ArrayDataset
from solo.data.views.pipelines import build_eval_pipeline
from solo.errors import UserError

# Python warns of fork in a process with threads, which torch may have started.
pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


class Numbers(Dataset[Any]):
    """Items `(index, a random number)`."""

    def __init__(self, size: int = 20) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, random.random()


def draw(loader: DataLoader[Any], epochs: int = 1) -> list[list[Any]]:
    return [[batch[0].tolist(), batch[1].tolist()] for _ in range(epochs) for batch in loader]


def test_same_seed_same_batches_whatever_else_is_drawn() -> None:
    first = draw(train_loader(Numbers(), 4, 0, seed=7), epochs=2)
    random.seed(99)
    torch.manual_seed(99)
    assert draw(train_loader(Numbers(), 4, 0, seed=7), epochs=2) == first
    assert draw(train_loader(Numbers(), 4, 0, seed=8), epochs=2) != first


def test_same_batches_with_workers() -> None:
    assert draw(train_loader(Numbers(), 4, 2, seed=7), 2) == draw(train_loader(Numbers(), 4, 0, seed=7), 2)


def test_each_epoch_has_its_own_order_and_can_be_chosen() -> None:
    loader = train_loader(Numbers(), 4, 0, seed=7)
    first, second = draw(loader), draw(loader)
    assert first != second
    resumed = train_loader(Numbers(), 4, 0, seed=7)
    assert isinstance(resumed.sampler, SeededSampler)
    resumed.sampler.set_epoch(1)
    assert draw(resumed) == second


def test_every_sample_once_and_full_batches_only() -> None:
    batches = draw(train_loader(Numbers(18), 4, 0, seed=0))
    assert [len(indices) for indices, _ in batches] == [4, 4, 4, 4]
    seen = [i for indices, _ in batches for i in indices]
    assert len(set(seen)) == 16 and seen != sorted(seen)


def test_no_seed_follows_torch() -> None:
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(draw(train_loader(Numbers(), 4, 0, seed=None)))
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("loader", [train_loader(Numbers(), 4, 0, seed=1), eval_loader(Numbers(), 4, 0)])
def test_iterating_leaves_torchs_generator_alone(loader: DataLoader[Any]) -> None:
    before = torch.get_rng_state()
    draw(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_eval_loader_keeps_order_and_rest() -> None:
    batches = draw(eval_loader(Numbers(10), 4, 0))
    assert [indices for indices, _ in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_plain_index_works_too() -> None:
    assert SeededDataset(Numbers())[3][0] == 3


def test_a_batch_larger_than_the_data_names_both_numbers() -> None:
    with pytest.raises(UserError, match="batch_size=64 .* 20 images"):
        train_loader(Numbers(), 64, 0, seed=0)


def test_loader_survives_a_pickle() -> None:
    loader = train_loader(Numbers(), 4, 0, seed=7)
    assert draw(pickle.loads(pickle.dumps(loader))) == draw(loader)


def test_worker_options() -> None:
    assert train_loader(Numbers(), 4, 1, seed=0).persistent_workers
    assert not train_loader(Numbers(), 4, 0, seed=0).persistent_workers
    assert eval_loader(Numbers(), 4, 0).pin_memory == torch.cuda.is_available()


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_validation_images_are_the_same_as_one_by_one(channels: int) -> None:
    shape = (10, 8, 8, 3) if channels == 3 else (10, 8, 8)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    transform = build_eval_pipeline(8, (0.4,), (0.3,), channels)
    data = ArrayDataset(images, range(10), transform)
    loader = eval_loader(data, 4, 0)
    assert isinstance(loader.dataset, NormalisedBatches)
    X, targets = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(X, torch.stack([data[i][0] for i in range(10)])) and targets.tolist() == list(range(10))
    assert torch.equal(loader.dataset[3][0], X[3])


def test_validation_images_that_need_more_are_made_one_by_one() -> None:
    images = np.zeros((4, 8, 8), dtype=np.uint8)
    for transform in (build_eval_pipeline(6, (0.4,), (0.3,), 1), build_eval_pipeline(8, (0.4,), (0.3,), 3), None):
        assert whole_batches(ArrayDataset(images, range(4), transform)) is None
    assert whole_batches(Numbers()) is None


def test_workers_end_with_their_run_and_start_again() -> None:
    others = {process.pid for process in multiprocessing.active_children()}  # of loaders that tests have left behind
    loader = train_loader(TensorDataset(torch.arange(8)), 4, 1, seed=0)
    first = [batch[0].tolist() for batch in loader]
    assert {process.pid for process in multiprocessing.active_children()} - others
    end_workers(loader, None)
    assert {process.pid for process in multiprocessing.active_children()} <= others
    assert sorted(sum((batch[0].tolist() for batch in loader), [])) == sorted(sum(first, []))
    end_workers(loader)


def test_views_are_made_on_a_stream_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step waits for them, they don't wait for the step, and their memory is kept until it is done."""
    calls: list[str] = []

    class Stream:
        def __init__(self, name: object) -> None:
            self.name = name if isinstance(name, str) else "side"

        def wait_stream(self, other: Stream) -> None:
            calls.append(f"{self.name} waits for {other.name}")

    class View:
        def record_stream(self, stream: Stream) -> None:
            calls.append(f"kept for {stream.name}")

    @contextlib.contextmanager
    def on(stream: Stream) -> Iterator[None]:
        calls.append(f"on {stream.name}")
        yield
        calls.append("back")

    def make() -> Any:
        calls.append("made")
        return [[View()]]

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("step"))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    beside(torch.device("cuda", 63), make)
    assert calls == ["on side", "made", "back", "step waits for side", "kept for step"]
    calls.clear()
    beside(torch.device("cpu"), make)
    assert calls == ["made"]
