"""Pretraining data: several views per image and its index. solo-learn's names and arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from solo.data.batches.loaders import SeededSampler, train_loader
from solo.data.catalogue import registry
from solo.data.labels.subsets import Indexed, take_fraction
from solo.data.sources.images import CustomDatasetWithoutLabels, Transform
from solo.data.sources.load import load
from solo.data.views.image_ops import Equalization, GaussianBlur, Solarization
from solo.data.views.pipelines import (
    FullTransformPipeline,
    NCropAugmentation,
    build_transform_pipeline,
    prepare_n_crop_transform,
)

__all__ = [
    "CustomDatasetWithoutLabels",
    "Equalization",
    "FullTransformPipeline",
    "GaussianBlur",
    "NCropAugmentation",
    "Solarization",
    "build_transform_pipeline",
    "dataset_with_index",
    "prepare_dataloader",
    "prepare_datasets",
    "prepare_n_crop_transform",
]


def dataset_with_index(DatasetClass: type[Dataset[Any]]) -> type[Dataset[Any]]:  # noqa: N803 (solo-learn's argument)
    """A subclass whose items are `(index, *item)`."""

    class DatasetWithIndex(DatasetClass):  # type: ignore[misc, valid-type]
        def __getitem__(self, index: int) -> tuple[Any, ...]:
            return (index, *super().__getitem__(index))

    return DatasetWithIndex


def prepare_datasets(
    dataset: str | registry.DatasetSpec,
    transform: Transform,
    train_data_path: str | Path | None = None,
    data_format: str = "image_folder",
    no_labels: bool = False,
    download: bool = True,
    data_fraction: float = -1.0,
    levels: bool = False,
    seed: int = 42,
) -> Indexed:
    """Training images with their index: items `(index, views, target)`.

    Args:
        dataset: a name of the registry, or a row that `solo.data.catalogue.resolve.resolve_spec` has completed.
        transform: PIL image -> list of views.
        train_data_path: folder of the data; without one, `datasets` inside the package.
        data_format: `image_folder`, or `h5`, where the paths are HDF5 files.
        no_labels: the folder is flat; targets are -1.
        download: fetch what is missing, where that is possible.
        data_fraction: share of the data, in (0, 1), stratified; all of it otherwise.
        levels: targets are `(levels,)`, coarse first, for data sets with more than one level.
        seed: of the fraction's draw.

    Raises:
        UserError: for an unknown data set, and if the data aren't as expected.
    """
    spec = registry.get_spec(dataset)
    images = load(spec, "pretrain", train_data_path, download, transform, levels, no_labels, data_format)
    return Indexed(take_fraction(images, data_fraction, seed))


def prepare_dataloader(
    train_dataset: Dataset[Any],
    batch_size: int = 64,
    num_workers: int = 4,
    seed: int | None = None,
    sampler: SeededSampler | None = None,
) -> DataLoader[Any]:
    """Shuffled full batches `[indexes (B,), [view (B, C, H, W), ...], targets (B,) or (B, levels)]`.

    Args:
        train_dataset: what `prepare_datasets` returns, or any indexed data set.
        batch_size: per process.
        num_workers: per process.
        seed: of order and augmentation; `None` draws one from torch's generator.
        sampler: of the order over all processes, with a seed of its own; default: a random order.

    Raises:
        UserError: if the batch is larger than the data set.
    """
    return train_loader(train_dataset, batch_size, num_workers, seed, sampler)
