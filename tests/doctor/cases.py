"""What the checks are run on."""

from __future__ import annotations

from solo.doctor.toy import Case
from solo.methods import METHODS
from solo.methods.catalogue import CATALOGUE, names

TYPES = ("HEX_fixed", "HEX_adaptive", "superclass", "HCL", "DCL", "InfoNCE")


def types(method: str) -> tuple[str, ...]:
    """The types that a method with HEX takes, `standard` left out."""
    return TYPES[:4] if CATALOGUE[method].hex == "denominator" else TYPES


HEX_METHODS = names(lambda facts: facts.hex)
STANDARD = [Case(method) for method in METHODS if method != "base"]
# Each method with one type, every type with one method at least.
SOME = [Case(method, types(method)[i % len(types(method))]) for i, method in enumerate(HEX_METHODS)]
EACH_ONCE = [*SOME, *(case for case in STANDARD if case.method not in HEX_METHODS)]
ALL = [Case(method, kind) for method in HEX_METHODS for kind in types(method)]
