"""The pictures of docs/hex.md: who lies in HEX's band, and an anchor's relatives by two eyes.

    python benchmarks/hex_pictures.py RUN [--out visuals]

RUN is the folder of a run of `solo pretrain glyphs simclr`. Similarities are those of projections of validation images,
in random batches of 511: an anchor and its 510 negatives, as many as two views of 256 images give.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from solo.analysis.drawing import draw
from solo.analysis.figure import GREY, INK, OTHER, SAME, Figure, Picture, PictureRow, Pictures, Plot, Series, run_colour
from solo.cli import read_config
from solo.hex.relatives import hog
from solo.run.features import load_features, stored_images

BATCHES, ROWS, ANCHORS, SHOWN = 40, 511, 6, 8
QUANTILES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)


def main() -> None:
    """Draw both pictures and print the numbers of the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--out", type=Path, default=Path("visuals"))
    given = parser.parse_args()
    words = ["feature_type=[projector]", "data.val_only=true", "cache=false"]
    cfg = read_config("evaluate", [given.run], words, for_run=True).config
    found, cfg = load_features(cfg, ["projector"], torch.device("cpu"))
    features = found["projector"]
    z, labels = F.normalize(features.val.features, dim=1), features.val.labels
    draw(bands(z, labels, features.levels), given.out / "hex-bands.png")
    images = stored_images(cfg.data)
    draw(relatives(z, labels, images), given.out / "hex-relatives.png", lambda row: images[row][0])


def bands(z: torch.Tensor, labels: torch.Tensor, levels: tuple[str, ...]) -> Figure:
    """The histogram of similarities with the thresholds, and the share of the own class above each threshold."""
    generator = torch.Generator().manual_seed(0)
    cosines, same = [], []
    for _ in range(BATCHES):
        rows = torch.randperm(len(z), generator=generator)[:ROWS]
        off = ~torch.eye(ROWS, dtype=torch.bool)
        cosines.append((z[rows] @ z[rows].T)[off].view(ROWS, ROWS - 1))
        alike = labels[rows][:, None] == labels[rows]
        same.append(alike[off].view(ROWS, ROWS - 1, -1))
    s, own = torch.cat(cosines), torch.cat(same)
    kinds = [("own character", own[..., 2], SAME), ("own group", own[..., 1] & ~own[..., 2], OTHER)]
    kinds.append(("strangers", ~own[..., 1], GREY))
    edges = np.linspace(-0.6, 1, 65)
    middle = ((edges[1:] + edges[:-1]) / 2).tolist()
    curves = []
    for name, chosen, colour in kinds:
        counts, _ = np.histogram(s[chosen].numpy(), edges, density=True)
        curves.append(Series(name, middle, counts.tolist(), colour, area=True, markers=False))
    top = max(max(curve.y) for curve in curves)
    for quantile, dash in ((0.9, True), (0.99, False)):
        at = float(torch.quantile(s, quantile, dim=1).mean())
        curves.append(Series(f"threshold, q {quantile:g}", [at, at], [0.0, top], INK, dash=dash, markers=False))
    lines = []
    for level, name in enumerate(levels):
        classes, shares = len(labels[:, level].unique()), []
        for quantile in QUANTILES:
            band = s > torch.quantile(s, quantile, dim=1).mean()
            shares.append(100 * float(own[..., level][band].double().mean()))
        print(
            f"{name}, {classes} classes: own class in the band", dict(zip(QUANTILES, map(round, shares), strict=True))
        )
        lines.append(Series(f"{classes} classes ({name})", list(QUANTILES), shares, run_colour(level)))
    panels = (
        Plot("similarities of an anchor's negatives", "cosine", "density of each kind", tuple(curves), legend=True),
        Plot("who is above the threshold", "quantile q", "own class, %", tuple(lines), legend=True),
    )
    caption = "Relatives are what lies above the quantile: the fewer the classes, the more of it is the anchor's own."
    return Figure("bands", "", "HEX's band", caption, "python benchmarks/hex_pictures.py RUN", panels)


def relatives(z: torch.Tensor, labels: torch.Tensor, images: object) -> Figure:
    """Some anchors with their nearest images by projection and by HOG; right is the own character."""
    pixels = torch.from_numpy(np.stack([np.asarray(images[row][0]) for row in range(len(z))]))  # type: ignore[index]
    seen = hog(pixels[:, None].float() / 255)
    seen = F.normalize(seen - seen.mean(0), dim=1)
    rows = []
    for anchor in torch.randperm(len(z), generator=torch.Generator().manual_seed(5))[:ANCHORS].tolist():
        shown = [Picture(anchor, "anchor")]
        for space in (z, seen):
            nearest = (space @ space[anchor]).topk(SHOWN // 2 + 1).indices.tolist()
            for other in [row for row in nearest if row != anchor][: SHOWN // 2]:
                right = bool(labels[other, 2] == labels[anchor, 2])
                name = "emb." if space is z else "HOG"
                shown.append(Picture(other, f"{name} {float(z[anchor] @ z[other]):.2f}", right))
        rows.append(PictureRow("", tuple(shown)))
    caption = "Anchors, their nearest by the embedding and by HOG; below, the cosine in the embedding."
    return Figure("relatives", "", "Relatives by two eyes", caption, "", (Pictures("", tuple(rows)),))


if __name__ == "__main__":
    main()
