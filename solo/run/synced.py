"""`sync_batchnorm` on CPUs, as a plug-in of Lightning."""

from __future__ import annotations

from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import nn

from solo.nn.sync_norm import synchronise


class SyncedNorms(LayerSync):
    """Stands in for torch's synchronised BatchNorm, which works on GPUs only."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Let each BatchNorm use the batches of all processes."""
        return synchronise(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Nothing to do: outside of training these are BatchNorms."""
        return model
