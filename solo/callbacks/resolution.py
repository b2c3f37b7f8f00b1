"""Smaller views at the start of a run: a network learns most of what it learns from fewer pixels, at less cost.

Li et al.: Accelerating augmentation invariance pretraining, https://arxiv.org/abs/2410.22364, among others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F


@dataclass(eq=False)
class ResolutionSchedule(Callback):
    """Shrinks the views of a batch, once they are on the device, to a share of their side."""

    shares: Sequence[float]  # in (0, 1], one for each of as many equal parts of the run
    patch: int  # of the network, in pixels; sides are multiples of it

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        epochs, part = max(trainer.max_epochs or 1, 1), len(self.shares)
        share = self.shares[min(trainer.current_epoch * part // epochs, part - 1)]
        if share < 1:
            views = [batch[1]] if isinstance(batch[1], Tensor) else batch[1]
            batch[1] = [shrunk(view, share, self.patch) for view in views]


def shrunk_side(side: int, share: float, patch: int) -> int:
    """The multiple of the patch that is nearest to a share of a side, one patch at least."""
    return max(1, round(side * share / patch)) * patch


def shrunk(views: Tensor, share: float, patch: int) -> Tensor:
    """Views (B, C, H, H) -> (B, C, h, h), by averaging what comes together."""
    side = shrunk_side(views.shape[-1], share, patch)
    return F.interpolate(views, (side, side), mode="bilinear", antialias=True, align_corners=False)
