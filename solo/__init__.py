"""Self-supervised learning that knows of hierarchies: HEX and solo-learn's methods on Lightning.

Everything in `__all__` and every subpackage is imported when it is first used, so that `import solo` costs nothing:

    import solo

    run = solo.pretrain("scripts/pretrain/digits/hex.yaml", max_epochs=2)
    numbers = solo.evaluate(run.folder)
    features = solo.load(run.folder).embed("folder/of/images")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from solo.compat import paths

paths.install()

__version__ = "0.2.0"

if TYPE_CHECKING:
    from solo.api import analyze, evaluate, inspect, load, pretrain, search
    from solo.errors import ConfigError, UserError
    from solo.hex import AdaptivePercentile, EveryNegative, FixedThreshold, HEXLoss, NoNegative, Superclass, WithNamed
    from solo.losses import GuidedLoss, HierarchicalContrastiveLoss, hierarchical_contrastive_loss
    from solo.methods import METHODS
    from solo.run.pretrained import PretrainedModel, mteb_encoder
    from solo.taxonomy import Taxonomy

__all__ = ["METHODS", "ConfigError", "PretrainedModel", "Taxonomy", "UserError", "__version__", "mteb_encoder"]
__all__ += ["AdaptivePercentile", "EveryNegative", "FixedThreshold", "HEXLoss", "NoNegative", "Superclass", "WithNamed"]
__all__ += ["GuidedLoss", "HierarchicalContrastiveLoss", "hierarchical_contrastive_loss"]
__all__ += ["analyze", "evaluate", "inspect", "load", "pretrain", "search"]

# Module -> the public names that live there.
_HOMES = {
    "solo.api": ("pretrain", "evaluate", "load", "analyze", "inspect", "search"),
    "solo.errors": ("UserError", "ConfigError"),
    "solo.hex": tuple(
        "HEXLoss AdaptivePercentile FixedThreshold Superclass EveryNegative NoNegative WithNamed".split()
    ),
    "solo.losses": ("GuidedLoss", "HierarchicalContrastiveLoss", "hierarchical_contrastive_loss"),
    "solo.methods": ("METHODS",),
    "solo.run.pretrained": ("PretrainedModel", "mteb_encoder"),
    "solo.taxonomy": ("Taxonomy",),
}
_SUBPACKAGES = ("args", "backbones", "data", "losses", "methods", "utils", "analysis", "callbacks", "eval", "hex", "nn")


def __getattr__(name: str) -> Any:
    """Import a public name or the subpackage `name` on first use."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(module), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
