"""`solo linear`: a linear classifier on a frozen backbone, or finetuning of both."""

from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader

from solo.args.config import to_plain
from solo.args.schema import LinearCfg
from solo.backbones.registry import check_single
from solo.callbacks.recorder import Facts
from solo.data.batches.loaders import LabelledBatches, eval_loader
from solo.data.batches.samplers import SeededSampler
from solo.data.cache import CantCacheError, cached
from solo.data.classification_dataloader import prepare_data, prepare_datasets, prepare_transforms, train_augment
from solo.errors import UserError
from solo.eval.linear import choose
from solo.methods import LinearModel
from solo.run.features import FeatureSet, extract, plain_images
from solo.run.machine import compute_device, tune
from solo.run.report import say
from solo.run.source import pretrained_backbone
from solo.run.trainer import prepare

_FACTORS = (1.0, 0.03, 0.1, 0.3, 3.0, 10.0)  # of the recipe's learning rate
_DECAYS = (0.0, 1e-6, 1e-5, 1e-4)


def run(cfg: LinearCfg) -> None:
    """Evaluate `cfg.pretrained_feature_extractor`; write everything into `<checkpoint.dir>/linear/<run id>/`."""
    if cfg.data.cache_features and cfg.finetune:
        raise UserError("data.cache_features=True needs a frozen backbone, but finetune=True; switch one of them off")
    seed_everything(cfg.seed, workers=True, verbose=False)
    backbone, cfg = pretrained_backbone(cfg)
    if cfg.finetune and cfg.optimizer.batch_size == 1 and cfg.data.image_size is not None:
        check_single(backbone, cfg.data.image_size, cfg.data.channels or cfg.data.spec.channels)
    features = _feature_sets(cfg, backbone, compute_device(cfg)) if cfg.grid else None
    if features:
        cfg = _with_best_of_grid(cfg, features[0], compute_device(cfg))
    loss, mixup = _mixup(cfg)
    model = LinearModel(backbone, cfg, loss_func=loss, mixup_func=mixup)
    prepared = prepare(cfg, "linear", _facts(cfg), model)
    device = prepared.trainer.strategy.root_device
    if cfg.data.cache_features and features is None:
        features = _feature_sets(cfg, backbone, device)
    if features:  # the backbone has done its work
        size = cfg.optimizer.batch_size
        prepared.fit(model, feature_loader(features[0], size, cfg.seed), feature_loader(features[1], size, None))
        return
    train, val = image_loaders(cfg, device)
    tune(model, model.config, device, cfg.max_epochs * len(train))
    prepared.fit(model, train, val)


def _feature_sets(cfg: LinearCfg, backbone: nn.Module, device: torch.device) -> tuple[FeatureSet, FeatureSet]:
    loaders = [eval_loader(images, cfg.optimizer.batch_size, cfg.data.workers) for images in plain_images(cfg)]
    return extract(backbone, loaders[0], device, "training"), extract(backbone, loaders[1], device, "validation")


def _with_best_of_grid(cfg: LinearCfg, train: FeatureSet, device: torch.device) -> LinearCfg:
    """The config with the learning rate and weight decay that are best on a tenth of the training images."""
    lr, classes = cfg.optimizer.lr, int(cfg.data.num_classes or 0)
    labels = train.targets if train.targets.ndim == 1 else train.targets[:, -1]
    grid = [lr * factor for factor in _FACTORS], _DECAYS, cfg.max_epochs, cfg.optimizer.batch_size, cfg.seed
    found = choose(train.features.to(device), labels.to(device), classes, *grid)
    best = found.accuracies[found.lr, found.weight_decay]
    say(
        f"grid of {len(found.accuracies)}: optimizer.lr={found.lr:g} weight_decay={found.weight_decay:g}, the best on "
        f"a tenth of the training images ({best:.2f} %; the recipe's lr={lr:g} {found.accuracies[lr, 0.0]:.2f} %)"
    )
    return replace(cfg, optimizer=replace(cfg.optimizer, lr=found.lr, weight_decay=found.weight_decay))


