"""Pretraining data: several views per image and its index. solo-learn's names and arguments."""

from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from solo.data.batches.loaders import train_loader
from solo.data.catalogue import registry
from solo.data.labels.subsets import Indexed, take_fraction
from solo.data.sources.images import CustomDatasetWithoutLabels as CustomDatasetWithoutLabels
from solo.data.sources.images import Transform, load
from solo.data.views.pipelines import Equalization as Equalization
from solo.data.views.pipelines import FullTransformPipeline as FullTransformPipeline
from solo.data.views.pipelines import GaussianBlur as GaussianBlur
from solo.data.views.pipelines import NCropAugmentation as NCropAugmentation
from solo.data.views.pipelines import Solarization as Solarization
from solo.data.views.pipelines import build_transform_pipeline as build_transform_pipeline
from solo.data.views.pipelines import prepare_n_crop_transform as prepare_n_crop_transform


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

    `transform` makes the list of views of a PIL image; with `no_labels` the folder is flat and targets are -1; the
    other arguments and errors are those of `solo.data.classification_dataloader.prepare_datasets`.
    """
    spec = registry.get_spec(dataset)
    images = load(spec, "pretrain", train_data_path, download, transform, levels, no_labels, data_format)
    return Indexed(take_fraction(images, data_fraction, seed))


# Batches `[indexes (B,), [view (B, C, H, W), ...], targets (B,) or (B, levels)]` of these images.
prepare_dataloader = train_loader
