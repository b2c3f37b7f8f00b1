"""The methods, by registry name; a method's file is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
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


if TYPE_CHECKING:
    _Dict = dict[str, Any]
else:

    class _Dict(MutableMapping, dict):
        """A dict by type, whose methods go through `__getitem__`."""


class _Registry(_Dict):
    """A dict that imports a class when it is asked for, by its name or its import path; users may add their own."""

    def __init__(self) -> None:
        self._entries: dict[str, Any] = dict(_PATHS)

    def __getitem__(self, name: str) -> Any:
        entry = self._entries.get(name)
        if entry is None:
            if is_path(name):
                return method_class(name)
            raise KeyError(name)
        return resolve_name(entry) if isinstance(entry, str) else entry

    def __setitem__(self, name: str, method: Any) -> None:
        self._entries[name] = method

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def copy(self) -> dict[str, Any]:
        """A plain dict, with every class imported."""
        return dict(self)


METHODS: dict[str, Any] = _Registry()


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return resolve_name(_CLASSES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
