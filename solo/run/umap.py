"""`solo umap`: a checkpoint's features as points in the plane, for training and validation images."""

from pathlib import Path

from solo.analysis.embedding import draw_embedding
from solo.args.eval_schema import UmapCfg
from solo.run.feature_source import load_features, open_folder, will_write
from solo.run.machine import compute_device
from solo.run.report import say


def run(cfg: UmapCfg) -> None:
    """Draw the features that `cfg` names, as PDF and PNG.

    The files are `<checkpoint.dir>/umap/<run id>/{train,val}_<embedding>.*`, or `<plot_name>_{train,val}_..` if given.
    """
    will_write(cfg, "umap")
    kinds, cfg = load_features(cfg, [cfg.feature_type], compute_device(cfg))
    found = next(iter(kinds.values()))
    folder = open_folder(cfg, "umap")
    names = [(level, found.class_names(place)) for place, level in enumerate(found.levels)]
    start = f"{folder}/" if cfg.plot_name is None else f"{Path(cfg.plot_name).expanduser()}_"
    for split, part in (("train", found.train), ("val", found.val)):
        if part is None:
            continue
        files = [Path(f"{start}{split}_{cfg.embedding}.{ending}") for ending in ("pdf", "png")]
        drawn = draw_embedding(
            part.features.numpy(),
            part.labels.numpy(),
            files,
            names=names,
            title=f"{cfg.data.dataset or Path(str(cfg.features)).name}, {split}, {found.kind} of {found.name}",
            embedding=cfg.embedding,
            palette=cfg.color_palette,
            max_points=cfg.max_points,
            seed=cfg.seed,
        )
        of = "" if drawn == len(part) else f" of {len(part):,} drawn at random (max_points, seed {cfg.seed})"
        say(f"{files[0]} and .png: {drawn:,} images{of}")
