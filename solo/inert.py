"""Stand-ins for harmless classes that others store beside their weights: nothing of NumPy, OmegaConf, ... is called.

`torch.load(weights_only=True)` looks each name up here and gets plain values, tensors, or an object without behaviour.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMBERS = re.compile(r"[biuf][1248]")


class Inert:
    """Takes any arguments and any state, and does nothing with them."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _DType:
    """`numpy.dtype` of plain numbers; any other kind is None, and so are the arrays of it."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code: str | None = str(code) if _NUMBERS.fullmatch(str(code)) else None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if self.code and state[1] in (">", b">"):
            self.code = f">{self.code}"


class Array:
    """Stands for `numpy.ndarray` while a file is read; see `tensor`."""

    _state: tuple[Any, ...] = ()

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def tensor(self) -> Tensor | None:
        """Its numbers; None if it holds something else, or fewer than it says."""
        try:
            _, shape, kind, fortran, data = self._state
            if not kind.code or len(data) != math.prod(shape) * int(kind.code[-1]):
                return None
            values = np.frombuffer(data, kind.code).reshape(shape, order="F" if fortran else "C")
            return torch.from_numpy(values.astype(values.dtype.newbyteorder("="), order="C"))
        except (ValueError, TypeError, AttributeError):
            return None


def _scalar(kind: object, data: object = b"") -> object:
    if isinstance(kind, _DType) and kind.code and isinstance(data, bytes) and len(data) == int(kind.code[-1]):
        return np.frombuffer(data, kind.code)[0].item()
    return None


_NAMES: dict[Callable[..., Any], str] = {
    Inert: "argparse.Namespace typing.Any datetime.datetime datetime.date datetime.timedelta builtins.slice "
    "builtins.range types.SimpleNamespace omegaconf.base.ContainerMetadata omegaconf.base.Metadata "
    "omegaconf.dictconfig.DictConfig omegaconf.listconfig.ListConfig omegaconf.base.SCMode "
    + " ".join(f"omegaconf.nodes.{kind}Node" for kind in "Any String Integer Float Boolean Bytes Path Enum".split()),
    _DType: "numpy.dtype",
    Array: "numpy.ndarray numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct",
    _scalar: "numpy.core.multiarray.scalar numpy._core.multiarray.scalar",
    (lambda *parts: "/".join(map(str, parts))): " ".join(
        f"{room}.{kind}Path" for room in ("pathlib", "pathlib._local") for kind in ("", "Posix", "Windows", "PurePosix")
    ),
    (lambda *_: {}): "collections.defaultdict",
    (lambda items=(), *_: list(items)): "collections.deque builtins.frozenset",
    dict: "builtins.dict pytorch_lightning.utilities.parsing.AttributeDict lightning.pytorch.utilities.parsing."
    "AttributeDict lightning.fabric.utilities.data.AttributeDict lightning_fabric.utilities.data.AttributeDict",
    list: "builtins.list",
    int: "builtins.int",
    str: "builtins.str",
}
# For `torch.serialization.safe_globals`.
STAND_INS: list[Any] = [(stand_in, name) for stand_in, names in _NAMES.items() for name in names.split()]
