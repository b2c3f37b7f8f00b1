"""`solo pretrain`: self-supervised training, with online accuracies where there are labels."""

import copy
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import seed_everything
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.utils import make_grid, save_image

from solo.args.config import to_plain
from solo.args.parse import exact_parts
from solo.args.schema import PretrainCfg
from solo.backbones.registry import check_sizes, side_of_patch
from solo.callbacks.optional import shrunk_side
from solo.callbacks.recorder import Facts, Work
from solo.data.batches.loaders import BatchLoader, ShowsRelatives, eval_loader, worker_options
from solo.data.batches.samplers import RuleSampler, describe, rule_sampler
from solo.data.cache.images import CantCacheError, cached
from solo.data.catalogue.registry import unseen_classes
from solo.data.classification_dataloader import prepare_transforms
from solo.data.labels.subsets import Indexed, Subset, level_targets, take_fraction, withhold
from solo.data.pretrain_dataloader import prepare_dataloader
from solo.data.sources.images import load
from solo.data.views.batched import BatchAugment, Shown
from solo.data.views.pipelines import build_transform_pipeline, prepare_n_crop_transform
from solo.eval.features import FeatureTable, draw
from solo.eval.suite import Protocol, Tables, verdict
from solo.files import file_name
from solo.methods import METHODS
from solo.methods.base import BaseMethod
from solo.run.features import extract
from solo.run.machine import tune
from solo.run.relatives import find_relatives
from solo.run.report import next_command, say
from solo.run.source import adapt, start_from
from solo.run.trainer import prepare


@dataclass(frozen=True)
class PretrainResult:
    """What a run leaves in its folder and in memory."""

    folder: Path  # `<checkpoint.dir>/<method>/<run id>`, with all files of the run
    summary: dict[str, Any]  # what `summary.json` holds; empty in all processes but the first
    checkpoint: Path | None  # `last.ckpt`; None with `checkpoint.enabled=false`
    model: BaseMethod  # the trained method, on the device it was trained on


def run(cfg: PretrainCfg) -> PretrainResult:
    """Train `cfg.method` and write everything into `<checkpoint.dir>/<method>/<run id>/`."""
    seed_everything(cfg.seed, workers=True, verbose=False)
    method = METHODS[cfg.method]
    own = method.__init__.__module__.startswith("solo.")  # solo-learn's form of a method reads a DictConfig
    model = method(cfg if own else OmegaConf.create(to_plain(cfg)))
    if cfg.finetune_from is not None:
        start_from(model, cfg.finetune_from, cfg.data.spec.channels if cfg.data.channels is None else cfg.data.channels)
    if cfg.finetune_lora is not None:
        adapt(model, cfg.finetune_lora)
    _check_sizes(cfg, model)
    plain = _plain_images(cfg, "validation")
    val = None if plain is None else eval_loader(plain, cfg.optimizer.batch_size, cfg.data.workers)
    prepared = prepare(cfg, cfg.method, _facts(cfg), model)
    device = prepared.trainer.strategy.root_device
    if type(model).__module__.startswith("solo."):
        work = work_of(model, model.config, device, prepared.trainer.world_size)
        prepared.recorder.facts = replace(prepared.recorder.facts, work=work)
    shown = find_relatives(cfg, model, lambda transform: _images(cfg, transform))
    train = train_loader(cfg, device, shown)
    targets = getattr(train.dataset, "targets", None)
    model.all_labelled = isinstance(targets, Tensor) and bool((targets >= 0).all())
    tune(model, model.config, device, cfg.max_epochs * len(train))
    images, found = len(cast(Sized, train.dataset)), None
    if cfg.finetune_from is not None and cfg.verdict and prepared.trainer.is_global_zero:
        found = _verdict_on(cfg, model, device)
    prepared.fit(model, train, val, lambda last: next_command(cfg, last, images), found)
    folder = prepared.directory.path
    last = folder / "last.ckpt"
    return PretrainResult(folder, dict(prepared.recorder.summary or {}), last if last.is_file() else None, model)


def _check_sizes(cfg: PretrainCfg, model: BaseMethod) -> None:
    """Every size of a view, and that of validation images, goes through the backbone once before anything is read."""
    sizes = {entry.crop_size: f"augmentations[{i}].crop_size" for i, entry in enumerate(cfg.augmentations)}
    sizes[cfg.data.image_size] = "data.image_size"
    known = {size: key for size, key in sizes.items() if size is not None}
    patch, small = side_of_patch(model.backbone), [share for share in cfg.data.resolution_schedule or () if share < 1]
    known |= {shrunk_side(s, share, patch): f"{key} * {share}" for s, key in known.items() for share in small}
    check_sizes(model.backbone, cfg.backbone.name, known, cfg.data.channels or cfg.data.spec.channels)


