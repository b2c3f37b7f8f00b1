"""Features of a frozen network, of a checkpoint, a published model or a file: computed in one pass, and kept."""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from solo.args.config import to_plain, to_yaml
from solo.args.data_schema import SourceDataCfg
from solo.args.eval_schema import FeatureCfg
from solo.args.schema import LinearCfg
from solo.backbones import features_dim
from solo.callbacks.recorder import config_hash, versions
from solo.callbacks.run_directory import RunDirectory
from solo.checkpoint import checkpoint_file
from solo.data.batches.loaders import eval_loader
from solo.data.cache import pixels_in_memory
from solo.data.catalogue.registry import get_spec, layout_of, query_images, unseen_classes
from solo.data.classification_dataloader import prepare_datasets, prepare_transforms
from solo.data.labels.subsets import Subset, level_targets, take_fraction
from solo.data.sources.images import image_sources, load, skipped_files
from solo.data.storage.facts import identity
from solo.errors import UserError
from solo.eval.features import Features, FeatureTable, read_features, write_features
from solo.files import output_file, user_cache, write_text
from solo.run.report import say
from solo.run.source import pretrained_method, source_backbone
from solo.screen import progress
from solo.taxonomy import Taxonomy

Cfg = TypeVar("Cfg", bound=FeatureCfg)
_DATA = "dataset format image_size channels mean std no_labels on_error unknown_classes range exif background".split()


def plain_images(cfg: LinearCfg | FeatureCfg) -> tuple[Dataset[Any], Dataset[Any]]:
    """The training and the validation images, without augmentation, with their labels at all levels."""
    data = cfg.data
    _, transform = prepare_transforms(data.spec, data.mean, data.std, data.image_size, data.channels)
    if data.no_labels:
        spec, options = data.spec, dict[str, Any](transform=transform, no_labels=True)
        train = load(spec, "train", data.train_path, **options)
        val = load(spec, "val", data.val_path, **options)
        return take_fraction(train, data.fraction), val
    paths = (data.train_path, data.val_path, data.format, data.download, data.fraction)
    return prepare_datasets(data.spec, transform, transform, *paths, levels=True)


def stored_images(data: SourceDataCfg) -> Dataset[Any]:
    """The validation images of a section `data` as they are stored, for pictures or other views than a network's."""
    return load(data.spec, "val", data.val_path, data.download, None, no_labels=data.no_labels)


@dataclass(eq=False)
class FeatureSet(Dataset[tuple[Tensor, Tensor]]):
    """Features (n, d) and targets (n,) or (n, levels); one item is a whole batch of (row, seed)."""

    features: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, batch: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        rows = [index for index, _ in batch]
        return self.features[rows], self.targets[rows]


@torch.no_grad()
def extract(backbone: nn.Module, loader: DataLoader[Any], device: torch.device, what: str) -> FeatureSet:
    """Features (n, F) of batches by a network in eval mode, float32 on the CPU; of a whole method (n, F + P)."""
    started = time.perf_counter()
    backbone = backbone.to(device).eval()
    features, targets, row = torch.empty(0), [], 0
    for images, target in progress(loader, f"features of the {what} images"):
        out = backbone(images.to(device, non_blocking=True))
        part = (torch.cat([out["feats"], out["z"]], dim=1) if isinstance(out, dict) else out).float()
        if not row:  # all of it at once: collecting the parts would take the memory twice
            features = torch.empty(len(cast(Sized, loader.dataset)), *part.shape[1:])
        features[row : row + len(part)] = part.cpu()
        targets.append(target)
        row += len(part)
    found = FeatureSet(features, torch.cat(targets))
    say(f"features of the {what} images: {tuple(found.features.shape)} in {time.perf_counter() - started:.1f} s")
    return found


def digest(network: nn.Module | None, images: Dataset[Any], settings: Mapping[str, Any]) -> str:
    """A name for features: of equal weights, architecture, settings, labels and files (name, size, date) or pixels."""
    text = hashlib.sha256(json.dumps([1, dict(settings)], sort_keys=True, default=str).encode())  # 1: the format
    text.update(repr(network).encode())
    for name, value in network.state_dict().items() if network else ():
        text.update(name.encode())
        text.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).data)
    text.update(level_targets(images).numpy().tobytes())
    inner: Any = images
    while isinstance(inner, Subset):
        text.update(np.array(inner.indices).tobytes())
        inner = inner.dataset
    pixels = pixels_in_memory(inner)
    if pixels is not None:
        text.update(np.ascontiguousarray(pixels).data)
    else:
        for source in image_sources(inner) or [str(getattr(inner, "path", getattr(inner, "root", "")))]:
            text.update(b"\n" + os.fsencode(identity(source)))
    return text.hexdigest()[:24]


