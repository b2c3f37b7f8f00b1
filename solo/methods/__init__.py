"""The methods, by registry name; a method's file is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

# registry name -> (module, class)
_METHODS = {
    "base": ("base", "BaseMethod"),
    "linear": ("linear", "LinearModel"),
    "all4one": ("all4one", "All4One"),
    "barlow_twins": ("barlow_twins", "BarlowTwins"),
    "byol": ("byol", "BYOL"),
    "crossentropy": ("crossentropy", "CrossEntropy"),
    "deepclusterv2": ("deepclusterv2", "DeepClusterV2"),
    "dino": ("dino", "DINO"),
    "guided": ("guided", "Guided"),
    "hicone": ("hierarchical", "HiConE"),
    "himulcon": ("hierarchical", "HiMulCon"),
    "himulcone": ("hierarchical", "HiMulConE"),
    "mae": ("mae", "MAE"),
    "mocov2plus": ("mocov2plus", "MoCoV2Plus"),
    "mocov3": ("mocov3", "MoCoV3"),
    "nnbyol": ("nnbyol", "NNBYOL"),
    "nnclr": ("nnclr", "NNCLR"),
    "nnsiam": ("nnsiam", "NNSiam"),
    "ressl": ("ressl", "ReSSL"),
    "simclr": ("simclr", "SimCLR"),
    "simsiam": ("simsiam", "SimSiam"),
    "supcon": ("supcon", "SupCon"),
    "swav": ("swav", "SwAV"),
    "vibcreg": ("vibcreg", "VIbCReg"),
    "vicreg": ("vicreg", "VICReg"),
    "wmse": ("wmse", "WMSE"),
}
_CLASSES = {name: module for module, name in _METHODS.values()} | {"BaseMomentumMethod": "momentum"}

__all__ = [
    "All4One",
    "BYOL",
    "BarlowTwins",
    "BaseMethod",
    "BaseMomentumMethod",
    "CrossEntropy",
    "DINO",
    "DeepClusterV2",
    "Guided",
    "HiConE",
    "HiMulCon",
    "HiMulConE",
    "LinearModel",
    "MAE",
    "METHODS",
    "MoCoV2Plus",
    "MoCoV3",
    "NNBYOL",
    "NNCLR",
    "NNSiam",
    "ReSSL",
    "SimCLR",
    "SimSiam",
    "SupCon",
    "SwAV",
    "VICReg",
    "VIbCReg",
    "WMSE",
]


class _Registry(MutableMapping[str, Any]):
    """Imports the classes of `_METHODS` when they are asked for; users add their own as to a dict."""

    def __init__(self) -> None:
        self._entries: dict[str, Any] = dict(_METHODS)

    def __getitem__(self, name: str) -> Any:
        entry = self._entries[name]
        return getattr(import_module(f"{__name__}.{entry[0]}"), entry[1]) if isinstance(entry, tuple) else entry

    def __setitem__(self, name: str, method: Any) -> None:
        self._entries[name] = method

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


METHODS: MutableMapping[str, Any] = _Registry()


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(import_module(f"{__name__}.{_CLASSES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
