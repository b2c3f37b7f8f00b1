"""`solo pretrain`: self-supervised training, with online accuracies where there are labels."""

import copy
import hashlib
import time
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import seed_everything
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.utils import make_grid, save_image

from solo.args.config import to_plain
from solo.args.fields import unknown
from solo.args.parse import exact_parts
from solo.args.schema import PretrainCfg
from solo.backbones.registry import check_sizes, side_of_patch
from solo.callbacks.optional import shrunk_side
from solo.callbacks.recorder import Facts
from solo.data.batches.loaders import BatchLoader, SeededDataset, eval_loader, worker_options
from solo.data.batches.samplers import RuleSampler, describe, rule_sampler
from solo.data.cache import CantCacheError, cached
from solo.data.catalogue.registry import unseen_classes
from solo.data.classification_dataloader import prepare_transforms
from solo.data.labels.subsets import Indexed, Subset, level_targets, take_fraction, withhold
from solo.data.pretrain_dataloader import prepare_dataloader
from solo.data.sources.images import load
from solo.data.views.batched import BatchAugment, Shown
from solo.data.views.pipelines import build_transform_pipeline, prepare_n_crop_transform
from solo.errors import UserError
from solo.eval.features import FeatureTable, draw, read_features
from solo.eval.knn import nearest_by_cells, nearest_others
from solo.eval.suite import Protocol, Tables, verdict
from solo.files import check_zip, file_name, replacing, user_cache
from solo.hex.relatives import EYES, VERSION, Eye, FromTable, both, whom
from solo.methods import METHODS
from solo.methods.base import BaseMethod
from solo.run.features import digest, extract
from solo.run.machine import tune, work_of
from solo.run.pretrained import load_pretrained
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
    train = train_loader(cfg, device, find_relatives(cfg, model))
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
    patch = side_of_patch(model.backbone)
    small = [share for share in cfg.data.resolution_schedule or () if share < 1]
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
    indexed = SeededDataset(Indexed(images), shown)
    return prepare_dataloader(indexed, _rows(cfg), data.workers, cfg.seed, _sampler(cfg, images))


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
    composed = (spec.taxonomy, level, data.per_class, data.labelled_share)
    sampler = rule_sampler(data.sampler or "random", labels, _rows(cfg), cfg.seed, *composed)
    say(describe(sampler, labels, spec.levels))
    return sampler


def _plain_images(cfg: PretrainCfg, which: str) -> Dataset[tuple[Any, Any]] | None:
    """The `training` or the `validation` images as evaluation sees them; None without labels, or a folder for them."""
    data, spec = cfg.data, cfg.data.spec
    nowhere = data.val_path is None and not data.holdout and (spec.folders or spec.name == "custom")
    if data.no_labels or nowhere:
        return None
    if which == "training":
        return _images(cfg, _plain_view(cfg))
    return load(spec, "val", data.val_path, data.download, _plain_view(cfg), levels=True)


def _plain_view(cfg: PretrainCfg) -> Any:
    data = cfg.data
    return prepare_transforms(data.dataset, data.mean, data.std, data.image_size, data.channels)[1]


_EXACT = 500_000  # images; of more, all with all would take hours: neighbours are looked for in cells


def find_relatives(cfg: PretrainCfg, model: BaseMethod) -> Shown | None:
    """Make the table of relatives for whoever needs it: the model's bank, or the loader, for which it is returned."""
    policy, bank = model.hex.show or model.hex.policy, model.hex.bank
    if not isinstance(policy, FromTable):
        return None
    plain = _images(cfg, _plain_view(cfg))
    targets = level_targets(plain)
    paths = model.label_paths(targets)
    labels = model.leaf_labels(targets) if cfg.hex.level is None else paths[:, model.group_level]
    known = torch.stack([model.leaf_labels(targets), paths[:, model.group_level]], dim=1)
    if bank is not None:
        bank.labels, bank.known, bank.live = labels, known, cfg.hex.eye == "projection"
        if bank.live:
            bank.table = torch.full((len(targets), policy.among), -1, dtype=torch.int32)
            return None
    by_level = dict(zip(model.levels, paths.T, strict=False))
    eyes = _Eyes(cfg, plain, by_level)
    table = policy.table(Eye(eyes.nearest, eyes.rows, labels, torch.Generator().manual_seed(cfg.seed))).to(torch.int32)
    related = (table >= 0).any(dim=1).float().mean()
    said = [f"{related:.1%} of {len(table):,} images have relatives"]
    for level, own in by_level.items():
        if shares := whom(table, own[:, None].expand(-1, 2)):
            said.append(f"{shares['own_class']:.1%} of these have the same {level}")
    say(", ".join(said))
    if bank is not None:
        bank.use(table)
        return None
    shares = {"with_relatives": related, **whom(table, known)}
    model.hex.whom = {f"shown_{name}": value for name, value in shares.items()}
    return Shown(table, cfg.hex.show_share)