def feature_loader(features: FeatureSet, batch_size: int, seed: int | None) -> DataLoader[Any]:
    """Batches of features; shuffled by `seed`, in order without one."""
    in_order = [(row, 0) for row in range(len(features))]
    sampler: Any = in_order if seed is None else SeededSampler(len(features), seed, whole=True)
    batches: Any = BatchSampler(sampler, batch_size, drop_last=False)
    if seed is not None:  # Lightning tells it the epoch, a resumed run what it has seen
        batches.set_epoch, batches.start_at = sampler.set_epoch, sampler.start_at
    return DataLoader(features, sampler=batches, batch_size=None)


def image_loaders(
    cfg: LinearCfg, device: torch.device | None = None
) -> tuple[DataLoader[Any] | LabelledBatches, DataLoader[Any]]:
    """Augmented training images, made on `device` from decoded ones or (RandAugment) one by one; plain validation."""
    data, spec = cfg.data, cfg.data.spec
    paths = (data.train_path, data.val_path, data.format)
    stats: dict[str, Any] = {"mean": data.mean, "std": data.std, "size": data.image_size, "channels": data.channels}
    size, workers = cfg.optimizer.batch_size, data.workers
    if data.augment != "sample" and not cfg.auto_augment:
        _, plain = prepare_transforms(spec, **stats)
        train, val = prepare_datasets(spec, None, plain, *paths, data.download, data.fraction, levels=True)
        augment, where = train_augment(spec, **stats), device or torch.device("cpu")
        try:
            images = cached(train, augment, data.cache_size, data.cache_dir, asked=data.augment == "batch")
        except CantCacheError as reason:
            say(f"training images are made one by one: {reason}")
        else:
            say(f"training images are made of whole batches on {where.type}: {images.size_text}")
            return LabelledBatches(images, augment, size, workers, cfg.seed, where), eval_loader(val, size, workers)
    options: Any = (size, workers, data.download, data.fraction, cfg.auto_augment)
    return prepare_data(spec, *paths, *options, levels=True, seed=cfg.seed, **stats)


def _mixup(cfg: LinearCfg) -> tuple[Any, Any]:
    """The loss for soft targets and the function that mixes images; None for both without mixup."""
    if cfg.mixup <= 0 and cfg.cutmix <= 0:
        return None, None
    from timm.data import mixup
    from timm.loss import cross_entropy

    kind: Any = mixup.Mixup
    mix = kind(cfg.mixup, cfg.cutmix, label_smoothing=cfg.label_smoothing, num_classes=cfg.data.num_classes)

    def mix_any(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Timm mixes even batches only: an odd one gets its first image twice for as long."""
        odd = len(images) % 2
        if odd:
            images, targets = torch.cat([images, images[:1]]), torch.cat([targets, targets[:1]])
        mixed, soft = mix(images, targets)
        return mixed[: len(mixed) - odd], soft[: len(soft) - odd]

    soft_loss: Any = cross_entropy.SoftTargetCrossEntropy
    return soft_loss(), mix_any


def _facts(cfg: LinearCfg) -> Facts:
    what = "finetuned with a linear classifier" if cfg.finetune else "linear classifier on the frozen backbone"
    images = "cached features of plain images" if cfg.data.cache_features else "augmented images"
    text = f"{what}, trained offline on {images} for {cfg.max_epochs} epochs; all validation images, last validation"
    extra = {name: getattr(cfg, name) for name in ("pretrained_feature_extractor", "pretrain_method")}
    extra["backbone"] = cfg.backbone.name
    protocol = {"val_acc1": text, "val_acc5": text}
    if cfg.data.cache_features:
        protocol["images_per_second"] = "cached features, without the backbone"
    return Facts("linear", to_plain(cfg), cfg.data.spec.levels, protocol, extra)
