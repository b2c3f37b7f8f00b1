"""`solo evaluate`, `knn` and `umap`, of features, and `solo linear`, of a classifier on them or a finetuned network."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader

from solo.analysis.figure import words_of
from solo.analysis.plots import draw_embedding
from solo.args.config import to_plain
from solo.args.eval_schema import EvaluateCfg, KnnCfg, UmapCfg
from solo.args.schema import LinearCfg
from solo.backbones.registry import check_single
from solo.callbacks.recorder import Facts
from solo.data.batches.loaders import LabelledBatches, eval_loader
from solo.data.batches.samplers import SeededSampler
from solo.data.cache import CantCacheError, cached
from solo.data.classification_dataloader import prepare_data, prepare_datasets, prepare_transforms, train_augment
from solo.errors import UserError
from solo.eval.features import Features
from solo.eval.knn import nearest, vote_accuracy
from solo.eval.linear import CLOSE, choose
from solo.eval.suite import MEASURES, Protocol
from solo.eval.suite import evaluate as measure
from solo.files import csv_text, write_text
from solo.methods import LinearModel
from solo.run.features import FeatureSet, extract, load_features, open_folder, plain_images, will_write, write_results
from solo.run.machine import compute_device, tune
from solo.run.report import say, show_levels, show_table
from solo.run.source import pretrained_backbone
from solo.run.trainer import prepare

Row = dict[str, Any]
_FACTORS = (1.0, 0.03, 0.1, 0.3, 3.0, 10.0)  # of the recipe's learning rate
_DECAYS = (0.0, 1e-6, 1e-5, 1e-4)


def evaluate(cfg: EvaluateCfg) -> dict[str, Any]:
    """Measure the features that `cfg` names, into `<checkpoint.dir>/evaluate/<run id>/evaluate.json`, and return it."""
    device, words = compute_device(cfg), words_of("evaluate")
    will_write(cfg, "evaluate")
    found, cfg = load_features(cfg, cfg.feature_type, device)
    first = next(iter(found.values()))
    if "linear" in cfg.measures and first.train is None:
        say("no training images: the linear classifier is left out, and neighbours are the other validation images")
    protocol = Protocol(**{item.name: getattr(cfg, item.name) for item in fields(Protocol)})
    results: list[Row] = []
    for kind, features in found.items():
        if bool((features.val.features == features.val.features[:1]).all()):
            say("note: all images have the same features; what is nearest is then the order of the images")
        for result in measure(features, protocol, device):
            results.append({"feature_type": kind, **result})
            _show(result, features, protocol, words)
    left_out = {*MEASURES} - {*protocol.measures} | (set() if protocol.intervals else {"_ci"})
    told = {name: text for name, text in words["protocol"].items() if name not in left_out}
    told = {name: text.format(close=CLOSE, **vars(protocol)) for name, text in told.items()}
    folder, facts = write_results(cfg, "evaluate", results, seed=cfg.seed, source=dict(first.facts), protocol=told)
    say(f"files in {folder}: evaluate.json, config.yaml")
    return facts


def _show(result: Row, features: Features, protocol: Protocol, words: Mapping[str, Any]) -> None:
    """The tables of one kind of features: levels, mistakes of each classifier, a line on the embedding's tree."""
    shown: dict[str, str] = {}
    for name, text in words["levels"].items():
        shown |= {f"{name}{k}": text.format(k=k) for k in protocol.top_k} if name == "retrieval_top" else {name: text}
    which = "" if result["classes"] == "all" else f", {result['classes']} classes only"
    title = f"{features.name}, {features.kind}{which}: {result['images']['val']:,} images"
    if several := result.get("several"):  # a column for each of many labels is too wide
        show_levels(title, [{"level": f"{several['labels']} labels at once", **several}], words["several"])
    else:
        show_levels(title, result["levels"], shown)
    for level in result["levels"]:
        if level.get("linear_gap", 0) > CLOSE:
            say(
                f"warning: the linear classifier of level '{level['level']}' is not solved after "
                f"{protocol.linear_steps:,} steps: gradient {level['linear_gradient']:.2g}, objective up to "
                f"{level['linear_gap']:.2g} above its optimum; raise linear_steps or l2"
            )
    found = result.get("hierarchy", {}) if len(features.levels) > 1 else {}  # of one, the accuracies say the same
    if classifiers := [{"level": x, **found[name]} for name, x in words["classifiers"].items() if name in found]:
        show_levels("mistakes in the label tree", classifiers, words["mistakes"])
    if "retrieval" in found:
        show_levels("retrieval with graded relevance", [{"level": "all", **found["retrieval"]}], words["graded"])
    if "tree" in found:
        tree = {key: "-" if value is None else f"{value:.3f}" for key, value in found["tree"].items()}
        say(words["tree"].format(**tree))