def load_features(cfg: Cfg, kinds: Sequence[str], device: torch.device) -> tuple[dict[str, Features], Cfg]:
    """Features of each of `kinds`, in one pass or of an earlier command, and the config with what the source says."""
    if cfg.features:
        found = read_features(cfg.features)
        if "projector" in kinds and list(kinds) != [found.kind]:
            what = f"features={cfg.features} are of the {found.kind} only, not of {' and '.join(kinds)}"
            raise UserError(f"{what}; set feature_type={found.kind}")
        if cfg.data.unseen_classes:
            if not found.levels:
                raise UserError(f"data.unseen_classes needs labels, and {found.name} has none")
            known = found.tree or Taxonomy.flat(found.class_names(len(found.levels) - 1))
            spec, wanted = replace(get_spec("custom"), taxonomy=known), cfg.data.unseen_classes
            drawn = unseen_classes(spec, known.num_classes, wanted, cfg.data.split_seed)
            found = replace(found, unseen=tuple(drawn.values()))
        say(f"{cfg.features}: {found.val.features.shape[0]:,} features of {found.val.features.shape[1]} numbers")
        return {found.kind: found}, cfg
    network, cfg = find_network(cfg, kinds)
    train, val = plain_images(cfg)
    tree = _tree(cfg, val)
    measured = _tables(cfg, network, val, tree, device, "validation")
    learnt = {} if cfg.data.val_only else _tables(cfg, network, train, tree, device, "training")
    spec, unseen, facts = cfg.data.spec, cfg.data.unseen_classes, _facts(cfg)
    paths = next(iter(measured.values())).paths
    asking = query_images(spec, cfg.data.val_path) if spec.layout and paths else None  # the others are the gallery
    shared: dict[str, Any] = {"levels": tree.levels if tree else (), "tree": tree}
    shared["queries"] = torch.tensor([path in asking for path in paths]) if asking else None
    shared["unseen"] = unseen if isinstance(unseen, tuple) else ()
    loaded = {
        kind: Features(_name(cfg), kind, table, learnt.get(kind), **shared, facts={**facts, "feature_type": kind})
        for kind, table in measured.items()
    }
    names = layout_of(spec).several if spec.layout else ()
    return {kind: _with_labels(one, names) for kind, one in loaded.items()} if names else loaded, cfg


def _with_labels(features: Features, names: Sequence[str]) -> Features:
    """A column for each of several labels, 1 yes, 0 no, -1 unknown, in place of the class, their combination."""
    parts = [name.split("+") for name in features.class_names(0)]
    rows = [[1 if name in part else -1 if f"?{name}" in part else 0 for name in names] for part in parts]
    columns = torch.tensor([*rows, [-1] * len(names)])  # the last: of -1, a file that can't be read
    tables = [table and replace(table, labels=columns[table.labels[:, 0]]) for table in (features.val, features.train)]
    return replace(features, val=tables[0] or features.val, train=tables[1], levels=tuple(names), tree=None)


@dataclass(frozen=True)
class Network:
    """What computes all kinds at once; for each kind which outputs it is, and the module that it depends on."""

    module: nn.Module
    kinds: dict[str, tuple[slice, nn.Module]]


def find_network(cfg: Cfg, kinds: Sequence[str]) -> tuple[Network, Cfg]:
    """The network of a checkpoint or a published model, and the config with what it says about backbone and images."""
    backbone, cfg = source_backbone(cfg)
    if "projector" not in kinds:
        return Network(backbone, {"backbone": (slice(None), backbone)}), cfg
    if cfg.model:
        raise UserError(f"model={cfg.model} has no projector; set feature_type=backbone")
    width, method = features_dim(backbone), pretrained_method(cfg)
    known = {"backbone": (slice(0, width), backbone), "projector": (slice(width, None), method)}
    return Network(method, {kind: known[kind] for kind in kinds}), cfg


