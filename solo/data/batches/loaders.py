"""Loaders that give the same batches for the same seed, with any number of workers and after a resume.

Image by image, the sampler hands out `(index, seed)` pairs and the data set seeds Python's `random`, from which the
transforms draw. In whole batches, decoded images and a `BatchAugment` stand for a data set of views: on a CPU the
workers make the views; for a GPU they only fetch decoded images, or crops, and the views are made on the device.
"""

import functools
import itertools
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, default_collate, default_convert
from torchvision import transforms as tvt

from solo.cores import fitting_workers
from solo.data.batches.samplers import EvaluationShare, SeededSampler, seeded_sampler
from solo.data.cache import Images, pixels_in_memory, planes
from solo.data.labels.subsets import Around, level_targets
from solo.data.views.batched import VIEW, BatchAugment, Shown
from solo.data.views.pipelines import Normalize, Pipeline

_GRACE = 60  # seconds that a loader outlives a stop, at most


class SeededDataset(Around):
    """A data set whose samples are drawn as `dataset[index, seed]`; a plain index draws from the running `random`.

    With `shown` its items are `(index, views, target)`, and the second view is of the image that is shown.
    """

    def __init__(self, dataset: Dataset[Any], shown: Shown | None = None) -> None:
        super().__init__(dataset)
        vars(self)["shown"] = shown

    def __getitem__(self, item: int | tuple[int, int]) -> Any:
        if not isinstance(item, tuple):
            return self.dataset[item]
        index, seed = item
        other = index if self.shown is None else int(self.shown(torch.tensor([index]), torch.tensor([seed])))
        random.seed(seed)
        found = self.dataset[index]
        if other == index:
            return found
        random.seed(seed)
        views = [*found[1]]
        views[VIEW] = self.dataset[other][1][VIEW]
        return found[0], views, *found[2:]


class Padded(Around):
    """A data set of `(image, label)` that goes on beyond its end with its first images, unlabelled: not counted."""

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index % len(self)]
        return item if index < len(self) else (item[0], torch.full_like(torch.as_tensor(item[1]), -1))


class NormalisedBatches(Padded):
    """The same of images uint8 `(N, C, H, W)`, a batch at a time."""

    def __init__(self, dataset: Any, pixels: Tensor, last: Normalize) -> None:
        super().__init__(dataset)
        self._labels = level_targets(dataset)
        self._pixels, self._pipeline = pixels, dataset.transform
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (last.mean, last.std))

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """`[X (B, C, H, W), targets]`."""
        if self.dataset.transform is not self._pipeline:  # somebody has put in another one
            return cast("list[Tensor]", default_collate([self[index] for index in indices]))
        places = torch.tensor(indices)
        rows, beyond = places % len(self), places >= len(self)
        labels = self._labels[rows]
        pixels = self._pixels[rows].contiguous().float().div_(255).sub_(self._mean).div_(self._std)
        return [pixels, labels.masked_fill(beyond.view(-1, *[1] * (labels.ndim - 1)), -1)]


def whole_batches(dataset: Any) -> NormalisedBatches | None:
    """The data set as `NormalisedBatches`, if all that its transform does to images in memory is to normalise them."""
    array, pipeline = pixels_in_memory(dataset), getattr(dataset, "transform", None)
    steps = pipeline.transforms if isinstance(pipeline, Pipeline) else []
    if array is None or [type(step) for step in steps] != [tvt.Resize, tvt.ToTensor, Normalize]:
        return None
    (resize, _, last), pixels = steps, planes(array)
    fits = list(pixels.shape[1:]) == [len(last.mean), *(resize.size if isinstance(resize.size, Sequence) else ())]
    return NormalisedBatches(dataset, pixels, last) if fits else None


class Loader(DataLoader[Any]):
    """Starts its workers anew where the data set was changed: they hold copies of it; `waited`: seconds for batches."""

    waited = 0.0
    _seen = 0

    def __iter__(self) -> Any:
        changes = getattr(self.dataset, "changes", 0)
        if changes != self._seen:
            self._seen, self._iterator = changes, None
        return _timed(super().__iter__(), self)


def _timed(batches: Iterator[Any], loader: Any) -> Iterator[Any]:
    """Adds the seconds until each batch is there, and so no device's work, to the loader's `waited`."""
    while True:
        start = time.perf_counter()
        try:
            batch = next(batches)
        except StopIteration:
            return
        finally:
            loader.waited += time.perf_counter() - start
        yield batch


def train_loader(
    train_dataset: Dataset[Any],
    batch_size: int = 64,
    num_workers: int = 4,
    seed: int | None = None,
    sampler: SeededSampler | None = None,
) -> DataLoader[Any]:
    """Shuffled batches of exactly `batch_size`; the incomplete last one is dropped.

    Batch size and workers are per process. `seed` is of order and augmentation, `None` draws one from torch's
    generator; a `sampler` of the order over all processes has its own. A `UserError` for too few samples for a batch.
    """
    order = seeded_sampler(len(cast(Sized, train_dataset)), batch_size, seed) if sampler is None else sampler
    seeded = train_dataset if isinstance(train_dataset, SeededDataset) else SeededDataset(train_dataset)
    options = worker_options(num_workers, order.seed)
    return Loader(seeded, batch_size=batch_size, sampler=order, drop_last=True, **options)


