"""Data sets, transforms and loaders; a submodule is imported when it is first used, see `solo.compat.paths`."""

import importlib.util

__all__ = ["classification_dataloader", "pretrain_dataloader"]
if importlib.util.find_spec("h5py"):
    __all__ += ["h5_dataset"]
