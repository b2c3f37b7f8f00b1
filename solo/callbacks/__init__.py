"""Lightning callbacks: what a run writes and shows while it trains."""

from solo.callbacks.auto_resumer import AutoResumer
from solo.callbacks.checkpointer import Checkpointer
from solo.callbacks.embedding_monitor import EmbeddingMonitor
from solo.callbacks.meter import Meter
from solo.callbacks.nonfinite import NonFiniteGuard
from solo.callbacks.progress import RunProgress
from solo.callbacks.recorder import Recorder
from solo.callbacks.run_directory import RunDirectory

__all__ = [
    "AutoResumer",
    "Checkpointer",
    "EmbeddingMonitor",
    "Meter",
    "NonFiniteGuard",
    "Recorder",
    "RunDirectory",
    "RunProgress",
]
