"""HEX, Hierarchical Emergence Exploitation: the loss, its policies and schedules.

`objective` puts them into methods. The others need nothing but torch, for any training loop; names are imported late.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solo.hex.loss import HEXLoss, hex_nce
    from solo.hex.policy import (
        AdaptivePercentile,
        Constant,
        Cosine,
        EveryNegative,
        FixedThreshold,
        NoNegative,
        Policy,
        Schedule,
        Selector,
        Step,
        Superclass,
        WarmUp,
        WithNamed,
    )

__all__ = ["AdaptivePercentile", "Constant", "Cosine", "EveryNegative", "FixedThreshold", "HEXLoss", "NoNegative"]
__all__ += ["Policy", "Schedule", "Selector", "Step", "Superclass", "WarmUp", "WithNamed", "hex_nce"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"solo.hex.{'loss' if name in ('HEXLoss', 'hex_nce') else 'policy'}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
