"""`sync_batchnorm`, as a plug-in of Lightning."""

from __future__ import annotations

from lightning.pytorch.plugins.layer_sync import LayerSync
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from solo.nn.sync_norm import synchronise


class SyncedNorms(LayerSync):
    """Stands in for Lightning's, whose converter drops the activation inside of timm's `BatchNormAct2d`."""

    def __init__(self, gpu: bool) -> None:
        self.gpu = gpu

    def apply(self, model: nn.Module) -> nn.Module:
        """Let each BatchNorm use the batches of all processes."""
        if not self.gpu:
            return synchronise(model)
        converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted

    def revert(self, model: nn.Module) -> nn.Module:
        """Nothing to do: outside of training these are BatchNorms."""
        return model
