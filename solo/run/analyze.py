"""`solo analyze`: what emerges in embeddings and what collapses, of one model or several, as a page to share."""

import random
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import Dataset

from solo.analysis.analyze import RunSource, SnapshotSource, analyze
from solo.analysis.drawing import Images
from solo.args.eval_schema import AnalyzeCfg
from solo.callbacks import run_directory
from solo.checkpoint import load_checkpoint
from solo.data.batches.loaders import eval_loader
from solo.data.storage.reading import ImageReading, as_picture
from solo.data.views.pipelines import build_transform_pipeline
from solo.errors import UserError
from solo.eval.features import draw, read_features
from solo.files import output_file, told_apart
from solo.methods import METHODS, BaseMethod
from solo.run.features import extract, find_network, load_features, open_folder, stored_images
from solo.run.machine import compute_device
from solo.run.report import say
from solo.run.source import SavedRun, saved_data, saved_run


def run(cfg: AnalyzeCfg) -> Path:
    """Analyse what `cfg` names; write `report.html`, which is returned, `analysis.json` and `figures/*.png`."""
    chosen = output_file(Path(cfg.output) / "report.html").parent if cfg.output else None
    with tempfile.TemporaryDirectory() as scratch, run_directory.held(chosen) if chosen else nullcontext():
        found = runs(cfg, compute_device(cfg), Path(scratch))
        folder = chosen or open_folder(cfg, "analyze")
        title = cfg.title or f"{' · '.join(run.name for run in found)} on {cfg.data.dataset or 'saved features'}"
        outcome = analyze(found, folder, replace(cfg, title=title), pictures(cfg), say)
    size = outcome.files[0].stat().st_size / 2**20
    say(f"report: {outcome.files[0]} ({size:.1f} MiB, opens without a network)")
    say(f"files in {folder}: report.html, analysis.json{', figures/*.png' if cfg.png else ''}")
    return outcome.files[0]


def pictures(cfg: AnalyzeCfg) -> Images | None:
    """From a row of the features to its image; None where a file of features doesn't say where they are."""
    if cfg.features:
        held = read_features(cfg.features[0])
        paths, told, reading = held.val.paths, held.facts.get("data"), ImageReading()
        with suppress(UserError, TypeError, ValueError, AttributeError):  # anyone's file
            reading = ImageReading.of({key: told.get(key) for key in ("range", "exif", "background")})  # type: ignore[union-attr]
        known = bool(paths) and Path(paths[0]).is_file()
        return (lambda row: as_picture(reading.read(paths[row]))) if known else None
    data = cfg.data
    if data.channels is None and cfg.pretrained_feature_extractor:
        data = replace(data, channels=saved_data(cfg.pretrained_feature_extractor[0]).get("channels"))
    images: Any = stored_images(data)
    return lambda row: as_picture(images[row][0])


_EPOCH = re.compile(r"ep=(\d+)")


def runs(cfg: AnalyzeCfg, device: torch.device, scratch: Path) -> list[RunSource]:
    """The runs that `cfg` names, in its order; nothing is computed yet. `scratch` exists as long as they are used."""
    kind = next(kind for kind in ("pretrained_feature_extractor", "model", "features") if getattr(cfg, kind))
    sources: Sequence[str] = getattr(cfg, kind)
    found = [_run_of(cfg, kind, str(source), device, scratch / str(i)) for i, source in enumerate(sources)]
    if cfg.series:
        snapshots = [snapshot for run in found for snapshot in run.snapshots]
        if any(snapshot.epoch is None for snapshot in snapshots):
            snapshots = [SnapshotSource(one.load, place, one.facts) for place, one in enumerate(snapshots, start=1)]
        found = [RunSource(found[-1].name, tuple(snapshots))]
    names = list(cfg.names or [run.name for run in found])
    if not cfg.names and len(set(names)) < len(names):
        names = [f"{name} ({end})" for name, end in zip(names, told_apart(sources), strict=True)]
    if len(names) != len(found) or len(set(names)) != len(names):
        raise UserError(f"names={names} don't fit {len(found)} runs; give each one a name of its own")
    return [RunSource(name, run.snapshots) for name, run in zip(names, found, strict=True)]


