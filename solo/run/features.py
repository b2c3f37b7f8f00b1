"""Features of a frozen backbone, computed once and served as batches, or compared with those of what it became."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sized
from dataclasses import replace
from typing import Any, cast

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset

from solo.args.data_schema import SourceDataCfg
from solo.args.eval_schema import FeatureCfg
from solo.args.schema import LinearCfg, PretrainCfg
from solo.data.batches.loaders import SeededSampler, eval_loader, worker_options
from solo.data.classification_dataloader import prepare_datasets, prepare_transforms
from solo.data.labels.subsets import Subset, take_fraction
from solo.data.sources.load import load
from solo.eval.features import FeatureTable
from solo.eval.linear import choose
from solo.eval.rows import draw
from solo.eval.suite import Protocol, Tables, verdict
from solo.methods.base import BaseMethod
from solo.run.report import on_terminal, say

_FACTORS = (1.0, 0.03, 0.1, 0.3, 3.0, 10.0)  # of the recipe's learning rate
_DECAYS = (0.0, 1e-6, 1e-5, 1e-4)


def feature_sets(cfg: LinearCfg, backbone: nn.Module, device: torch.device) -> tuple[FeatureSet, FeatureSet]:
    """Features of all training and all validation images, without augmentation; computed now."""
    size, splits = cfg.optimizer.batch_size, zip(plain_images(cfg), ("training", "validation"), strict=True)
    workers = cfg.data.workers
    train, val = (extract(backbone, eval_loader(images, size, workers), device, what) for images, what in splits)
    return train, val


def with_best_of_grid(cfg: LinearCfg, train: FeatureSet, device: torch.device) -> LinearCfg:
    """The config with the learning rate and weight decay that are best on a tenth of the training images."""
    lr, classes = cfg.optimizer.lr, int(cfg.data.num_classes or 0)
    labels = train.targets if train.targets.ndim == 1 else train.targets[:, -1]
    settings = (cfg.max_epochs, cfg.optimizer.batch_size, cfg.seed)
    features, rates = train.features.to(device), [lr * factor for factor in _FACTORS]
    found = choose(features, labels.to(device), classes, rates, _DECAYS, *settings)
    best = found.accuracies[found.lr, found.weight_decay]
    say(
        f"grid of {len(found.accuracies)}: optimizer.lr={found.lr:g} weight_decay={found.weight_decay:g}, the best on "
        f"a tenth of the training images ({best:.2f} %; the recipe's lr={lr:g} {found.accuracies[lr, 0.0]:.2f} %)"
    )
    return replace(cfg, optimizer=replace(cfg.optimizer, lr=found.lr, weight_decay=found.weight_decay))


def plain_images(cfg: LinearCfg | FeatureCfg) -> tuple[Dataset[Any], Dataset[Any]]:
    """The training and the validation images, without augmentation, with their labels at all levels."""
    data = cfg.data
    _, transform = prepare_transforms(data.spec, data.mean, data.std, data.image_size, data.channels)
    if data.no_labels:
        spec, options = data.spec, dict[str, Any](transform=transform, no_labels=True)
        train, val = load(spec, "train", data.train_path, **options), load(spec, "val", data.val_path, **options)
        return take_fraction(train, data.fraction), val
    paths = (data.train_path, data.val_path, data.format, data.download, data.fraction)
    return prepare_datasets(data.spec, transform, transform, *paths, levels=True)


def stored_images(data: SourceDataCfg) -> Dataset[Any]:
    """The validation images of a section `data` as they are stored, for pictures or other views than a network's."""
    return load(data.spec, "val", data.val_path, data.download, None, no_labels=data.no_labels)


class FeatureSet(Dataset[tuple[Tensor, Tensor]]):
    """Features (n, d) and targets (n,) or (n, levels); one item is a whole batch."""

    def __init__(self, features: Tensor, targets: Tensor) -> None:
        self.features = features
        self.targets = targets

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, batch: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        rows = [index for index, _ in batch]
        return self.features[rows], self.targets[rows]


class _Batches(BatchSampler):
    """Batches of a seeded order; Lightning tells it the epoch, a resumed run what it has seen."""

    def set_epoch(self, epoch: int) -> None:
        if isinstance(self.sampler, SeededSampler):
            self.sampler.set_epoch(epoch)

    def start_at(self, epoch: int, samples: int) -> None:
        if isinstance(self.sampler, SeededSampler):
            self.sampler.start_at(epoch, samples)


def feature_loader(features: FeatureSet, batch_size: int, seed: int | None) -> DataLoader[Any]:
    """Batches of features; shuffled by `seed`, in order without one."""
    in_order = [(row, 0) for row in range(len(features))]
    sampler: Any = in_order if seed is None else SeededSampler(len(features), seed)
    return DataLoader(features, sampler=_Batches(sampler, batch_size, drop_last=False), batch_size=None)


@torch.no_grad()
def extract(backbone: nn.Module, loader: DataLoader[Any], device: torch.device, what: str) -> FeatureSet:
    """Run `backbone` in eval mode over `(X, targets)` batches of `what`, images; float32, in CPU memory."""
    started = time.perf_counter()
    backbone = backbone.to(device).eval()
    features, targets, row = torch.empty(0), [], 0
    for images, target in track(loader, f"features of the {what} images", transient=True, disable=not on_terminal()):
        part = backbone(images.to(device, non_blocking=True)).float()
        if not row:  # all of it at once: collecting the parts would take the memory twice
            features = torch.empty(len(cast(Sized, loader.dataset)), *part.shape[1:])
        features[row : row + len(part)] = part.cpu()
        targets.append(target)
        row += len(part)
    found = FeatureSet(features, torch.cat(targets))
    seconds = time.perf_counter() - started
    say(f"features of the {what} images: {tuple(found.features.shape)} in {seconds:.1f} s")
    return found


_MOST = {"training": 20_000, "validation": 10_000}  # images; of more, as many are drawn

Images = Callable[[str], "Dataset[Any] | None"]  # "training" or "validation" -> what evaluation sees of them


def verdict_on(cfg: PretrainCfg, model: BaseMethod, images: Images, device: torch.device) -> Callable[[], Any]:
    """Look at a model's backbone now; what is returned compares it with what it has become, see `solo.eval.suite`."""
    parts = {name: found for name in _MOST if (found := images(name)) is not None}
    if len(parts) < len(_MOST) or str(cfg.strategy).startswith("fsdp"):
        say("no verdict at the end: it needs labelled validation images, and another strategy than fsdp")
        return lambda: None
    workers = cfg.data.workers
    chosen: dict[str, DataLoader[Any]] = {  # the first process alone looks at all of them
        name: DataLoader(
            Subset(part, draw(len(cast(Sized, part)), _MOST[name], cfg.seed).tolist()),
            cfg.optimizer.batch_size,
            **worker_options(workers, 0),
        )
        for name, part in parts.items()
    }

    def tables() -> Tables:
        backbone = copy.deepcopy(model.backbone)  # which is left in its mode
        found = [extract(backbone, loader, device, name) for name, loader in chosen.items()]
        bank, judged = (FeatureTable(x.features, model.leaf_labels(x.targets.cpu())[:, None]) for x in found)
        return bank.rows(bank.labels[:, 0] >= 0), judged

    before = tables()
    return lambda: verdict(before, tables(), Protocol(seed=cfg.seed), device)
