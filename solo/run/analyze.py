"""`solo analyze`: what emerges in embeddings and what collapses, of one model or several, as a page to share."""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from solo.analysis.analyze import Images, Options, analyze
from solo.args.eval_schema import AnalyzeCfg
from solo.data.storage.reading import ImageReading, as_picture
from solo.eval.feature_file import read_features
from solo.run.analysis_sources import runs
from solo.run.devices import compute_device
from solo.run.feature_source import open_folder
from solo.run.features import stored_images
from solo.run.report import say
from solo.run.source import saved_data


def run(cfg: AnalyzeCfg) -> Path:
    """Analyse what `cfg` names; write `report.html`, which is returned, `analysis.json` and `figures/*.png`."""
    with tempfile.TemporaryDirectory() as scratch:
        found = runs(cfg, compute_device(cfg), Path(scratch))
        folder = Path(cfg.output).expanduser() if cfg.output else open_folder(cfg, "analyze")
        of = cfg.data.dataset or "saved features"
        title = cfg.title or f"{' · '.join(run.name for run in found)} on {of}"
        options = Options(**{item.name: getattr(cfg, item.name) for item in fields(Options)} | {"title": title})
        outcome = analyze(found, folder, options, pictures(cfg), say)
    size = outcome.files[0].stat().st_size / 2**20
    say(f"report: {outcome.files[0]} ({size:.1f} MiB, opens without a network)")
    say(f"files in {folder}: report.html, analysis.json{', figures/*.png' if cfg.png else ''}")
    return outcome.files[0]


def pictures(cfg: AnalyzeCfg) -> Images | None:
    """From a row of the features to its image; None where a file of features doesn't say where they are."""
    if cfg.features:
        paths = read_features(cfg.features[0]).val.paths
        known = bool(paths) and all(Path(path).is_file() for path in paths[:1])
        return (lambda row: ImageReading().read(paths[row])) if known else None
    data = cfg.data
    if data.channels is None and cfg.pretrained_feature_extractor:
        data = replace(data, channels=saved_data(cfg.pretrained_feature_extractor[0]).get("channels"))
    images: Any = stored_images(data)

    def picture(row: int) -> Image.Image:
        return as_picture(images[row][0])

    return picture
