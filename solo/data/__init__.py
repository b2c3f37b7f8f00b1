"""Data sets, transforms and loaders; the submodules that need torch are imported when they are first used."""

import importlib
import importlib.util
from types import ModuleType

__all__ = ["classification_dataloader", "pretrain_dataloader"]
if importlib.util.find_spec("h5py"):
    __all__ += ["h5_dataset"]


def __getattr__(name: str) -> ModuleType:
    """Import the submodule `name` on first use."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
