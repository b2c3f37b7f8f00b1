"""solo-learn's import name of `solo.nn.momentum`."""

from solo.nn.momentum import MomentumUpdater, initialize_momentum_params

__all__ = ["MomentumUpdater", "initialize_momentum_params"]
