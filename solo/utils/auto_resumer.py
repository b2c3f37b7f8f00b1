"""solo-learn's import path for the search of an interrupted run."""

from solo.callbacks.auto_resumer import AutoResumer

__all__ = ["AutoResumer"]