def _run_of(cfg: AnalyzeCfg, kind: str, source: str, device: torch.device, scratch: Path) -> RunSource:
    kinds, augmentations = ["backbone"], list[Mapping[str, Any]]()

    def snapshot(path: str, facts: Mapping[str, Any], epoch: int | None = None) -> SnapshotSource:
        changed: Any = {kind: path}
        alone = replace(cfg, **changed)  # the config of one source, as the other commands have it
        seen = partial(load_views, alone, kinds, device, augmentations) if augmentations else None
        return SnapshotSource(lambda: load_features(alone, kinds, device)[0], epoch, facts, seen)

    if kind != "pretrained_feature_extractor":
        return RunSource(Path(source).stem if kind == "features" else source, (snapshot(source, {kind: source}),))
    last = saved_run(source)
    saved, method = last.cfg, last.cfg.get("method")
    augmentations += _views(cfg, saved)
    if method in METHODS and METHODS[str(method)].heads is not BaseMethod.heads:
        kinds.append("projector")
    policy = (saved.get("hex") or {}).get("policy", "standard")
    objective = f"{method}{'' if policy == 'standard' else f', HEX {policy}'}"
    batch_size = (saved.get("optimizer") or {}).get("batch_size")
    facts = {"objective": objective, "batch_size": batch_size, "seed": saved.get("seed")}
    snapshots = [
        snapshot(str(path), {"checkpoint": "initial weights" if epoch == 0 else str(path), **facts}, epoch)
        for path, epoch in _snapshots(cfg, Path(source).expanduser(), last, scratch)
    ]
    return RunSource(str(saved.get("name") or method or last.file.parent.name), tuple(snapshots))


def _views(cfg: AnalyzeCfg, saved: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """How the run made its views; nothing where they aren't wanted, or nobody knows."""
    if cfg.lidar_images == 1:
        raise UserError("lidar_images=1 is too few to compare; give at least 2, or 0 to leave LiDAR out")
    entries = (saved.get("augmentations") or ()) if cfg.lidar_images else ()
    trained, asked = (saved.get("data") or {}).get("image_size"), cfg.data.image_size
    if asked in (None, trained):
        return entries
    return [{**entry, "crop_size": asked} if entry["crop_size"] == trained else entry for entry in entries]


def _snapshots(cfg: AnalyzeCfg, source: Path, last: SavedRun, scratch: Path) -> Iterator[tuple[Path, int | None]]:
    """(checkpoint, epochs trained): of a folder the network before training and some of its checkpoints, else one."""
    kept = {int(match[1]) + 1: file for file in source.glob("*.ckpt") if (match := _EPOCH.search(file.name))}
    if not source.is_dir() or cfg.epochs == 1 or not kept:
        match = _EPOCH.search(last.file.name)
        yield last.file, int(match[1]) + 1 if match else None
        return
    if cfg.start and last.cfg.get("method") in METHODS:  # its initial weights, drawn again from its seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(last.cfg.get("seed", 5)))
            method = METHODS[str(last.cfg["method"])](OmegaConf.create(last.cfg))
        scratch.mkdir(parents=True, exist_ok=True)
        torch.save({**load_checkpoint(last.file), "state_dict": method.state_dict()}, scratch / "start.ckpt")
        yield scratch / "start.ckpt", 0
    epochs = sorted(kept)
    for place in np.unique(np.linspace(len(epochs) - 1, 0, cfg.epochs).round().astype(int)):
        yield kept[epochs[place]], epochs[place]


def load_views(
    cfg: AnalyzeCfg, kinds: Sequence[str], device: torch.device, augmentations: Sequence[Mapping[str, Any]], total: int
) -> dict[str, Tensor]:
    """Features (n, views, d) of views of some of `total` validation images; entries of the largest crop, by turns."""
    network, cfg = find_network(cfg, kinds)
    data, rows, count = cfg.data, draw(total, cfg.lidar_images, cfg.seed).tolist(), cfg.lidar_views
    largest = max(int(entry["crop_size"]) for entry in augmentations)
    pipelines = [
        build_transform_pipeline(data.spec.name, entry, mean=data.mean, std=data.std, channels=data.channels)
        for entry in augmentations
        if int(entry["crop_size"]) == largest
    ]
    views = AugmentedViews(stored_images(data), rows, pipelines, count, cfg.seed)
    found = extract(network.module, eval_loader(views, cfg.batch_size, data.workers), device, "augmented").features
    return {kind: found[:, part].reshape(len(rows), count, -1) for kind, (part, _) in network.kinds.items()}


@dataclass(eq=False)
class AugmentedViews(Dataset[tuple[Tensor, int]]):
    """`count` views of each image with its place, by `pipelines` in turn; the same ones in every process."""

    images: Any
    rows: Sequence[int]
    pipelines: Sequence[Callable[[Any], Tensor]]
    count: int
    seed: int

    def __len__(self) -> int:
        return len(self.rows) * self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        place, view = divmod(index, self.count)
        before = random.getstate()
        random.seed(f"{self.seed} {self.rows[place]} {view}")
        try:
            return self.pipelines[view % len(self.pipelines)](self.images[self.rows[place]][0]), place
        finally:
            random.setstate(before)