def train_loader(
    cfg: PretrainCfg, device: torch.device | None = None, shown: Shown | None = None
) -> DataLoader[Any] | BatchLoader:
    """Batches `[indexes (B,), [view (B, C, H, W), ...], targets]`, with relatives `shown`; says how they are made."""
    data, where = cfg.data, device or torch.device("cpu")
    if data.augment != "sample":
        try:
            whole, entries = _images(cfg), [to_plain(entry) for entry in cfg.augmentations]
            augment = BatchAugment(entries, data.mean or (), data.std or (), data.channels)
            if cfg.debug_augmentations:
                say(str(augment))
            cache = cached(whole, augment, data.cache_size, data.cache_dir, asked=data.augment == "batch")
        except CantCacheError as reason:
            say(f"views are made image by image: {reason}")
        else:
            say(f"views are made of whole batches on {where.type}: {cache.size_text} (data.augment=sample: one by one)")
            rule = _sampler(cfg, whole)
            return BatchLoader(cache, augment, _rows(cfg), data.workers, cfg.seed, where, rule, shown)
    pipelines = [
        build_transform_pipeline(data.dataset, to_plain(entry), mean=data.mean, std=data.std, channels=data.channels)
        for entry in cfg.augmentations
    ]
    views = prepare_n_crop_transform(pipelines, [entry.num_crops for entry in cfg.augmentations])
    if cfg.debug_augmentations:
        say(str(views))
    images = _images(cfg, views)
    sampler = _sampler(cfg, images)
    indexed: Dataset[Any] = Indexed(images) if shown is None else ShowsRelatives(Indexed(images), shown)
    return prepare_dataloader(indexed, _rows(cfg), data.workers, cfg.seed, sampler)


def _images(cfg: PretrainCfg, views: Any = None) -> Dataset[tuple[Any, Any]]:
    """What there is to learn from, with the labels that may be known."""
    data, spec = cfg.data, cfg.data.spec
    images = load(spec, "pretrain", data.train_path, data.download, views, True, data.no_labels, data.format)
    images = take_fraction(images, data.fraction)
    unseen = unseen_classes(spec, data.num_classes or 0, data.unseen_classes, data.split_seed)
    return withhold(images, list(unseen), data.label_fraction, data.split_seed)


def _rows(cfg: PretrainCfg) -> int:
    """Images of a batch of this process: with `accumulate=exact` all that one loss sees."""
    return int(cfg.optimizer.batch_size) * exact_parts(cfg.accumulate, cfg.accumulate_grad_batches)


def _sampler(cfg: PretrainCfg, images: Any) -> RuleSampler | None:
    """The sampler of `data.sampler`, `None` for a random order; says what its batches hold."""
    data = cfg.data
    if data.sampler in (None, "random") and data.labelled_share is None:
        return None
    spec, labels = data.spec, level_targets(images).numpy()
    level = spec.levels.index(data.sampler_level) if isinstance(data.sampler_level, str) else data.sampler_level
    kind, size = data.sampler or "random", _rows(cfg)
    composed = (spec.taxonomy, level, data.per_class, data.labelled_share)
    sampler = rule_sampler(kind, labels, size, cfg.seed, *composed)
    say(describe(sampler, labels, spec.levels))
    return sampler


def _plain_images(cfg: PretrainCfg, which: str) -> Dataset[tuple[Any, Any]] | None:
    """The `training` or the `validation` images as evaluation sees them; None without labels, or a folder for them."""
    data, spec = cfg.data, cfg.data.spec
    nowhere = data.val_path is None and not data.holdout and (spec.folders or spec.name == "custom")
    if data.no_labels or nowhere:
        return None
    transform = prepare_transforms(data.dataset, data.mean, data.std, data.image_size, data.channels)[1]
    if which == "training":
        return _images(cfg, transform)
    return load(spec, "val", data.val_path, data.download, transform, levels=True)


def _facts(cfg: PretrainCfg) -> Facts:
    data, interval = cfg.data, cfg.trainer.get("val_check_interval")
    whole = interval is None or (isinstance(interval, float) and interval == 1)  # the int 1 is one batch
    online = "online linear classifier on detached features of augmented training views; all validation images"
    knn = (
        f"online kNN of backbone features: k={cfg.knn_eval.k}, {cfg.knn_eval.distance_func} distance, bank: augmented "
        f"training views of {'its epoch' if whole else 'the epoch since the one before'}; all validation images"
    )
    withheld: dict[str, Any] = {}  # what training had to do without
    text = ""
    if data.unseen_classes:
        withheld["unseen_classes"] = to_plain(data)["unseen_classes"]
        text += f"; {len(withheld['unseen_classes'])} of {data.num_classes} classes unseen in training"
    if data.label_fraction not in (-1, 1):
        withheld["label_fraction"] = data.label_fraction
        text += "; of the training images only the labelled ones (data.label_fraction)"
    how = {"val_acc1": online, "val_acc5": online, "knn_acc1": knn, "knn_acc5": knn}
    protocol = {key: f"{words}{text}, last validation" for key, words in how.items()}
    return Facts("pretrain", to_plain(cfg), () if data.no_labels else data.spec.levels, protocol, withheld)


