"""What is known of each method before torch is imported: one row a method, and everything else follows from it.

Checks of a config, `--help`, hints, accumulation, watching, `solo doctor`, tables of the documentation and the tests
read these rows. A method from outside, `method=my_pkg.mine:MyMethod`, has its facts on its class, see `MethodFacts`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from solo import plugin
from solo.errors import UserError
from solo.methods import kwargs as of
from solo.methods.lightly_losses import LightlyKwargs


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """Facts of one method.

    A class of one's own may say what differs from these defaults: `facts = MethodFacts(hex="replaces")`. `path`,
    `kwargs` and `momentum` are read off the class; what it doesn't say is its parent's.
    """

    path: str = ""  # where its class is, `module:Class`
    # schema of its `method_kwargs`; None for a method that doesn't say. It may have further checks, `problems(values)`,
    # and lines for `--help`, `notes()`.
    kwargs: type | None = None
    # what HEX does in it: replaces its loss, blends into it, or gives its loss a denominator; None: nothing
    hex: Literal["replaces", "blends", "denominator"] | None = None
    # it has a slow copy of its network, which the section `momentum` is for; where its `kwargs` have
    # `has_teacher(values)`, only if that says so
    momentum: bool = False
    # what it does with them. `used`: it does without where there are none; `levels`: the same, of the whole tree, so
    # that batches are drawn for it (`data.sampler`); `needed`: it learns nothing without.
    labels: Literal["used", "levels", "needed"] | None = None
    # what an anchor is compared with, beside its positives: all other `rows`, those of the other `view`, or a `queue`;
    # None for a loss without negatives
    negatives: Literal["rows", "view", "queue"] | None = None
    ring: bool = False  # `performance.ring_loss` may pass its keys from device to device
    per_image: bool = False  # its own loss is a mean over images which no other image of the batch changes
    least_views: int = 2  # large views of an image that it needs
    most_views: int | None = 2  # and that it can use; None for any number
    small_views: bool = False  # it uses small views (multi-crop), too
    least_batch: int = 2  # images of a process that it needs in a batch
    # what keeps the embedding from collapsing: `contrast`, `prediction` of a target without gradient, or
    # `decorrelation`
    collapse: Literal["contrast", "prediction", "decorrelation"] = "contrast"
    vit: str | None = None  # variant of ViT that it trains, see `solo.backbones.from_timm`; None for the plain one
    masked: bool = False  # its backbone must be able to encode a part of an image
    recipe: str | None = None  # name of its file below `scripts/pretrain`, where it isn't the method's
    whole: bool = False  # it reads and writes prototypes or memories as whole tensors, which `fsdp` would have cut
    quick: bool = False  # `solo doctor` tries it, for all that are like it
    ignores: tuple[str, ...] = ()  # keys of its `kwargs` that it doesn't read


def _row(where: str, kwargs: type, **facts: Any) -> MethodFacts:
    return MethodFacts(path=f"solo.methods.{where}", kwargs=kwargs, **facts)


_ANY_VIEWS: dict[str, Any] = {"most_views": None, "small_views": True}
_LEVELS: dict[str, Any] = {"hex": "denominator", "labels": "levels", **_ANY_VIEWS}
_DISTILLED: dict[str, Any] = {"collapse": "prediction", "per_image": True}
_DECORRELATED: dict[str, Any] = {"hex": "blends", "collapse": "decorrelation"}
_MASKED: dict[str, Any] = {"least_views": 1, "most_views": None, "masked": True}
_NEEDS_LABELS: dict[str, Any] = {"labels": "needed", "least_views": 1, **_ANY_VIEWS}

USUAL = "simclr"  # the method of a recipe that names none, as `hex` and `paper` do
CATALOGUE: dict[str, MethodFacts] = {
    "all4one": _row("contrastive:All4One", of.NNCLRKwargs, hex="replaces", momentum=True, negatives="view"),
    "barlow_twins": _row(
        "decorrelation:BarlowTwins", of.BarlowTwinsKwargs, recipe="barlow", quick=True, **_DECORRELATED
    ),
    "byol": _row(
        "siamese:BYOL", of.PredictorKwargs, hex="blends", momentum=True, quick=True, **_DISTILLED, **_ANY_VIEWS
    ),
    "crossentropy": _row("classifiers:CrossEntropy", of.CrossEntropyKwargs, **_NEEDS_LABELS),
    "deepclusterv2": _row("clustering:DeepClusterV2", of.DeepClusterV2Kwargs, per_image=True, whole=True, **_ANY_VIEWS),
    "dino": _row("dino:DINO", of.DINOKwargs, momentum=True, **_DISTILLED, **_ANY_VIEWS),
    "frossl": _row("decorrelation:FroSSL", of.FroSSLKwargs, most_views=None, **_DECORRELATED),
    "dinov2": _row("dino:DINOv2", of.DINOv2Kwargs, momentum=True, collapse="prediction", masked=True, **_ANY_VIEWS),
    "guided": _row("classifiers:Guided", of.GuidedKwargs, **_NEEDS_LABELS),
    "haframe": _row("classifiers:HAFrame", of.HAFrameKwargs, **_NEEDS_LABELS),
    "happier": _row("classifiers:Happier", of.HappierKwargs, **_NEEDS_LABELS),
    "hicone": _row("contrastive:HiConE", of.HierarchicalKwargs, ignores=("level_penalty",), **_LEVELS),
    "hiercos": _row("classifiers:HierCOS", of.HierCOSKwargs, **_NEEDS_LABELS),
    "himulcon": _row("contrastive:HiMulCon", of.HierarchicalKwargs, **_LEVELS),
    "himulcone": _row("contrastive:HiMulConE", of.HierarchicalKwargs, **_LEVELS),
    "hxe": _row("classifiers:HXE", of.HXEKwargs, **_NEEDS_LABELS),
    "hypstructure": _row("classifiers:HypStructure", of.HypStructureKwargs, **_NEEDS_LABELS),
    "lejepa": _row("decorrelation:LeJEPA", of.LeJEPAKwargs, **_DECORRELATED, **_ANY_VIEWS),
    "ijepa": _row("masked:IJEPA", of.IJEPAKwargs, momentum=True, vit="ijepa", **_MASKED, **_DISTILLED),
    "levelcontrast": _row("classifiers:LevelContrast", of.LevelContrastKwargs, **_NEEDS_LABELS),
    "levelheads": _row("classifiers:LevelHeads", of.CrossEntropyKwargs, **_NEEDS_LABELS),
    "lightly": _row("lightly:Lightly", LightlyKwargs, hex="blends", momentum=True),
    "lorentz": _row("classifiers:LorentzHeads", of.LorentzKwargs, **_NEEDS_LABELS),
    "mae": _row("masked:MAE", of.MAEKwargs, per_image=True, least_batch=1, vit="mae", **_MASKED),
    "mocov2plus": _row("contrastive:MoCoV2Plus", of.MoCoV2PlusKwargs, hex="replaces", momentum=True, negatives="queue"),
    "mocov3": _row(
        "contrastive:MoCoV3", of.MoCoV3Kwargs, momentum=True, negatives="view", collapse="prediction", vit="mocov3"
    ),
    "nnbyol": _row("siamese:NNBYOL", of.NNPredictorKwargs, momentum=True, **_DISTILLED),
    "nnclr": _row("contrastive:NNCLR", of.NNCLRKwargs, hex="replaces", negatives="view", small_views=True, quick=True),
    "nnsiam": _row("siamese:NNSiam", of.NNPredictorKwargs, **_DISTILLED),
    "ressl": _row("contrastive:ReSSL", of.ReSSLKwargs, momentum=True, collapse="prediction", small_views=True),
    "siglip": _row("contrastive:SigLIP", of.SigLIPKwargs, hex="blends"),
    "simclr": _row(
        "contrastive:SimCLR", of.SimCLRKwargs, hex="replaces", negatives="rows", ring=True, quick=True, **_ANY_VIEWS
    ),
    "simsiam": _row("siamese:SimSiam", of.PredictorKwargs, hex="blends", **_DISTILLED),
    "softlabels": _row("classifiers:SoftLabels", of.SoftLabelsKwargs, **_NEEDS_LABELS),
    "supcon": _row(
        "contrastive:SupCon", of.SimCLRKwargs, hex="replaces", labels="used", negatives="rows", ring=True, **_ANY_VIEWS
    ),
    "swav": _row("clustering:SwAV", of.SwAVKwargs, small_views=True, whole=True),
    "vibcreg": _row("decorrelation:VIbCReg", of.VIbCRegKwargs, collapse="decorrelation"),
    "vicreg": _row("decorrelation:VICReg", of.VICRegKwargs, **_DECORRELATED),
    "wmse": _row("decorrelation:WMSE", of.WMSEKwargs, collapse="decorrelation", most_views=None),
}
ROWS = {facts.path: facts for facts in CATALOGUE.values()}  # by the paths of their classes


def facts_of(name: object) -> MethodFacts | None:
    """The facts of a method, by its name or by its import path, see `method_class`; None where there is none."""
    if isinstance(name, str) and plugin.is_path(name):
        return facts_of_class(method_class(name))
    return CATALOGUE.get(name) if isinstance(name, str) else None


def has_slow_copy(facts: MethodFacts, kwargs: Mapping[str, Any]) -> bool:
    """Whether a method has one with these `method_kwargs`."""
    asked = getattr(facts.kwargs, "has_teacher", None)
    return facts.momentum and (asked is None or asked(kwargs))


def names(which: Callable[[MethodFacts], object] = lambda facts: True) -> tuple[str, ...]:
    """Names of the methods whose facts are as asked for."""
    return tuple(name for name, facts in CATALOGUE.items() if which(facts))


def method_class(path: str) -> Any:
    """The class of a method outside of the library. Raises a `UserError` if it isn't there, or is no method."""
    found = plugin.load(path, "method")
    if not (isinstance(found, type) and "solo.methods.base:BaseMethod" in map(path_of, found.mro())):
        raise UserError(f"method={path} is no method; give a subclass of solo.methods.BaseMethod")
    return found


def facts_of_class(method: Any) -> MethodFacts:
    """The facts of a class: its own `facts`, else those of the nearest parent that has any."""
    said = (vars(parent).get("facts") or ROWS.get(path_of(parent)) for parent in method.mro())
    facts = next((found for found in said if isinstance(found, MethodFacts)), MethodFacts())
    return replace(facts, path=path_of(method), kwargs=method.Kwargs, momentum=hasattr(method, "momentum_pairs"))


def path_of(method: type) -> str:
    """Where a class is, `module:Class`."""
    return f"{method.__module__}:{method.__qualname__}"


def vit_variant(method: str | None, backbone: str) -> str | None:
    """The word that a backbone's constructor gets as `method`: its name, or the `vit` of one from outside."""
    if not plugin.is_path(method):
        return method
    facts = facts_of(method) if backbone.startswith("vit_") else None
    return facts.vit if facts else None
