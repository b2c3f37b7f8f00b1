"""solo-learn's place of `H5Dataset`."""

from solo.data.sources.h5_dataset import H5Dataset

__all__ = ["H5Dataset"]
