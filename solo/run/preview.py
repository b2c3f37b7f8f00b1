"""`solo pretrain ... --preview`: a picture of what the model will see."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid, save_image

from solo.args.schema import PretrainCfg
from solo.files import file_name
from solo.run.pretrain import train_loader
from solo.run.report import say

_IMAGES = 8
_PIXELS = 112


def run(cfg: PretrainCfg, number: int | None = None) -> None:
    """Write `<checkpoint.dir>/<method>/preview.png`, of the first batch: a row an image, a column a view."""
    _, views, _ = next(iter(train_loader(cfg)))
    name = f"preview{'' if number is None else f'-{number}'}.png"
    path = Path(cfg.checkpoint.dir).expanduser() / file_name(cfg.method) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(grid([view[:_IMAGES] for view in views], cfg.data.mean or (), cfg.data.std or ()), path)
    say(f"{len(views)} views of {min(_IMAGES, len(views[0]))} images in {path}")


def grid(views: Sequence[Tensor], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised views (B, C, H, W) side by side, a row an image, smaller ones on white: (3, h, w) in [0, 1]."""
    m, s = (torch.tensor(list(values))[:, None, None] for values in (mean, std))
    side = max(view.shape[-1] for view in views)
    shown = []
    for view in views:
        before, after = (side - view.shape[-1]) // 2, side - view.shape[-1] - (side - view.shape[-1]) // 2
        shown.append(F.pad((view * s + m).clamp(0, 1), (before, after, before, after), value=1.0))
    rows = torch.stack(shown, dim=1).flatten(0, 1)
    if rows.shape[1] not in (1, 3):
        rows = rows[:, : 3 if rows.shape[1] > 3 else 1]
    rows = F.interpolate(rows, scale_factor=max(1, _PIXELS // side))  # whole pixels of small images, to be seen
    picture: Tensor = make_grid(rows, nrow=len(views), padding=2, pad_value=1.0)
    return picture