class _Eyes:
    """What `hex.eye` sees of the training images; + joins several that agree, a level's name leaves out other nodes."""

    def __init__(self, cfg: PretrainCfg, plain: Dataset[Any], labels: dict[str, Tensor]) -> None:
        self.cfg, self.plain, self.number = cfg, plain, len(plain)  # type: ignore[arg-type]
        names = cfg.hex.eye.split("+")
        for name in names:
            if name not in labels and name not in EYES and not ("/" in name or name and Path(name).exists()):
                raise UserError(f"hex.eye{unknown(name, [*EYES, *labels])}, or give a file of features or a checkpoint")
        self.names = [name for name in names if name not in labels]
        self.nodes = [labels[name] for name in names if name in labels]
        if not self.names:
            advice = f"join it with another one, hog+{names[0]}, or take type=oracle hex.level={names[0]}"
            raise UserError(f"hex.eye={cfg.hex.eye} knows labels and sees nobody; {advice}")

    def nearest(self, k: int) -> Tensor:
        """The k nearest images of each, (n, k); with several eyes those that all of them count, -1 for the rest."""
        if self.number <= k:
            raise UserError(f"hex.among and hex.skip ask for {k} other images, and there are {self.number}")
        first, *others = [self._kept(eye, k) for eye in self.names]
        for other in others:
            first = both(first, other)
        for nodes in self.nodes:
            found = nodes[first.clamp_min(0)]
            first = first.masked_fill((found != nodes[:, None]) | (found < 0), -1)
        return first

    def rows(self) -> Tensor:
        """Descriptors (n, d) of all eyes beside each other, each centred and at length 1."""
        seen = [self._describe(eye)[1]() for eye in self.names]
        return torch.cat([nn.functional.normalize(each - each.mean(dim=0), dim=1) for each in seen], dim=1)

    def _kept(self, eye: str, k: int) -> Tensor:
        """The nearest by one eye, kept on disk under all that they depend on."""
        started, data = time.perf_counter(), self.cfg.data
        network, describe, also = self._describe(eye)
        settings = [k, also, data.image_size, data.mean, data.std, data.channels]
        file = user_cache() / "neighbours" / f"{digest(network, self.plain, {'eye': settings})}.npz"
        said = f"neighbours by {eye}: {k} each of {self.number:,} images"
        if (kept := kept_rows(file, self.number, k)) is not None:
            say(f"{said}, as kept in {file}")
            return kept
        features = describe()
        if len(features) != self.number:
            text = f"hex.eye={eye} has {len(features):,} rows for {self.number:,} training images; give one for each"
            raise UserError(text)
        where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        centred = (features - features.mean(dim=0)).to(where)
        found = (nearest_others(centred, k)[1] if self.number <= _EXACT else nearest_by_cells(centred, k)).cpu()
        say(f"{said}, in {time.perf_counter() - started:.1f} s")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as temporary, open(temporary, "wb") as out:
                np.savez(out, rows=found.to(torch.int32).numpy())
        except (UserError, OSError) as error:
            say(f"the neighbours are not kept: {error}")
        return found

    def _describe(self, eye: str) -> tuple[nn.Module | None, Callable[[], Tensor], str]:
        """Its network, if it is one; what computes (n, d) descriptors; what else they depend on."""
        size, workers = self.cfg.optimizer.batch_size, self.cfg.data.workers
        if eye in EYES:
            batches = eval_loader(self.plain, size, workers)
            return None, lambda: torch.cat([EYES[eye](batch) for batch, _ in batches]), f"{eye} {VERSION}"
        if eye.endswith((".npz", ".safetensors")):  # a .pt may be a checkpoint
            features = read_features(eye)
            table = (features.train or features.val).features.float().contiguous()
            return None, lambda: table, hashlib.sha256(table.numpy().tobytes()).hexdigest()
        channels = self.cfg.data.channels if eye.startswith(("timm/", "torchvision/")) else None
        found = load_pretrained(eye, channels=channels)
        loader = eval_loader(_images(self.cfg, found.transform), size, workers)
        return found.backbone, lambda: extract(found.backbone, loader, found.device, "training").features, eye


def kept_rows(file: Path, count: int, k: int) -> Tensor | None:
    """The table (count, k) of numbers of images that was kept in a file; None if there is none, or a damaged one."""
    try:
        check_zip(file)
        rows = np.load(file, allow_pickle=False)["rows"]
        sound = rows.shape == (count, k) and rows.dtype == np.int32 and 0 <= rows.min() and rows.max() < count
    except Exception:  # NumPy and zipfile raise almost anything
        return None
    return torch.from_numpy(rows).long() if sound else None


def _facts(cfg: PretrainCfg) -> Facts:
    data, interval = cfg.data, cfg.trainer.get("val_check_interval")
    whole = interval is None or (isinstance(interval, float) and interval == 1)  # the int 1 is one batch
    online = "online linear classifier on detached features of augmented training views; all validation images"
    knn = (
        f"online kNN of backbone features: k={cfg.knn_eval.k}, {cfg.knn_eval.distance_func} distance, bank: augmented "
        f"training views of {'its epoch' if whole else 'the epoch since the one before'}; all validation images"
    )
    withheld, text = dict[str, Any](), ""  # what training had to do without
    if data.unseen_classes:
        withheld["unseen_classes"] = to_plain(data)["unseen_classes"]
        text += f"; {len(withheld['unseen_classes'])} of {data.num_classes} classes unseen in training"
    if data.label_fraction not in (-1, 1):
        withheld["label_fraction"] = data.label_fraction
        text += "; of the training images only the labelled ones (data.label_fraction)"
    how = {"val_acc1": online, "val_acc5": online, "knn_acc1": knn, "knn_acc5": knn}
    protocol = {key: f"{words}{text}, last validation" for key, words in how.items()}
    return Facts("pretrain", to_plain(cfg), () if data.no_labels else data.spec.levels, protocol, withheld)


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
        shown.append(F.pad((view * s + m).clamp(0, 1), (margin // 2, margin - margin // 2) * 2, value=1.0))
    rows = torch.stack(shown, dim=1).flatten(0, 1)
    rows = rows[:, :3] if rows.shape[1] > 2 else rows[:, :1]
    rows = F.interpolate(rows, scale_factor=max(1, _PIXELS // side))  # whole pixels of small images, to be seen
    return make_grid(rows, nrow=len(views), padding=2, pad_value=1.0)  # type: ignore[no-any-return]
