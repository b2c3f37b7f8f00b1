"""What every check of this room takes and gives, and how two records of a training are compared."""

from dataclasses import dataclass

from torch import Tensor


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


Record = dict[str, dict[str, Tensor]]

ALLOWED = 1e-6
SMALL = 1e-7


def compare(one: Record | str, other: Record | str) -> Outcome:
    """Whether two ways to train are the same, with the largest relative difference of each kind (loss, gradient, ...).

    A value is compared with its own size; one that is zero but for rounding, with a ten millionth of the largest. A
    text instead of a record says why there is none.
    """
    if isinstance(one, str) or isinstance(other, str):
        return Outcome(False, one if isinstance(one, str) else str(other))
    parts = []
    ok = True
    for kind, values in one.items():
        differing = values.keys() ^ other[kind].keys()
        if differing:
            return Outcome(False, f"{kind} of {sorted(differing)[0]} exists on one side only")
        largest = max((float(value.double().norm()) for value in values.values()), default=0.0)
        worst = max(
            ((_difference(value, other[kind][name], SMALL * largest), name) for name, value in values.items()),
            default=(0.0, ""),
        )
        ok &= worst[0] <= ALLOWED
        parts.append(f"{kind} {worst[0]:.0e}" + (f" ({worst[1]})" if worst[0] > ALLOWED else ""))
    return Outcome(ok, f"differs by: {', '.join(parts)} (allowed: {ALLOWED:.0e})")


def _difference(a: Tensor, b: Tensor, small: float) -> float:
    if a.shape != b.shape:
        return float("inf")
    a, b = a.double(), b.double()
    same = bool((a.isnan() == b.isnan()).all())
    a, b = a.nan_to_num(), b.nan_to_num()
    return float((a - b).norm() / (a.norm() + small + 1e-300)) if same else float("inf")
