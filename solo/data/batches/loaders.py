"""Loaders that give the same batches for the same seed, with any number of workers and after a resume.

The sampler hands out `(index, seed)` pairs, all of them a function of (seed, epoch); the data set seeds Python's
`random`, from which the transforms draw, before it makes a sample.
"""

import random
import signal
import time
from collections.abc import Iterator, Sequence, Sized
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from solo import distributed
from solo.cores import fitting_workers
from solo.data.cache.images import uncollated, whole_batches
from solo.data.labels.subsets import Around
from solo.errors import UserError

_GRACE = 60  # seconds that a loader outlives a stop, at most

_AT_ONCE = 65_536  # samples of an order that are Python's numbers at a time: these need more memory than a tensor
# Keeps the streams of neighbouring seeds apart: epochs stay far below it.
_EPOCHS_PER_SEED = 1_000_003


class SeededSampler(Sampler[tuple[int, int]]):
    """A new permutation of `size` samples in each epoch, with a seed for each sample.

    Attributes:
        epoch: which permutation comes next; goes up by itself and can be set, as Lightning does.
        done: how many samples at its start the next permutation leaves out; 0 for the ones after it.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.done = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of an epoch."""
        self.epoch = epoch

    def start_at(self, epoch: int, samples: int) -> None:
        """Choose the next permutation, without its first `samples`: a resumed run has seen them."""
        self.epoch, self.done = epoch, samples

    def __len__(self) -> int:
        return self.size

    def next_generator(self) -> torch.Generator:
        """Of the epoch's random numbers; the epoch goes up."""
        generator = torch.Generator().manual_seed((self.seed * _EPOCHS_PER_SEED + self.epoch) % 2**63)
        self.epoch += 1
        return generator

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self.share(0, 1)

    def share(self, rank: int, processes: int) -> Iterator[tuple[int, int]]:
        """What one of some processes gets of the epoch that comes next: every n-th sample, as many in each."""
        done, self.done = self.done, 0
        return self.order(done + rank, len(self) // processes * processes, processes)

    def order(self, start: int = 0, end: int | None = None, step: int = 1) -> Iterator[tuple[int, int]]:
        """Samples of the epoch that comes next, in their order, each with its seed: all, or a slice of them."""
        generator = self.next_generator()
        order = torch.randperm(self.size, generator=generator)
        seeds = torch.randint(2**62, (self.size,), generator=generator)
        pieces = zip(*(torch.split(x[start:end:step], _AT_ONCE) for x in (order, seeds)), strict=True)
        for numbers, own in pieces:
            yield from zip(numbers.tolist(), own.tolist(), strict=True)


class ProcessShare(DistributedSampler[tuple[int, int]]):
    """What one of n processes gets: every n-th sample of a seeded order, as many in each, none twice.

    A `DistributedSampler` by type only: Lightning would shuffle and split the order of any other sampler.
    """

    def __init__(self, sampler: SeededSampler) -> None:
        self.sampler = sampler

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.sampler.set_epoch(epoch)

    def start_at(self, epoch: int, samples: int) -> None:
        """Choose the next order, without its first `samples` of all processes together."""
        self.sampler.start_at(epoch, samples)

    def __len__(self) -> int:
        return len(self.sampler) // distributed.world_size()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self.sampler.share(distributed.rank(), distributed.world_size())


class SeededDataset(Around):
    """A data set whose samples are drawn as `dataset[index, seed]`; a plain index draws from the running `random`.

    Reseeds Python's global `random` in the process that makes the samples.
    """

    def __getitem__(self, item: int | tuple[int, int]) -> Any:
        if isinstance(item, tuple):
            item, seed = item
            random.seed(seed)
        return self.dataset[item]


class Waited:
    """An iterator that adds the seconds spent on `next`, and so no device's work, to its loader's `waited`."""

    def __init__(self, iterator: Iterator[Any], loader: Any) -> None:
        self._iterator, self._loader = iterator, loader

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        start = time.perf_counter()
        try:
            return next(self._iterator)
        finally:
            self._loader.waited += time.perf_counter() - start


class Loader(DataLoader[Any]):
    """Starts its workers anew where the data set was changed: they hold copies of it; `waited`: seconds for batches."""

    waited = 0.0
    _seen = 0

    def __iter__(self) -> Any:
        changes = getattr(self.dataset, "changes", 0)
        if changes != self._seen:
            self._seen, self._iterator = changes, None
        return Waited(super().__iter__(), self)


class _Generator(torch.Generator):
    """Travels to spawned processes by its seed: the state of torch's own is gone when they open it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _seeded_generator, (self.initial_seed(),)


def _seeded_generator(seed: int) -> _Generator:
    generator = _Generator()
    generator.manual_seed(seed % 2**63)
    return generator


def train_loader(
    dataset: Dataset[Any], batch_size: int, num_workers: int, seed: int | None, sampler: SeededSampler | None = None
) -> DataLoader[Any]:
    """Shuffled batches of exactly `batch_size`; the incomplete last one is dropped.

    A data set that isn't a `SeededDataset` becomes one. `seed` is of order and augmentation, `None` draws one from
    torch's generator; a `sampler` of the order over all processes has its own. Raises a `UserError` if there are fewer
    samples than one batch needs.
    """
    if sampler is None:
        sampler = seeded_sampler(len(cast(Sized, dataset)), batch_size, seed)
    return Loader(
        dataset if isinstance(dataset, SeededDataset) else SeededDataset(dataset),
        batch_size=batch_size,
        sampler=ProcessShare(sampler),
        drop_last=True,
        **worker_options(num_workers, sampler.seed),
    )


def seeded_sampler(size: int, batch_size: int, seed: int | None) -> SeededSampler:
    """The order of a training set; without a seed torch's generator draws it. A `UserError` where a batch has more."""
    if batch_size > size:
        what = f"optimizer.batch_size={batch_size} is larger than the training set of {size} images"
        raise UserError(f"{what}, so an epoch would have no batch; use a batch size of at most {size} or more data")
    return SeededSampler(size, int(torch.randint(2**62, ())) if seed is None else seed)


class EvaluationShare(DistributedSampler[int]):
    """What one of n processes evaluates: every n-th sample, as many in each; the last ones may be beyond the end.

    A `DistributedSampler` by type only, see `ProcessShare`; torch's own would count some samples twice.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def set_epoch(self, epoch: int) -> None:
        """Every epoch is the same."""

    def __len__(self) -> int:
        return -(-self.size // distributed.world_size())

    def __iter__(self) -> Iterator[int]:
        processes = distributed.world_size()
        return iter(range(distributed.rank(), len(self) * processes, processes))


class Padded(Around):
    """A data set of `(image, label)` that goes on beyond its end, with its first images, unlabelled: they don't count.

    So all processes have equally many batches, as DDP needs.
    """

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index % len(self)]
        return item if index < len(self) else (item[0], torch.full_like(torch.as_tensor(item[1]), -1))

    def __getitems__(self, indices: Sequence[int]) -> Any:
        if not hasattr(self.dataset, "__getitems__"):
            return [self[index] for index in indices]
        images, labels = self.dataset.__getitems__([index % len(self) for index in indices])
        beyond = torch.tensor(indices) >= len(self)
        return [images, labels.masked_fill(beyond.view(-1, *[1] * (labels.ndim - 1)), -1)]


def eval_loader(dataset: Dataset[Any], batch_size: int, num_workers: int) -> DataLoader[Any]:
    """All samples in their order; with several processes each gets its share, none counts twice."""
    whole = whole_batches(dataset)
    options: Any = worker_options(num_workers, seed=0) | ({"collate_fn": uncollated} if whole else {})
    size = len(cast(Sized, dataset))
    return Loader(Padded(whole or dataset), batch_size=batch_size, sampler=EvaluationShare(size), **options)


def worker_options(num_workers: int, seed: int) -> dict[str, Any]:
    """Arguments of every `DataLoader` here."""
    num_workers = fitting_workers(num_workers)
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
        # Without its own generator a loader advances the model's random numbers at the start of each epoch.
        "generator": _seeded_generator(seed),
        "worker_init_fn": outlive_stop if num_workers else None,
    }


def end_workers(*loaders: Any) -> None:
    """End the processes of loaders whose run is over; at the interpreter's end they would outlive it, see `_GRACE`."""
    for loader in loaders:
        inner = getattr(loader, "_loader", loader)
        iterator = getattr(inner, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
            inner._iterator = None  # who iterates again starts new ones


def outlive_stop(worker: int) -> None:
    """Let a loader's process go on for a while when all processes are told to stop: the step under way needs it.

    A stop by `timeout`, SLURM or a container reaches the whole group; the main process ends its loaders itself.
    """
    for name in ("SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name) and hasattr(signal, "alarm"):  # not on Windows
            signal.signal(getattr(signal, name), lambda number, frame: signal.alarm(_GRACE))