# Products and sums a second in 16 bits, dense, as published; the first that the device's name contains.
_PEAKS = {
    **{"B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12},
    **{"A10G": 70e12, "A10": 125e12, "L4": 121e12, "V100": 125e12, "T4": 65e12, "4090": 165e12, "3090": 71e12},
}


def work_of(model: BaseMethod, cfg: PretrainCfg, device: torch.device, processes: int) -> Work:
    """What one image costs with all its views: forward and twice as much backward, forward of a slow network.

    Products of matrices and convolutions count, those of the loss don't; `processes` are the devices in all.
    """
    channels = cfg.data.channels or cfg.data.spec.channels
    sides = [entry.crop_size or cfg.data.image_size or cfg.data.spec.size for entry in cfg.augmentations]
    views = [side for side, entry in zip(sides, cfg.augmentations, strict=True) for _ in range(entry.num_crops)]
    network = copy.deepcopy(model).eval()
    slow = getattr(network, "momentum_forward", None) if getattr(network, "has_teacher", True) else None
    trained = 3 if any(parameter.requires_grad for parameter in network.backbone.parameters()) else 1
    flops = 0
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for number, side in enumerate(views):
            large = number < network.num_large_crops
            passes = [(network if large else network.multicrop_forward, trained)]
            passes += [(slow, 1)] if large and slow is not None else []
            for forward, times in passes:
                with FlopCounterMode(display=False) as counted:
                    forward(torch.zeros(1, channels, side, side))
                flops += times * counted.get_total_flops()
    half = device.type == "cuda" and "16" in str(cfg.trainer.get("precision"))
    name = torch.cuda.get_device_name(device) if half else ""
    peak = next((peak * processes for known, peak in _PEAKS.items() if known in name), None)
    return Work(len(views), flops, peak)


_MOST = {"training": 20_000, "validation": 10_000}  # images; of more, as many are drawn


def _verdict_on(cfg: PretrainCfg, model: BaseMethod, device: torch.device) -> Callable[[], Any]:
    """Look at a model's backbone now; what is returned compares it with what it has become, see `solo.eval.suite`."""
    parts = {name: found for name in _MOST if (found := _plain_images(cfg, name)) is not None}
    if len(parts) < len(_MOST) or str(cfg.strategy).startswith("fsdp"):
        say("no verdict at the end: it needs labelled validation images, and another strategy than fsdp")
        return lambda: None
    batches: Any = {"batch_size": cfg.optimizer.batch_size, **worker_options(cfg.data.workers, 0)}
    chosen: dict[str, DataLoader[Any]] = {  # the first process alone looks at all of them
        name: DataLoader(Subset(part, draw(len(cast(Sized, part)), _MOST[name], cfg.seed).tolist()), **batches)
        for name, part in parts.items()
    }

    def tables() -> Tables:
        backbone = copy.deepcopy(model.backbone)  # which is left in its mode
        found = [extract(backbone, loader, device, name) for name, loader in chosen.items()]
        bank, judged = (FeatureTable(x.features, model.leaf_labels(x.targets.cpu())[:, None]) for x in found)
        return bank.rows(bank.labels[:, 0] >= 0), judged

    before = tables()
    return lambda: verdict(before, tables(), Protocol(seed=cfg.seed), device)


_SHOWN = 8  # images in the preview
_PIXELS = 112  # sides of their views, at least


def preview(cfg: PretrainCfg, number: int | None = None) -> None:
    """Write `<checkpoint.dir>/<method>/preview.png`, of the first batch: a row an image, a column a view."""
    _, views, _ = next(iter(train_loader(cfg)))
    name = f"preview{'' if number is None else f'-{number}'}.png"
    path = Path(cfg.checkpoint.dir).expanduser() / file_name(cfg.method) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(grid([view[:_SHOWN] for view in views], cfg.data.mean or (), cfg.data.std or ()), path)
    say(f"{len(views)} views of {min(_SHOWN, len(views[0]))} images in {path}")


def grid(views: Sequence[Tensor], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised views (B, C, H, W) side by side, a row an image, smaller ones on white: (3, h, w) in [0, 1]."""
    m, s = (torch.tensor(list(values))[:, None, None] for values in (mean, std))
    side = max(view.shape[-1] for view in views)
    shown = []
    for view in views:
        margin = side - view.shape[-1]
        around = (margin // 2, margin - margin // 2) * 2
        shown.append(F.pad((view * s + m).clamp(0, 1), around, value=1.0))
    rows = torch.stack(shown, dim=1).flatten(0, 1)
    if rows.shape[1] not in (1, 3):
        rows = rows[:, : 3 if rows.shape[1] > 3 else 1]
    rows = F.interpolate(rows, scale_factor=max(1, _PIXELS // side))  # whole pixels of small images, to be seen
    picture: Tensor = make_grid(rows, nrow=len(views), padding=2, pad_value=1.0)
    return picture
