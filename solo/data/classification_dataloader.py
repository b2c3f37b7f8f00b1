"""Labelled data for linear evaluation, finetuning and validation. solo-learn's names and arguments."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch.utils.data import DataLoader, Dataset

from solo.data.batches.loaders import eval_loader, train_loader
from solo.data.catalogue.registry import DatasetSpec, get_spec
from solo.data.labels.subsets import take_fraction
from solo.data.sources.images import Transform, load
from solo.data.views.batched import BatchAugment
from solo.data.views.pipelines import build_eval_pipeline, build_train_pipeline, train_entry
from solo.errors import UserError, some

Pair = tuple[Any, Any]


def build_custom_pipeline() -> dict[str, Transform]:
    """The transforms of custom data, `T_train` and `T_val`: 224 pixels, ImageNet's mean and std; override it."""
    spec = get_spec("custom")
    return {
        "T_train": build_train_pipeline(spec.size, spec.mean, spec.std),
        "T_val": build_eval_pipeline(spec.size, spec.mean, spec.std, resize=spec.resize),
    }


def prepare_transforms(
    dataset: str | DatasetSpec,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    channels: int | None = None,
) -> tuple[Transform, Transform]:
    """`(T_train, T_val)` of a data set's name or completed row; what is not given is the data set's own.

    Mean and std are per channel, of images in [0, 1]; the shorter side is resized in proportion (256 to 224) before the
    centre crop of `size`. Raises a `UserError` for an unknown data set, or if mean and std don't fit the channels.
    """
    spec = get_spec(dataset)
    if spec.name == "custom" and not (mean or std or size or channels):
        pipeline = build_custom_pipeline()
        return pipeline["T_train"], pipeline["T_val"]
    mean = mean or spec.eval_mean or spec.mean
    std = std or spec.eval_std or spec.std
    resize = round(spec.resize * size / spec.size) if spec.resize and size else spec.resize
    size = size or spec.size
    train = build_train_pipeline(size, mean, std, channels, spec.crop_min_scale, spec.flip)
    return train, build_eval_pipeline(size, mean, std, channels, resize)


def train_augment(
    spec: DatasetSpec, size: int, mean: Sequence[float], std: Sequence[float], channels: int | None = None
) -> BatchAugment:
    """What `T_train` of `prepare_transforms` does, for whole batches; arguments as there."""
    entry = train_entry(size, spec.crop_min_scale, spec.flip)
    return BatchAugment([entry], mean, std, channels, resample="bilinear")


def prepare_datasets(
    dataset: str | DatasetSpec,
    T_train: Transform | None,  # noqa: N803 (solo-learn's argument)
    T_val: Transform | None,  # noqa: N803
    train_data_path: str | Path | None = None,
    val_data_path: str | Path | None = None,
    data_format: str = "image_folder",
    download: bool = True,
    data_fraction: float = -1.0,
    levels: bool = False,
    seed: int = 42,
) -> tuple[Dataset[Pair], Dataset[Pair]]:
    """`(train, val)` with items `(image, target)`.

    `dataset` is a name of the registry, or a row that `resolve_spec` has completed. The transforms are those of
    `prepare_transforms`; `None` leaves PIL images. Without a path of a folder, or HDF5 file, data are in `datasets`
    inside the package; `data_format` is `image_folder` or `h5`; `download` fetches what is missing, where that is
    possible. A `data_fraction` in (0, 1) takes that share of the training data, stratified, drawn by `seed`. With
    `levels` targets are `(levels,)`, coarse first, for data sets with more than one. Raises a `UserError` for an
    unknown data set, and if the data aren't as expected.
    """
    spec = get_spec(dataset)
    train: Any = load(spec, "train", train_data_path, download, T_train, levels, data_format=data_format)
    val: Any = load(spec, "val", val_data_path, download, T_val, levels, data_format=data_format)
    # Classes are numbered in each folder by itself, so that a missing one would shift all labels after it.
    if spec.folders and (differing := sorted(set(train.classes) ^ set(val.classes))):
        counts = f"({len(train.classes)} and {len(val.classes)}; only in one of them: {some(differing, 50)})"
        cure = "data.dataset=custom, which knows classes by their names, with data.unknown_classes=drop or label"
        what = f"{train.root} and {val.root} hold different classes {counts}"
        raise UserError(f"{what}; both need the same folders, or {cure}")
    return take_fraction(train, data_fraction, seed), val


def prepare_dataloaders(
    train_dataset: Dataset[Pair],
    val_dataset: Dataset[Pair],
    batch_size: int = 64,
    num_workers: int = 4,
    seed: int | None = None,
) -> tuple[DataLoader[Pair], DataLoader[Pair]]:
    """Loaders of `(X (B, C, H, W), targets (B,) or (B, levels))`; the training one is shuffled and drops the rest."""
    train = train_loader(train_dataset, batch_size, num_workers, seed)
    return train, eval_loader(val_dataset, batch_size, num_workers)


def prepare_data(
    dataset: str | DatasetSpec,
    train_data_path: str | Path | None = None,
    val_data_path: str | Path | None = None,
    data_format: str = "image_folder",
    batch_size: int = 64,
    num_workers: int = 4,
    download: bool = True,
    data_fraction: float = -1.0,
    auto_augment: bool = False,
    *,
    levels: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    channels: int | None = None,
    seed: int | None = None,
) -> tuple[DataLoader[Pair], DataLoader[Pair]]:
    """`(train_loader, val_loader)` in one call, with arguments and errors of the functions that it calls.

    `auto_augment` trains with timm's RandAugment and random erasing; `seed` is that of order and augmentation.
    """
    T_train, T_val = prepare_transforms(dataset, mean, std, size, channels)  # noqa: N806
    if auto_augment:
        custom = get_spec("custom")
        T_train = _auto_augment(size or 224, tuple(mean or custom.mean), tuple(std or custom.std))  # noqa: N806
    images = train_data_path, val_data_path, data_format, download, data_fraction, levels
    return prepare_dataloaders(*prepare_datasets(dataset, T_train, T_val, *images), batch_size, num_workers, seed)


def _auto_augment(size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Transform:
    from timm.data.transforms_factory import create_transform

    erasing: Any = {"re_prob": 0.25, "re_mode": "pixel", "re_count": 1}
    policy: Any = {"auto_augment": "rand-m9-mstd0.5-inc1", "color_jitter": None, "interpolation": "bicubic"}
    made: Any = create_transform(size, is_training=True, mean=mean, std=std, **policy, **erasing)
    for operation in next(step.ops for step in made.transforms if hasattr(step, "ops")):
        if operation.name.startswith("Posterize"):  # the largest level keeps 0 bits of a colour, which Pillow refuses
            operation.magnitude_max = 9.99
    return cast(Transform, made)
