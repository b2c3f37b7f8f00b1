"""What every check of this room takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """What is checked.

    Attributes:
        method: a name of `METHODS`.
        type: the objective, as a user writes it: `standard`, `HEX_adaptive`, ...
    """

    method: str
    type: str = "standard"


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        ok: whether the guarantee holds.
        detail: one line with the figure that decides, e.g. `gradient differs by 3e-16 (allowed: 1e-6)`.
    """

    ok: bool
    detail: str


Check = Callable[[Case], Outcome]
