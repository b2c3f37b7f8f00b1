"""What every check of this room takes and gives."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A method with an objective, which is checked."""

    method: str  # a name of `METHODS`
    type: str = "standard"  # the objective, as a user writes it: `standard`, `HEX_adaptive`, ...

    def __str__(self) -> str:
        return self.method if self.type == "standard" else f"{self.method} {self.type}"


@dataclass(frozen=True)
class Outcome:
    """What came out of a check of one case."""

    ok: bool  # whether the guarantee holds
    detail: str  # one line with the figure that decides, e.g. `gradient differs by 3e-16 (allowed: 1e-6)`
