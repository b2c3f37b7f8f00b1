"""The keys of `method_kwargs`: typed dataclasses, which `catalogue` gives to the methods.

They live here, and not beside the methods, so that a misspelt key is refused before torch is imported.
A field without a default is required.
"""

from dataclasses import dataclass
from typing import Literal

from solo.args.fields import REQUIRED, key


class Keys:
    """Makes a dataclass of each class below it."""

    def __init_subclass__(cls) -> None:
        """Keys are given by their names."""
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
    """Projector, temperature, queue."""


class NNCLRKwargs(PredictorKwargs, MoCoV2PlusKwargs):
    """Projector, predictor, temperature, queue."""


class VICRegKwargs(ProjectorKwargs):
    sim_loss_weight: float = key(25.0, "weight of the distance between the two views", ge=0)
    var_loss_weight: float = key(25.0, "weight of the variance term, which keeps features from collapsing", ge=0)
    cov_loss_weight: float = key(1.0, "weight of the covariance term, which decorrelates the features", ge=0)


class BarlowTwinsKwargs(ProjectorKwargs):
    lamb: float = key(0.0051, "weight of the off-diagonal entries of the cross-correlation", ge=0)
    scale_loss: float = key(0.024, "factor on the whole loss", gt=0)


class MoCoV3Kwargs(PredictorKwargs, SimCLRKwargs):
    """Projector, predictor, temperature."""


class NNPredictorKwargs(PredictorKwargs, QueueKwargs):
    """Projector, predictor, queue."""


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


class CrossEntropyKwargs(Keys):
    """None."""


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
