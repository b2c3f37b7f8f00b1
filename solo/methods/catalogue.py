"""What is known of each method before torch is imported: its keys, one row a method, and all else follows from these.

A method from outside, `method=my_pkg.mine:MyMethod`, has its facts on its class, see `MethodFacts`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from solo import plugin
from solo.args.fields import REQUIRED, key
from solo.errors import UserError
from solo.methods.lightly_losses import LightlyKwargs


@dataclass(kw_only=True)
class Keys:
    """Base of the `method_kwargs` of a method, and those of one without any; what has no default is required."""

    def __init_subclass__(cls) -> None:
        if cls.__module__ == __name__:  # of a class elsewhere its own decorator makes a dataclass
            dataclass(kw_only=True)(cls)


class ProjectorKwargs(Keys):
    proj_hidden_dim: int = key(REQUIRED, "width of the projector's hidden layers", ge=1)
    proj_output_dim: int = key(REQUIRED, "width of the projection, on which the loss is computed", ge=1)


class PredictorKwargs(ProjectorKwargs):
    pred_hidden_dim: int = key(REQUIRED, "width of the predictor's hidden layer", ge=1)


class SimCLRKwargs(ProjectorKwargs):
    temperature: float = key(REQUIRED, "temperature of the softmax over similarities", gt=0)


class QueueKwargs(Keys):
    queue_size: int = key(65536, "rows of the queue; a multiple of the batch of all processes", ge=1)


class MoCoV2PlusKwargs(SimCLRKwargs, QueueKwargs):
    """Keys of a projector, a temperature and a queue."""


class NNCLRKwargs(PredictorKwargs, MoCoV2PlusKwargs):
    """Keys of a projector, a predictor, a temperature and a queue."""


class VICRegKwargs(ProjectorKwargs):
    sim_loss_weight: float = key(25.0, "weight of the distance between the two views", ge=0)
    var_loss_weight: float = key(25.0, "weight of the variance term, which keeps features from collapsing", ge=0)
    cov_loss_weight: float = key(1.0, "weight of the covariance term, which decorrelates the features", ge=0)


class BarlowTwinsKwargs(ProjectorKwargs):
    lamb: float = key(0.0051, "weight of the off-diagonal entries of the cross-correlation", ge=0)
    scale_loss: float = key(0.024, "factor on the whole loss", gt=0)


class MoCoV3Kwargs(PredictorKwargs, SimCLRKwargs):
    """Keys of a projector, a predictor and a temperature."""


class NNPredictorKwargs(PredictorKwargs, QueueKwargs):
    """Keys of a projector, a predictor and a queue."""


class ReSSLKwargs(ProjectorKwargs, QueueKwargs):
    temperature_q: float = key(REQUIRED, "temperature of the relations of the strongly augmented view", gt=0)
    temperature_k: float = key(REQUIRED, "temperature of the relations of the weakly augmented view", gt=0)


class VIbCRegKwargs(VICRegKwargs):
    cov_loss_weight: float = key(200.0, "weight of the correlation term, which decorrelates the features", ge=0)
    iternorm: bool = key(False, "whiten the projections by iterative normalisation")


class WMSEKwargs(ProjectorKwargs):
    whitening_iters: int = key(1, "random partitions of the batch that the loss averages over", ge=1)
    whitening_size: int = key(256, "rows that are whitened together; a divisor of the batch of a process", ge=2)
    whitening_eps: float = key(0.0, "share of the identity in the covariance", ge=0, le=1)


class SwAVKwargs(SimCLRKwargs):
    queue_size: int = key(65536, "rows of the queue of all processes together; 0 for none", ge=0)
    num_prototypes: int = key(3000, "number of prototypes", ge=1)
    sk_epsilon: float = key(0.05, "how soft the assignments are", gt=0)
    sk_iters: int = key(3, "iterations of Sinkhorn and Knopp's algorithm", ge=1)
    freeze_prototypes_epochs: int = key(1, "epochs in which the prototypes don't move", ge=0)
    epoch_queue_starts: int = key(15, "epoch from which the queue takes part", ge=0)


class DeepClusterV2Kwargs(ProjectorKwargs):
    num_prototypes: list[int] = key([3000, 3000, 3000], "number of clusters of every set of prototypes")
    temperature: float = key(0.1, "temperature of the softmax over prototypes", gt=0)
    kmeans_iters: int = key(10, "iterations of k-means after each epoch", ge=1)


class DINOKwargs(ProjectorKwargs):
    num_prototypes: int = key(REQUIRED, "width of the head's output", ge=1)
    clip_grad: float = key(0.0, "largest norm of the gradient of each parameter of the backbone; 0 for any", ge=0)
    freeze_last_layer: int = key(1, "epochs in which the last layer doesn't move", ge=0)
    norm_last_layer: bool = key(True, "keep the rows of the last layer at length 1")
    use_bn_in_head: bool = key(False, "BatchNorm in the head")
    student_temperature: float = key(0.1, "temperature of the trained network", gt=0)
    teacher_temperature: float = key(0.07, "temperature of the slow network", gt=0)
    warmup_teacher_temperature: float = key(0.04, "temperature of the slow network at first", gt=0)
    warmup_teacher_temperature_epochs: int = key(0, "epochs until it has its final temperature", ge=0)


class DINOv2Kwargs(DINOKwargs):
    mask_ratio: float = key(0.3, "share of the patches that are hidden in every second image", gt=0, lt=1)
    ibot_weight: float = key(1.0, "weight of the loss on hidden patches", ge=0)
    koleo_weight: float = key(0.1, "weight of the term that keeps features apart", ge=0)


class IJEPAKwargs(Keys):
    predictor_embed_dim: int = key(REQUIRED, "width of the predictor", ge=4)
    predictor_depth: int = key(REQUIRED, "blocks of the predictor", ge=0)
    predictor_num_heads: int = key(REQUIRED, "attention heads of the predictor", ge=1)
    target_scale: float = key(0.175, "share of the patches in each of the four blocks that are predicted", gt=0, lt=1)


class MAEKwargs(Keys):
    decoder_embed_dim: int = key(REQUIRED, "width of the decoder", ge=4)
    decoder_depth: int = key(REQUIRED, "blocks of the decoder", ge=0)
    decoder_num_heads: int = key(REQUIRED, "attention heads of the decoder", ge=1)
    mask_ratio: float = key(0.75, "share of the patches that are removed", gt=0, lt=1)
    norm_pix_loss: bool = key(False, "standardise each patch before it is compared")


class HierarchicalKwargs(SimCLRKwargs):
    temperature: float = key(0.1, "temperature of the softmax over similarities", gt=0)
    level_penalty: Literal["released", "exp2", "linear", "constant"] | list[float] = key(
        "released", "weight of each level, or a list, coarse first"
    )
    pairs: Literal["lca", "cumulative"] = key("lca", "partners at a level: who parts there, or who shares its label")
    granularity: Literal["pair", "layer"] = key("pair", "the paper's equations, or what its public release computes")
    instance: bool = key(True, "the image itself is the finest level, below its labels")


class LeJEPAKwargs(ProjectorKwargs):
    lamb: float = key(0.05, "share of SIGReg in the loss; the rest is the distance of the views", ge=0, le=1)
    num_slices: int = key(1024, "random directions in which the embeddings are compared with a Gaussian", ge=1)


class FroSSLKwargs(ProjectorKwargs):
    invariance_weight: float = key(1.0, "weight of the distance between the views", ge=0)


class SigLIPKwargs(ProjectorKwargs):
    temperature: float = key(0.1, "temperature of the sigmoid at first, and of HEX", gt=0)
    bias: float = key(-10.0, "bias of the sigmoid at first; about -log(images in a batch) or less", le=0)


class GuidedKwargs(ProjectorKwargs):
    distortion_weight: float = key(1.0, "weight of the distances between prototypes", ge=0)


class SoftLabelsKwargs(Keys):
    beta: float = key(10.0, "how much less a class counts, the higher its common ancestor with the label", ge=0)


class HXEKwargs(Keys):
    alpha: float = key(0.4, "how much less an edge of the tree weighs, the higher it is", ge=0)


class HiddenKwargs(Keys):
    proj_hidden_dim: int = key(REQUIRED, "width of the projector's hidden layer", ge=1)


class HAFrameKwargs(HiddenKwargs):
    gamma: float = key(2.0, "how fast the cosine of class vectors falls with the height of their ancestor", gt=0)
    cosine_weight: float = key(0.4, "weight of the cosines, that of the cross-entropy is 1 less it", ge=0, le=1)


class HierCOSKwargs(HiddenKwargs):
    level_weight: float = key(0.05, "weight of what is off the right axis, level by level", ge=0)


class HypStructureKwargs(Keys):
    geometry: Literal["hyperbolic", "euclidean"] = key("hyperbolic", "where the means' distances are measured")
    structure_weight: float = key(1.0, "weight of 1 - the correlation with the tree's distances", ge=0)
    centre_weight: float = key(0.01, "weight of the length of the mean of all; hyperbolic only", ge=0)


class LorentzKwargs(ProjectorKwargs):
    temperature: float = key(0.1, "temperature of the softmax over distances", gt=0)
    entailment_weight: float = key(0.2, "weight of the angles outside of the cones", ge=0)


class LevelContrastKwargs(SimCLRKwargs):
    temperature: float = key(0.1, "temperature of the softmax over similarities", gt=0)


class HappierKwargs(ProjectorKwargs):
    cluster_weight: float = key(0.1, "weight of the cross-entropy with class proxies", ge=0, le=1)


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """Facts of one method; a class of one's own may say what differs: `facts = MethodFacts(hex="replaces")`.

    `path`, `kwargs` and `momentum` are read off the class; what it doesn't say is its parent's.
    """

    path: str = ""  # where its class is, `module:Class`
    # schema of its `method_kwargs`; it may have further checks, `problems(values)`, and lines for `--help`, `notes()`
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
    # what keeps the embedding from collapsing; `prediction` is that of a target without gradient
    collapse: Literal["contrast", "prediction", "decorrelation"] = "contrast"
    vit: str | None = None  # variant of ViT that it trains, see `solo.backbones.from_timm`; None for the plain one
    masked: bool = False  # its backbone must be able to encode a part of an image
    recipe: str | None = None  # name of its file below `scripts/pretrain`, where it isn't the method's
    whole: bool = False  # it reads and writes prototypes or memories as whole tensors, which `fsdp` would have cut
    quick: bool = False  # `solo doctor` tries it, for all that are like it
    ignores: tuple[str, ...] = ()  # keys of its `kwargs` that it doesn't read


def _row(where: str, kwargs: type, **facts: Any) -> MethodFacts:
    return MethodFacts(path=f"solo.methods.{where}", kwargs=kwargs, **facts)


_MANY: dict[str, Any] = {"most_views": None, "small_views": True}
_LEVELS: dict[str, Any] = {"hex": "denominator", "labels": "levels", **_MANY}
_ALL_PAIRS: dict[str, Any] = {"hex": "replaces", "negatives": "rows", "ring": True, **_MANY}
_DISTILLED: dict[str, Any] = {"collapse": "prediction", "per_image": True}
_DECORRELATED: dict[str, Any] = {"hex": "blends", "collapse": "decorrelation"}
_MASKED: dict[str, Any] = {"least_views": 1, "most_views": None, "masked": True}
_NEEDS_LABELS: dict[str, Any] = {"labels": "needed", "least_views": 1, **_MANY}

USUAL = "simclr"  # the method of a recipe that names none, as `hex` and `paper` do
CATALOGUE: dict[str, MethodFacts] = {
    "all4one": _row("contrastive:All4One", NNCLRKwargs, hex="replaces", momentum=True, negatives="view"),
    "barlow_twins": _row("agreement:BarlowTwins", BarlowTwinsKwargs, recipe="barlow", quick=True, **_DECORRELATED),
    "byol": _row("agreement:BYOL", PredictorKwargs, hex="blends", momentum=True, quick=True, **_DISTILLED, **_MANY),
    "crossentropy": _row("classifiers:CrossEntropy", Keys, **_NEEDS_LABELS),
    "deepclusterv2": _row("prototypes:DeepClusterV2", DeepClusterV2Kwargs, per_image=True, whole=True, **_MANY),
    "dino": _row("prototypes:DINO", DINOKwargs, momentum=True, **_DISTILLED, **_MANY),
    "frossl": _row("agreement:FroSSL", FroSSLKwargs, most_views=None, **_DECORRELATED),
    "dinov2": _row("prototypes:DINOv2", DINOv2Kwargs, momentum=True, collapse="prediction", masked=True, **_MANY),
    "guided": _row("classifiers:Guided", GuidedKwargs, **_NEEDS_LABELS),
    "haframe": _row("classifiers:HAFrame", HAFrameKwargs, **_NEEDS_LABELS),
    "happier": _row("classifiers:Happier", HappierKwargs, **_NEEDS_LABELS),
    "hicone": _row("contrastive:HiConE", HierarchicalKwargs, ignores=("level_penalty",), **_LEVELS),
    "hiercos": _row("classifiers:HierCOS", HierCOSKwargs, **_NEEDS_LABELS),
    "himulcon": _row("contrastive:HiMulCon", HierarchicalKwargs, **_LEVELS),
    "himulcone": _row("contrastive:HiMulConE", HierarchicalKwargs, **_LEVELS),
    "hxe": _row("classifiers:HXE", HXEKwargs, **_NEEDS_LABELS),
    "hypstructure": _row("classifiers:HypStructure", HypStructureKwargs, **_NEEDS_LABELS),
    "lejepa": _row("agreement:LeJEPA", LeJEPAKwargs, **_DECORRELATED, **_MANY),
    "ijepa": _row("masked:IJEPA", IJEPAKwargs, momentum=True, vit="ijepa", **_MASKED, **_DISTILLED),
    "levelcontrast": _row("classifiers:LevelContrast", LevelContrastKwargs, **_NEEDS_LABELS),
    "levelheads": _row("classifiers:LevelHeads", Keys, **_NEEDS_LABELS),
    "lightly": _row("agreement:Lightly", LightlyKwargs, hex="blends", momentum=True),
    "lorentz": _row("classifiers:LorentzHeads", LorentzKwargs, **_NEEDS_LABELS),
    "mae": _row("masked:MAE", MAEKwargs, per_image=True, least_batch=1, vit="mae", **_MASKED),
    "mocov2plus": _row("contrastive:MoCoV2Plus", MoCoV2PlusKwargs, hex="replaces", momentum=True, negatives="queue"),
    "mocov3": _row(
        "contrastive:MoCoV3", MoCoV3Kwargs, momentum=True, negatives="view", collapse="prediction", vit="mocov3"
    ),
    "nnbyol": _row("agreement:NNBYOL", NNPredictorKwargs, momentum=True, **_DISTILLED),
    "nnclr": _row("contrastive:NNCLR", NNCLRKwargs, hex="replaces", negatives="view", small_views=True, quick=True),
    "nnsiam": _row("agreement:NNSiam", NNPredictorKwargs, **_DISTILLED),
    "ressl": _row("contrastive:ReSSL", ReSSLKwargs, momentum=True, collapse="prediction", small_views=True),
    "siglip": _row("contrastive:SigLIP", SigLIPKwargs, hex="blends"),
    "simclr": _row("contrastive:SimCLR", SimCLRKwargs, quick=True, **_ALL_PAIRS),
    "simsiam": _row("agreement:SimSiam", PredictorKwargs, hex="blends", **_DISTILLED),
    "softlabels": _row("classifiers:SoftLabels", SoftLabelsKwargs, **_NEEDS_LABELS),
    "supcon": _row("contrastive:SupCon", SimCLRKwargs, labels="used", **_ALL_PAIRS),
    "swav": _row("prototypes:SwAV", SwAVKwargs, small_views=True, whole=True),
    "vibcreg": _row("agreement:VIbCReg", VIbCRegKwargs, collapse="decorrelation"),
    "vicreg": _row("agreement:VICReg", VICRegKwargs, **_DECORRELATED),
    "wmse": _row("agreement:WMSE", WMSEKwargs, collapse="decorrelation", most_views=None),
}
ROWS = {facts.path: facts for facts in CATALOGUE.values()}  # by the paths of their classes


def facts_of(name: object) -> MethodFacts | None:
    """The facts of a method, by its name or by its import path, see `method_class`; None where there is none."""
    if plugin.is_path(name):
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
    return facts_of_class(method_class(method)).vit if backbone.startswith("vit_") else None
