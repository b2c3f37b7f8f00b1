"""The loader of whole batches: decoded images and a `BatchAugment` instead of a data set of views.

On a CPU the workers (or this process) make the views. On a GPU they only fetch the decoded images, and the views are
made on the device; images of differing sizes are cropped before they travel.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

from solo.data.batches.loaders import ProcessShare, SeededSampler, Waited, seeded_sampler, worker_options
from solo.data.batches.shown import VIEW, Shown
from solo.data.cache.images import Images
from solo.data.views.batched import BatchAugment

Keys = list[tuple[int, int]]


class _Batches(Dataset[list[Any]]):
    """One item is a whole batch: `[indexes, views or what they are made of, targets, seeds]`."""

    def __init__(self, images: Images, makers: Sequence[Callable[[Any, Tensor], Any]], shown: Shown | None) -> None:
        self.images = images
        self.makers = makers
        self.shown = shown

    def __getitem__(self, keys: Keys) -> list[Any]:
        indexes, seeds = torch.tensor(keys).unbind(dim=1)
        rows = [indexes] if self.shown is None else [indexes, self.shown(indexes, seeds)]
        found = [make(self.images.fetch(of.tolist()), seeds) for make, of in zip(self.makers, rows, strict=True)]
        return [indexes, found, self.images.labels(indexes), seeds]


class BatchLoader:
    """Batches `[indexes (B,), [view (B, C, H, W), ...], targets]`, shuffled, full ones only.

    Not a `DataLoader`, so that Lightning leaves it as it is; each process takes its own share. Raises a `UserError` if
    there are fewer images than one batch needs.

    Args:
        images: decoded.
        maker: makes the views.
        batch_size: per process.
        num_workers: 0 makes the batches in this process.
        seed: of order and views; `None` draws one from torch's generator.
        device: where the views are made.
        sampler: of the order over all processes, with a seed of its own; default: a random order.
        shown: whose view is the second one of an image; default: its own.

    Attributes:
        waited: seconds that the program has waited for what the workers make; not for views made on a GPU.
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
        self.dataset = images
        self.waited = 0.0
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.sampler = seeded_sampler(len(images), batch_size, seed) if sampler is None else sampler
        self.device = device or torch.device("cpu")
        self._makers: list[BatchAugment] = [maker]
        if shown is not None:
            self._makers = [maker.only(lambda view: view != VIEW), maker.only(lambda view: view == VIEW)]
        share: Any = ProcessShare(self.sampler)  # torch's stub knows batches of plain indexes only
        self._share = BatchSampler(share, batch_size, drop_last=True)
        on_cpu = self.device.type == "cpu"
        batches = _Batches(images, [maker if on_cpu else maker.prepare for maker in self._makers], shown)
        options = worker_options(num_workers, self.sampler.seed)
        self._loader: DataLoader[Any] = DataLoader(batches, batch_size=None, sampler=self._share, **options)

    def __len__(self) -> int:
        return len(self._share)

    def __iter__(self) -> Iterator[list[Any]]:
        for indexes, found, targets, seeds in Waited(iter(self._loader), self):
            if self.device.type != "cpu":
                found = beside(self.device, functools.partial(self._finished, found, seeds))
            own, *others = found
            yield [indexes, [*own[:VIEW], *others[0], *own[VIEW:]] if others else own, targets]

    def _finished(self, prepared: list[Any], seeds: Tensor) -> list[list[Tensor]]:
        pairs = zip(self._makers, prepared, strict=True)
        return [maker.finish(made, seeds, self.device) for maker, made in pairs]


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


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class LabelledBatches(BatchLoader):
    """Batches `[X (B, C, H, W), targets]` of the only view, for classifiers."""

    def __iter__(self) -> Iterator[list[Any]]:
        for _, (view,), targets in super().__iter__():
            yield [view, targets]
