"""Network parts shared by the methods: heads and the momentum (EMA) update. They know tensors, never a config."""

from solo.nn.networks import MomentumUpdater, initialize_momentum_params, mlp

__all__ = ["MomentumUpdater", "initialize_momentum_params", "mlp"]
