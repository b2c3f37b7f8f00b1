"""HEX, Hierarchical Emergence Exploitation: the loss, its policies and schedules, and the plug for methods.

``plug`` is not imported here: the rest needs nothing but torch and works in any training loop.
"""

from solo.hex.loss import HEXLoss, hex_nce
from solo.hex.policy import (
    AdaptivePercentile,
    EveryNegative,
    FixedThreshold,
    NoNegative,
    Policy,
    Selector,
    Superclass,
    WithNamed,
)
from solo.hex.schedule import Constant, Cosine, Schedule, Step

__all__ = [
    "AdaptivePercentile",
    "Constant",
    "Cosine",
    "EveryNegative",
    "FixedThreshold",
    "HEXLoss",
    "NoNegative",
    "Policy",
    "Schedule",
    "Selector",
    "Step",
    "Superclass",
    "WithNamed",
    "hex_nce",
]
