"""Cheaper training: smaller views at the start of a run, and the running mean of the backbone's weights.

Li et al.: Accelerating augmentation invariance pretraining, https://arxiv.org/abs/2410.22364, among others: a network
learns most of what it learns from fewer pixels. Polyak, Juditsky: Acceleration of stochastic approximation by
averaging, SIAM Journal on Control and Optimization 1992: the mean is often better than the last weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional as F

from solo.callbacks.run_directory import RunDirectory
from solo.checkpoint import misfit
from solo.errors import UserError
from solo.files import replacing


@dataclass(eq=False)
class WeightAverage(Callback):
    """After each optimizer step mean <- share * mean + (1 - share) * weights; `ema.pth` after each epoch.

    The file is read like any checkpoint: `solo linear RUN/ema.pth`. Statistics of BatchNorm are averaged, too.
    """

    run: RunDirectory  # the run's folder
    share: float  # in (0, 1), what the mean keeps of itself in a step
    mean: dict[str, Tensor] = field(default_factory=dict, init=False)
    _step: int = field(default=0, init=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are, or go on with what the checkpoint had."""
        now = _weights(pl_module)
        if found := misfit(self.mean, now, "WeightAverage.mean"):
            raise UserError(f"the mean of the weights in the checkpoint is not of this network: {found}")
        self.mean = {name: self.mean.get(name, value).to(value.device, copy=True) for name, value in now.items()}
        self._step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        for name, value in _weights(pl_module).items():
            if value.is_floating_point():
                self.mean[name].lerp_(value, 1 - self.share)
            else:
                self.mean[name].copy_(value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            mean = {f"backbone.{name}": value.cpu() for name, value in self.mean.items()}
            checkpoint: dict[str, Any] = {"state_dict": mean}
            pl_module.on_save_checkpoint(checkpoint)
            with replacing(self.run.path / "ema.pth") as temporary:
                torch.save(checkpoint, temporary)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mean = dict(state_dict["mean"])


def _weights(model: LightningModule) -> dict[str, Tensor]:
    """Of the backbone, by its own names; adapters are in them."""
    named = model.state_dict().items()
    return {name.removeprefix("backbone."): value.detach() for name, value in named if name.startswith("backbone.")}


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