def knn(cfg: KnnCfg) -> None:
    """Accuracies for all combinations of the settings of k-NN; write into `<checkpoint.dir>/knn/<run id>/`."""
    device = compute_device(cfg)
    will_write(cfg, "knn")
    found, cfg = load_features(cfg, cfg.feature_type, device)
    rows = [{"feature_type": kind, **row} for kind, features in found.items() for row in _votes(cfg, features, device)]
    last = next(reversed(found.values()))
    protocol = (
        f"bank: {len(last.train or ()):,} plain training images without augmentation; all {len(last.val):,} validation "
        "images; votes weighted by exp(cosine / temperature) or 1 / (euclidean distance + 1e-5)"
    )
    source = {"method": cfg.pretrain_method, "backbone": cfg.backbone.name, "features": cfg.features}
    source["checkpoint"] = cfg.pretrained_feature_extractor
    folder, _ = write_results(cfg, "knn", rows, **source, protocol=protocol)
    write_text(folder / "knn.csv", csv_text(rows))
    short = {"feature_type": "features", "distance_function": "distance", "temperature": "T"}
    shown = [{short.get(name, name): value for name, value in row.items()} for row in rows]
    show_table(f"{cfg.name} on {cfg.data.dataset or cfg.features}: accuracy in percent", shown)
    say(f"protocol: {protocol}\nfiles in {folder}: knn.json, knn.csv, config.yaml")


def _votes(cfg: KnnCfg, features: Features, device: torch.device) -> Iterator[Row]:
    bank, queries = features.train, features.val
    if bank is None:
        cure = "a file of features takes them as train_features and train_labels"
        raise UserError(f"solo knn needs training images, and {features.name} has none; {cure}")
    if not features.levels:
        raise UserError(f"solo knn needs labels, and {features.name} has none")
    say(f"{features.kind} features, {bank.features.shape[1]} numbers each")
    keys, query = bank.features.to(device), queries.features.to(device)
    targets = bank.labels.to(device), queries.labels.to(device)
    most = min(max(cfg.k), len(keys))
    if most < max(cfg.k):
        say(f"k={max(cfg.k)} is more than the {len(keys)} training images; all of them vote")
    for distance in cfg.distance_function:
        similarity, rows = nearest(query, keys, most, distance)
        for k in cfg.k:
            for temperature in cfg.temperature if distance == "cosine" else [None]:
                t = "" if temperature is None else f", T={temperature:g}"
                say(f"Running k-NN with params: distance_fx={distance}, k={k}{t}")
                options: Row = {} if temperature is None else {"temperature": temperature}
                found = vote_accuracy(similarity[:, :k], rows[:, :k], *targets, distance=distance, **options)
                say(f"Result: acc@1={found[-1][0]:.2f}, acc@5={found[-1][1]:.2f}")
                row: Row = {"distance_function": distance, "k": k, "temperature": temperature}
                for level, (acc1, acc5) in zip(features.levels, found, strict=True):
                    row |= {f"{level}_acc1": round(acc1, 4), f"{level}_acc5": round(acc5, 4)}
                yield row


def umap(cfg: UmapCfg) -> None:
    """Draw the features as PDF and PNG, into `<checkpoint.dir>/umap/<run id>/`, or where `plot_name` says."""
    will_write(cfg, "umap")
    kinds, cfg = load_features(cfg, [cfg.feature_type], compute_device(cfg))
    found = next(iter(kinds.values()))
    folder = open_folder(cfg, "umap")
    names = [(level, found.class_names(place)) for place, level in enumerate(found.levels)]
    start = f"{folder}/" if cfg.plot_name is None else f"{Path(cfg.plot_name).expanduser()}_"
    how: Row = {"embedding": cfg.embedding, "palette": cfg.color_palette, "max_points": cfg.max_points}
    for split, part in (("train", found.train), ("val", found.val)):
        if part is None:
            continue
        files = [Path(f"{start}{split}_{cfg.embedding}.{ending}") for ending in ("pdf", "png")]
        title = f"{cfg.data.dataset or Path(str(cfg.features)).name}, {split}, {found.kind} of {found.name}"
        points, labels = part.features.numpy(), part.labels.numpy()
        drawn = draw_embedding(points, labels, files, names=names, title=title, seed=cfg.seed, **how)
        of = "" if drawn == len(part) else f" of {len(part):,} drawn at random (max_points, seed {cfg.seed})"
        say(f"{files[0]} and .png: {drawn:,} images{of}")


def linear(cfg: LinearCfg) -> None:
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
    best, accuracies = choose(train.features.to(device), labels.to(device), classes, *grid)
    say(
        f"grid of {len(accuracies)}: optimizer.lr={best[0]:g} weight_decay={best[1]:g}, the best on a tenth of the "
        f"training images ({accuracies[best]:.2f} %; the recipe's lr={lr:g} {accuracies[lr, 0.0]:.2f} %)"
    )
    return replace(cfg, optimizer=replace(cfg.optimizer, lr=best[0], weight_decay=best[1]))


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
    extra |= {"backbone": cfg.backbone.name}
    protocol = {"val_acc1": text, "val_acc5": text}
    if cfg.data.cache_features:
        protocol["images_per_second"] = "cached features, without the backbone"
    return Facts("linear", to_plain(cfg), cfg.data.spec.levels, protocol, extra)
