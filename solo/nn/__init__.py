"""Network parts shared by the methods: heads and the momentum (EMA) update. They know tensors, never a config."""

from solo.nn.heads import mlp
from solo.nn.momentum import MomentumUpdater, initialize_momentum_params

__all__ = ["MomentumUpdater", "initialize_momentum_params", "mlp"]
