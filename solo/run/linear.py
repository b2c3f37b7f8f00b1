"""`solo linear`: a linear classifier on a frozen backbone, or finetuning of both."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import seed_everything
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from solo.callbacks.checkpointer import plain_cfg
from solo.callbacks.summary import Facts
from solo.data.classification_dataloader import prepare_data
from solo.data.specs import resolve_spec
from solo.errors import UserError
from solo.methods import LinearModel
from solo.run.features import feature_loaders
from solo.run.source import pretrained_backbone
from solo.run.trainer import prepare

Loaders = tuple[DataLoader[Any], DataLoader[Any]]


def run(cfg: DictConfig) -> None:
    """Evaluate `cfg.pretrained_feature_extractor`; write everything into `<checkpoint.dir>/linear/<run id>/`.

    Args:
        cfg: resolved; what the checkpoint says about its backbone and images is filled in, in place.
    """
    if cfg.data.cache_features and cfg.finetune:
        raise UserError("data.cache_features=True needs a frozen backbone, but finetune=True; switch one of them off")
    seed_everything(cfg.seed, workers=True, verbose=False)
    backbone = pretrained_backbone(cfg)
    loss, mixup = _mixup(cfg)
    model = LinearModel(backbone, cfg, loss_func=loss, mixup_func=mixup)
    loaders = None if cfg.data.cache_features else image_loaders(cfg)
    prepared = prepare(cfg, "linear", _facts(cfg))
    train, val = loaders or feature_loaders(cfg, backbone, prepared.trainer.strategy.root_device)
    prepared.fit(model, train, val)


def image_loaders(cfg: DictConfig) -> Loaders:
    """Augmented training images and plain validation images."""
    data = cfg.data
    paths = (data.train_path, data.val_path, data.format, cfg.optimizer.batch_size)
    options = (data.num_workers, data.download, data.fraction, cfg.auto_augment)
    stats = {"mean": data.mean, "std": data.std, "size": data.image_size, "channels": data.channels}
    return prepare_data(resolve_spec(data), *paths, *options, levels=True, seed=cfg.seed, **stats)


def _mixup(cfg: DictConfig) -> tuple[Any, Any]:
    """The loss for soft targets and the function that mixes images; None for both without mixup."""
    if cfg.mixup <= 0 and cfg.cutmix <= 0:
        return None, None
    from timm.data import mixup
    from timm.loss import cross_entropy

    mix: Any = mixup.Mixup
    soft: Any = cross_entropy.SoftTargetCrossEntropy
    return soft(), mix(cfg.mixup, cfg.cutmix, label_smoothing=cfg.label_smoothing, num_classes=cfg.data.num_classes)


def _facts(cfg: DictConfig) -> Facts:
    what = "finetuned with a linear classifier" if cfg.finetune else "linear classifier on the frozen backbone"
    images = "cached features of plain images" if cfg.data.cache_features else "augmented images"
    text = f"{what}, trained offline on {images} for {cfg.max_epochs} epochs; all validation images, last epoch"
    extra = {
        "pretrained_feature_extractor": cfg.pretrained_feature_extractor,
        "pretrain_method": cfg.pretrain_method,
        "backbone": cfg.backbone.name,
    }
    levels = resolve_spec(cfg.data).levels
    protocol = {"val_acc1": text, "val_acc5": text}
    if cfg.data.cache_features:
        protocol["images_per_second"] = "cached features, without the backbone"
    return Facts("linear", plain_cfg(cfg), levels, protocol, extra)
