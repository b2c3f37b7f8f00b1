"""solo-learn's import path for the checkpoint callback."""

from solo.callbacks.checkpointer import Checkpointer

__all__ = ["Checkpointer"]
