"""`finetune_from`, `finetune_lora`: the weights that pretraining starts from, and adapters on them."""

from __future__ import annotations

import torch
from torch import Tensor

from solo.backbones.published import published_model
from solo.checkpoint import load_checkpoint
from solo.errors import UserError
from solo.methods.base import BaseMethod
from solo.methods.frozen import FrozenLayers
from solo.nn.lora import add_adapters
from solo.weights import load_weights


def start_from(model: BaseMethod, source: str, channels: int) -> None:
    """Load the backbone of a method, just built; a slow copy of it follows.

    The source is `timm/NAME`, `torchvision/NAME`, or a file that `load_checkpoint` reads; what stands beside the
    backbone in it, a classifier or a projector, is left out. Raises a `UserError`: an unknown model, weights that can't
    be fetched or read, or that don't fit the backbone.
    """
    try:
        published = source.startswith(("timm/", "torchvision/"))
        state = _published(source, channels) if published else load_checkpoint(source)["state_dict"]
        load_weights(model.backbone, state, path=source, name=f"backbone.name='{model.backbone_name}'")
    except UserError as error:
        raise UserError(f"finetune_from: {error}") from error
    for online, slow in getattr(model, "momentum_pairs", []):
        slow.load_state_dict(online.state_dict())


def adapt(model: BaseMethod, rank: int) -> None:
    """Freeze the backbone but for `finetune_layers`, and train adapters of its attention instead.

    Raises a `UserError`: it has no attention layers of timm's form.
    """
    model.frozen_layers = FrozenLayers(model.backbone, model.config.finetune_layers or ())
    if not add_adapters(model, "backbone", rank):
        raise UserError(
            f"finetune_lora={rank} needs a backbone with attention (a ViT, Swin, ... of timm); "
            f"{model.backbone_name!r} has none, take finetune_layers or leave it out"
        )


def _published(source: str, channels: int) -> dict[str, Tensor]:
    try:
        with torch.random.fork_rng(devices=[]):  # the method's own weights don't depend on it
            return published_model(source, channels=channels).network.state_dict()
    except UserError as error:
        reason = str(error).split("; set pretrained=")[0]
        raise UserError(f"{source}: {reason}; a file with the weights is possible, too") from error
