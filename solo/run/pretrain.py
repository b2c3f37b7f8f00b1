"""`solo pretrain`: self-supervised training, with online accuracies where there are labels."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import seed_everything
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from solo.callbacks.checkpointer import plain_cfg
from solo.callbacks.summary import Facts
from solo.data.classification_dataloader import prepare_transforms
from solo.data.loaders import eval_loader
from solo.data.pretrain_dataloader import prepare_dataloader, prepare_datasets
from solo.data.registry import get_spec
from solo.data.sources import load
from solo.data.transforms import build_transform_pipeline, prepare_n_crop_transform
from solo.methods import METHODS
from solo.run.report import linear_command, say
from solo.run.trainer import prepare


def run(cfg: DictConfig) -> None:
    """Train `cfg.method` and write everything into `<checkpoint.dir>/<method>/<run id>/`; `cfg` is resolved."""
    seed_everything(cfg.seed, workers=True, verbose=False)
    model = METHODS[cfg.method](cfg)
    train, val = train_loader(cfg), val_loader(cfg)
    prepared = prepare(cfg, cfg.method, _facts(cfg))
    prepared.fit(model, train, val, lambda last: linear_command(cfg.data.dataset, last))


def train_loader(cfg: DictConfig) -> DataLoader[Any]:
    """Batches of `[indexes (B,), [view (B, C, H, W), ...], targets]`."""
    data, stats = cfg.data, {"mean": cfg.data.mean, "std": cfg.data.std, "channels": cfg.data.channels}
    pipelines = [build_transform_pipeline(data.dataset, entry, **stats) for entry in cfg.augmentations]
    views = prepare_n_crop_transform(pipelines, [entry.num_crops for entry in cfg.augmentations])
    if cfg.debug_augmentations:
        say(str(views))
    images = prepare_datasets(
        data.dataset, views, data.train_path, data.format, data.no_labels, data.download, data.fraction, levels=True
    )
    return prepare_dataloader(images, cfg.optimizer.batch_size, data.num_workers, seed=cfg.seed)


def val_loader(cfg: DictConfig) -> DataLoader[Any] | None:
    """Batches of `(X, targets)` of the validation images; none without labels or without a folder for them."""
    data, spec = cfg.data, get_spec(cfg.data.dataset)
    if data.no_labels or (spec.folders and data.val_path is None):
        return None
    transform = prepare_transforms(data.dataset, data.mean, data.std, data.image_size, data.channels)[1]
    images = load(spec, "val", data.val_path, data.download, transform, levels=True)
    return eval_loader(images, cfg.optimizer.batch_size, data.num_workers)


def _facts(cfg: DictConfig) -> Facts:
    online = "online linear classifier on detached features of augmented training views; all validation images"
    knn = (
        f"online kNN of backbone features: k={cfg.knn_eval.k}, {cfg.knn_eval.distance_func} distance, "
        "bank: the last epoch's augmented training views; all validation images"
    )
    protocol = {"val_acc1": online, "val_acc5": online, "knn_acc1": knn, "knn_acc5": knn}
    levels = () if cfg.data.no_labels else get_spec(cfg.data.dataset).levels
    return Facts("pretrain", plain_cfg(cfg), levels, {key: f"{text}, last epoch" for key, text in protocol.items()})
