"""What the commands that only look at features share: the features, the names of the labels, the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from solo.analysis.embedding import LabelNames
from solo.backbones import features_dim
from solo.callbacks.run_directory import RunDirectory
from solo.data.registry import class_folders
from solo.data.specs import resolve_spec
from solo.files import write_text
from solo.run.features import FeatureSet, plain_features
from solo.run.source import BackboneAndProjector, pretrained_backbone, pretrained_method

Sets = tuple[FeatureSet, FeatureSet]


def pretrained_features(cfg: DictConfig, kinds: Sequence[str], device: torch.device) -> dict[str, Sets]:
    """Features of all training and validation images for each of `kinds` (backbone, projector), computed in one pass.

    Args:
        cfg: what the checkpoint says about its backbone and images is filled in, in place.
        kinds: which features.
        device: where to compute.

    Raises:
        UserError: the checkpoint can't be read or doesn't fit, or has no projector and that is asked for.
    """
    backbone = pretrained_backbone(cfg)
    if "projector" not in kinds:
        return {"backbone": plain_features(cfg, backbone, device, cfg.batch_size)}
    width = features_dim(backbone)
    train, val = plain_features(cfg, BackboneAndProjector(pretrained_method(cfg)), device, cfg.batch_size)
    parts = {"backbone": slice(0, width), "projector": slice(width, None)}
    return {kind: (_columns(train, parts[kind]), _columns(val, parts[kind])) for kind in dict.fromkeys(kinds)}


def _columns(features: FeatureSet, columns: slice) -> FeatureSet:
    return FeatureSet(features.features[:, columns], features.targets)


def label_names(cfg: DictConfig, features: FeatureSet) -> LabelNames:
    """Names of the levels and classes of the targets: the data set's, else the folders', else numbers."""
    spec, count = resolve_spec(cfg.data), features.targets.reshape(len(features), -1).shape[1]
    if spec.taxonomy is not None and len(spec.taxonomy.levels) == count:
        return LabelNames(spec.taxonomy.levels, spec.taxonomy.names)
    path = cfg.data.train_path
    if spec.folders and count == 1 and path and Path(path).expanduser().is_dir():
        return LabelNames(["class"], [class_folders(Path(path).expanduser())])
    return LabelNames.numbered(count)


def open_folder(cfg: DictConfig, command: str) -> Path:
    """Make `<checkpoint.dir>/<command>/<run id>/` with the resolved config in it.

    Raises:
        UserError: it can't be written.
    """
    folder = RunDirectory(Path(cfg.checkpoint.dir).expanduser() / command).open_alone()
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    return folder