def eval_loader(dataset: Dataset[Any], batch_size: int, num_workers: int) -> DataLoader[Any]:
    """All samples in their order; with several processes each gets its share, none counts twice."""
    whole = whole_batches(dataset)
    options: Any = worker_options(num_workers, seed=0) | ({"collate_fn": default_convert} if whole else {})
    size = len(cast(Sized, dataset))
    return Loader(whole or Padded(dataset), batch_size=batch_size, sampler=EvaluationShare(size), **options)


class _Batches(Dataset[list[Any]]):
    """One item is a whole batch: `[indexes, views or what they are made of, targets, seeds]`."""

    def __init__(self, images: Images, makers: Sequence[Callable[[Any, Tensor], Any]], shown: Shown | None) -> None:
        self.images, self.makers, self.shown = images, makers, shown

    def __getitem__(self, keys: list[tuple[int, int]]) -> list[Any]:
        indexes, seeds = torch.tensor(keys).unbind(dim=1)
        rows = [indexes] if self.shown is None else [indexes, self.shown(indexes, seeds)]
        found = [make(self.images.fetch(of.tolist()), seeds) for make, of in zip(self.makers, rows, strict=True)]
        return [indexes, found, self.images.labels(indexes), seeds]


class BatchLoader:
    """Batches `[indexes (B,), [view (B, C, H, W), ...], targets]`, shuffled, full ones only.

    Not a `DataLoader`, so that Lightning leaves it as it is. Views are made on `device`; batch size, workers, `seed`,
    `sampler` and errors are as of `train_loader`. `shown` says whose view is the second one of an image (default: its
    own). `waited` are seconds that the program has waited for what the workers make; not for views made on a GPU.
    """

    def __init__(
        self,
        images: Images,
        maker: BatchAugment,
        batch_size: int,
        num_workers: int = 0,
        seed: int | None = None,
        device: torch.device | None = None,
        sampler: SeededSampler | None = None,
        shown: Shown | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.num_workers = images, batch_size, num_workers
        self.waited = 0.0
        self.sampler = seeded_sampler(len(images), batch_size, seed) if sampler is None else sampler
        self.device = device or torch.device("cpu")
        self._makers: list[BatchAugment] = [maker]
        if shown is not None:
            self._makers = [maker.only(lambda view: view != VIEW), maker.only(lambda view: view == VIEW)]
        share = BatchSampler(cast(Any, self.sampler), batch_size, drop_last=True)
        on_cpu = self.device.type == "cpu"
        batches = _Batches(images, [maker if on_cpu else maker.prepare for maker in self._makers], shown)
        options = worker_options(num_workers, self.sampler.seed)
        self._loader: DataLoader[Any] = DataLoader(batches, batch_size=None, sampler=share, **options)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[Any]]:
        for indexes, found, targets, seeds in _timed(iter(self._loader), self):
            if self.device.type != "cpu":
                found = beside(self.device, functools.partial(self._finished, found, seeds))
            own, *others = found
            yield [indexes, [*own[:VIEW], *others[0], *own[VIEW:]] if others else own, targets]

    def _finished(self, prepared: list[Any], seeds: Tensor) -> list[list[Tensor]]:
        pairs = zip(self._makers, prepared, strict=True)
        return [maker.finish(made, seeds, self.device) for maker, made in pairs]


class LabelledBatches(BatchLoader):
    """Batches `[X (B, C, H, W), targets]` of the only view, for classifiers."""

    def __iter__(self) -> Iterator[list[Any]]:
        for _, (view,), targets in super().__iter__():
            yield [view, targets]


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def beside(device: torch.device, make: Callable[[], list[list[Tensor]]]) -> list[list[Tensor]]:
    """Views that are made on a stream of their own: the next batch's, while a GPU still computes the step before."""
    if device.type != "cuda":
        return make()
    step, side = torch.cuda.current_stream(device), _side_stream(device)
    with torch.cuda.stream(side):
        made = make()
    step.wait_stream(side)
    for view in itertools.chain(*made):
        view.record_stream(step)  # type: ignore[arg-type]  # its memory isn't given away before the step is done
    return made


class _Generator(torch.Generator):
    """Travels to spawned processes by its seed: the state of torch's own is gone when they open it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _seeded_generator, (self.initial_seed(),)


def _seeded_generator(seed: int) -> _Generator:
    generator = _Generator()
    generator.manual_seed(seed % 2**63)
    return generator


def worker_options(num_workers: int, seed: int) -> dict[str, Any]:
    """Arguments of every `DataLoader` here."""
    num_workers = fitting_workers(num_workers)
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
        # Without its own generator a loader advances the model's random numbers at the start of each epoch.
        "generator": _seeded_generator(seed),
        "worker_init_fn": _outlive_stop if num_workers else None,
    }


def _outlive_stop(worker: int) -> None:
    """Let a loader's process go on for a while when all processes are told to stop: the step under way needs it."""
    for name in ("SIGTERM", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name) and hasattr(signal, "alarm"):  # not on Windows
            signal.signal(getattr(signal, name), lambda number, frame: signal.alarm(_GRACE))


def end_workers(*loaders: Any) -> None:
    """End the processes of loaders whose run is over; at the interpreter's end they would outlive it, see `_GRACE`."""
    for loader in loaders:
        inner = getattr(loader, "_loader", loader)
        iterator = getattr(inner, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
            inner._iterator = None  # who iterates again starts new ones
