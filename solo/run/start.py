"""`finetune_from`: the weights that pretraining starts from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from solo.backbones.published import published_model
from solo.checkpoint import backbone_state, load_backbone
from solo.errors import UserError
from solo.methods.base import BaseMethod
from solo.run.source import weights_of


def start_from(model: BaseMethod, source: str, channels: int) -> None:
    """Load the backbone of a method; a slow copy of it follows.

    Args:
        model: just built.
        source: `timm/NAME`, `torchvision/NAME`, or a file: a checkpoint of ours or of solo-learn, or weights of timm or
            torchvision. A classifier that is in it is left out.
        channels: of the images.

    Raises:
        UserError: an unknown model, weights that can't be fetched or read, or that don't fit the backbone.
    """
    state = _published(source, channels) if source.startswith(("timm/", "torchvision/")) else _file(source)
    own = model.backbone.state_dict()
    fits = {name: value for name, value in state.items() if name in own}
    try:
        load_backbone(model.backbone, fits, path=source, name=model.backbone_name)
    except UserError as error:
        raise UserError(f"finetune_from: {error}") from error
    for online, slow in getattr(model, "momentum_pairs", []):
        slow.load_state_dict(online.state_dict())


def _published(source: str, channels: int) -> dict[str, Tensor]:
    try:
        with torch.random.fork_rng(devices=[]):  # the method's own weights don't depend on it
            return published_model(source, channels=channels).network.state_dict()
    except UserError as error:
        reason = str(error).split("; set pretrained=")[0]
        raise UserError(f"finetune_from={source}: {reason}; a file with the weights is possible, too") from error


def _file(source: str) -> dict[str, Tensor]:
    state = weights_of(Path(source).expanduser(), "finetune_from")
    if any(name.startswith(("backbone.", "encoder.")) for name in state):
        return backbone_state({"state_dict": state})
    return state
