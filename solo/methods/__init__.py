"""The methods, by registry name; a method's file is imported when it is asked for."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from solo.methods.catalogue import CATALOGUE, method_class
from solo.plugin import is_path

if TYPE_CHECKING:
    from solo.methods.base import BaseMethod as BaseMethod
    from solo.methods.linear import LinearModel as LinearModel
    from solo.methods.momentum import BaseMomentumMethod as BaseMomentumMethod

_BASES = {"base": "solo.methods.base:BaseMethod", "linear": "solo.methods.linear:LinearModel"}
_PATHS = _BASES | {name: facts.path for name, facts in CATALOGUE.items()}
_CLASSES = {path.partition(":")[2]: path for path in _PATHS.values()}
_CLASSES["BaseMomentumMethod"] = "solo.methods.momentum:BaseMomentumMethod"

__all__ = ["METHODS", *_CLASSES]


class _Registry(UserDict, dict):  # type: ignore[type-arg, misc]
    """A dict that imports a class when it is asked for, by its name or its import path; users may add their own."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.data and is_path(name):
            return method_class(name)
        entry = super().__getitem__(name)
        return resolve_name(entry) if isinstance(entry, str) else entry

    __contains__ = Mapping.__contains__  # as `__getitem__`


METHODS: dict[str, Any] = _Registry(_PATHS)


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return resolve_name(_CLASSES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
