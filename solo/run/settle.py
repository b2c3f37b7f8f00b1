"""What the settings leave to the machine, decided once, when the device and the network are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from omegaconf import OmegaConf

from solo.args.schema import LinearCfg, PretrainCfg
from solo.methods.module import SoloModule
from solo.precision import best_precision
from solo.run.report import say


def settle(
    cfg: PretrainCfg | LinearCfg, model: LightningModule, device: torch.device, stored: Mapping[str, Any] | None = None
) -> PretrainCfg | LinearCfg:
    """The config with `precision` decided, if it is `auto`; the model keeps the decision, too, and its checkpoints.

    Args:
        cfg: of the run.
        model: to be trained.
        device: to train on.
        stored: the settings of the run that is resumed, which goes on with what was decided then.
    """
    if cfg.trainer.get("precision") != "auto":
        return cfg
    if stored:
        decided = stored.get("precision")
    else:
        decided, reason = best_precision(device, getattr(model, "backbone", model))
        say(f"precision=auto: {decided} ({reason})")
    settled = dataclasses.replace(cfg, trainer={**cfg.trainer, "precision": decided})
    if isinstance(model, SoloModule):
        model.config = settled
        OmegaConf.update(model.cfg, "precision", decided, force_add=True)
    return settled
