"""Lightning callbacks: what a run writes and shows while it trains."""

from solo.callbacks.checkpointer import Checkpointer
from solo.callbacks.meter import Meter, RunProgress
from solo.callbacks.recorder import Recorder
from solo.callbacks.run_directory import AutoResumer, RunDirectory
from solo.callbacks.watchers import EmbeddingMonitor, NonFiniteGuard

__all__ = ["AutoResumer", "Checkpointer", "EmbeddingMonitor", "Meter", "NonFiniteGuard"]
__all__ += ["Recorder", "RunDirectory", "RunProgress"]
