"""`solo umap`: a checkpoint's features as points in the plane, for training and validation images."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from solo.analysis.embedding import draw_embedding
from solo.run.evaluation import label_names, open_folder, pretrained_features
from solo.run.report import say
from solo.run.trainer import compute_device


def run(cfg: DictConfig) -> None:
    """Draw `cfg.pretrained_feature_extractor`, as PDF and PNG; `cfg` is resolved.

    The files are `<checkpoint.dir>/umap/<run id>/{train,val}_<embedding>.*`, or `<plot_name>_{train,val}_..` if given.
    """
    sets = pretrained_features(cfg, [cfg.feature_type], compute_device(cfg))[cfg.feature_type]
    folder = open_folder(cfg, "umap")
    names = label_names(cfg, sets[0])
    start = f"{folder}/" if cfg.plot_name is None else f"{Path(cfg.plot_name).expanduser()}_"
    for split, part in zip(("train", "val"), sets, strict=True):
        files = [Path(f"{start}{split}_{cfg.embedding}.{ending}") for ending in ("pdf", "png")]
        drawn = draw_embedding(
            part.features.numpy(),
            part.targets.reshape(len(part), -1).numpy(),
            files,
            names=names,
            title=f"{cfg.data.dataset}, {split}, {cfg.feature_type} of {cfg.pretrain_method or cfg.backbone.name}",
            embedding=cfg.embedding,
            palette=cfg.color_palette,
            max_points=cfg.max_points,
            seed=cfg.seed,
        )
        of = "" if drawn == len(part) else f" of {len(part):,} drawn at random (max_points, seed {cfg.seed})"
        say(f"{files[0]} and .png: {drawn:,} images{of}")
