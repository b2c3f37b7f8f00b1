"""Self-supervised learning that knows of hierarchies: HEX and solo-learn's methods on Lightning.

The subpackages are imported when they are first used, so that `import solo` costs nothing.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from solo.compat import paths

paths.install()

__version__ = "0.1.0"

_SUBPACKAGES = ("args", "backbones", "data", "losses", "methods", "utils", "analysis", "callbacks", "eval", "hex", "nn")


def __getattr__(name: str) -> ModuleType:
    """Import the subpackage `name` on first use."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
