"""solo-learn's import path for pictures of the embedding."""

from solo.callbacks.auto_umap import AutoUMAP, OfflineUMAP

__all__ = ["AutoUMAP", "OfflineUMAP"]