def _tables(
    cfg: FeatureCfg, network: Network, images: Dataset[Any], tree: Taxonomy | None, device: torch.device, what: str
) -> dict[str, FeatureTable]:
    """Features of one split: of each kind from disk, or all of them computed, and kept."""
    data = to_plain(cfg.data)
    settings = {name: data.get(name) for name in _DATA}
    settings |= {"backbone": cfg.backbone.name, "kwargs": dict(cfg.backbone.kwargs)}
    folder = Path(cfg.cache_dir).expanduser() if cfg.cache_dir else user_cache() / "features"
    files = {
        kind: folder / f"{digest(part, images, settings)}-{kind}.safetensors"
        for kind, (_, part) in network.kinds.items()
        if cfg.cache
    }
    try:
        if files and all(file.is_file() for file in files.values()):
            tables = {kind: read_features(file).val for kind, file in files.items()}
            say(f"features of the {what} images: {tuple(next(iter(tables.values())).features.shape)} from {folder}")
            return tables
    except UserError as error:
        say(f"computed anew: {error}")
    found = extract(network.module, eval_loader(images, cfg.batch_size, cfg.data.workers), device, what)
    labels = found.targets.reshape(len(found), -1)
    if tree is None:  # nothing is known of any
        labels = labels[:, :0]
    skipped = skipped_files(images)
    if skipped:
        say(f"{len(skipped)} {what} images can't be read and are left out of every level: {', '.join(skipped[:3])}")
    paths, name, levels = _paths(images), f"{_name(cfg)}, {what} images", tree.levels if tree else ()
    tables = {kind: FeatureTable(found.features[:, part], labels, paths) for kind, (part, _) in network.kinds.items()}
    try:
        for kind, file in files.items():
            write_features(file, Features(name, kind, tables[kind], levels=levels, tree=tree))
    except (UserError, OSError) as error:
        say(f"the features are not kept: {error}; cache_dir=FOLDER takes another place, cache=false is silent")
    return tables


def _paths(images: Any) -> tuple[str, ...]:
    if isinstance(images, Subset):
        files = _paths(images.dataset)
        return tuple(files[row] for row in images.indices) if files else ()
    return tuple(map(str, image_sources(images) or ()))


def _tree(cfg: FeatureCfg, images: Any) -> Taxonomy | None:
    """The data set's label tree; flat with the classes' names, or their numbers, where it has none."""
    data = cfg.data
    if data.no_labels:
        return None
    if data.spec.taxonomy is not None:
        return data.spec.taxonomy
    names = getattr(images, "classes", None) or [str(number) for number in range(data.num_classes or 0)]
    return Taxonomy.flat([str(name) for name in names]) if max(images.targets) >= 0 else None


def _name(cfg: FeatureCfg) -> str:
    if cfg.model:
        return f"{cfg.model}{'' if cfg.pretrained else ', random weights'}"
    path = checkpoint_file(str(cfg.pretrained_feature_extractor))
    return f"{cfg.pretrain_method or cfg.backbone.name}, {path.parent.name}"


def _facts(cfg: FeatureCfg) -> dict[str, Any]:
    plain = to_plain(cfg)
    names = ("pretrained_feature_extractor", "model", "pretrain_method", "backbone")
    facts = {name: plain[name] for name in names if plain[name] is not None}
    facts |= {"pretrained": plain["pretrained"]} if plain["model"] else {}
    return {**facts, "data": {name: plain["data"][name] for name in (*_DATA, "fraction") if plain["data"].get(name)}}


def will_write(cfg: FeatureCfg, command: str) -> None:
    """Make sure, before hours of computing, that `open_folder` will work: else a `UserError`."""
    output_file(Path(cfg.checkpoint.dir) / command / "config.yaml")


def open_folder(cfg: FeatureCfg, command: str) -> Path:
    """Make `<checkpoint.dir>/<command>/<run id>/` with the resolved config in it."""
    folder = RunDirectory(Path(cfg.checkpoint.dir).expanduser() / command).open_alone()
    write_text(folder / "config.yaml", to_yaml(cfg))
    return folder


def write_results(cfg: FeatureCfg, command: str, results: Sequence[Any], **more: Any) -> tuple[Path, dict[str, Any]]:
    """Write `<command>.json` into `open_folder`; the folder, and what it holds."""
    facts = {"kind": command, "name": cfg.name, "dataset": cfg.data.dataset, **more}
    facts |= {"config_hash": config_hash(to_plain(cfg)), "versions": versions(), "results": results}
    folder = open_folder(cfg, command)
    write_text(folder / f"{command}.json", json.dumps(facts, indent=2) + "\n")
    return folder, facts
