"""Every key of how a run is watched, logged and kept, as in `schema`."""

from dataclasses import dataclass
from typing import Literal

from solo.args.fields import key


@dataclass(kw_only=True, frozen=True)
class OnlineCfg:
    """Vital signs of the embedding while training: rank, LiDAR, alpha-ReQ, uniformity, alignment, spread, threshold."""

    enabled: bool = key(True, "measure them at the end of an epoch, on the last training batches", matters=False)
    rows: int = key(2048, "images that are measured", ge=2, matters=False)
    every: int = key(1, "epochs between two measurements; the last epoch is always measured", ge=1, matters=False)
    alarm: bool = key(
        True, "say once when the embedding collapses or the loss stands still, with likely causes", matters=False
    )
    stop_on_collapse: bool = key(False, "end the run then")
    replay: bool = key(
        True, "a loss that is not finite: find where it began, keep batch and state in replay/", matters=False
    )


@dataclass(kw_only=True, frozen=True)
class PerformanceCfg:
    """What makes training faster or slower and leaves its result as it is."""

    disable_channel_last: bool = key(False, "keep images channel-first in memory")
    compile: Literal["auto"] | bool = key(
        "auto", "compile the networks (torch.compile); auto: on a GPU, for runs of 5,000 steps and more", matters=False
    )
    grad_checkpointing: bool = key(
        False, "compute the backbone's activations again in the backward pass: less memory, more time", matters=False
    )
    ring_loss: bool = key(
        False,
        "several devices: keys of the contrastive loss pass from one to the next instead of being gathered by all, so "
        "that none holds more than two sets of its own rows; of methods that compare all rows of a batch",
        matters=False,
    )
    fused_loss: bool = key(
        False,
        "GPU: kernels compute the contrastive loss and keep no similarities in memory; of methods whose loss HEX can "
        "replace, and of HEX that weighs or drops relatives",
        matters=False,
    )
    profile: bool = key(False, "write profile.txt and profile.json: where the time of a step goes", matters=False)


@dataclass(kw_only=True, frozen=True)
class CheckpointCfg:
    """Files of a run, in <dir>/<method>/<run id>/."""

    enabled: bool = key(False, "write checkpoints")
    dir: str = key("trained_models", "parent folder of all runs")
    frequency: int = key(1, "epochs between two checkpoints", ge=1)
    keep_prev: bool = key(False, "keep the earlier ones")
    ema: float | None = key(
        None, "write ema.pth, too: a running mean of the backbone that keeps this share of itself in a step", gt=0, lt=1
    )
    every_steps: int | None = key(None, "renew last.ckpt inside an epoch after as many optimizer steps, too", ge=1)
    every_minutes: float | None = key(30, "the same by time; null: only after epochs", ge=0)


@dataclass(kw_only=True, frozen=True)
class AutoUmapCfg:
    """A picture of the validation features while training, in <dir>/<method>/<run id>/."""

    enabled: bool = key(False, "draw it after each epoch's validation")
    dir: str = key("auto_umap", "parent folder of the pictures")
    frequency: int = key(1, "epochs between two pictures", ge=1)
    embedding: Literal["umap", "tsne", "pca"] = key("umap", "how features become points")


@dataclass(kw_only=True, frozen=True)
class AutoResumeCfg:
    """Go on with an earlier run of the same configuration."""

    enabled: bool = key(False, "look for one in checkpoint.dir")
    max_hours: float = key(36, "ignore runs that are older", gt=0)


@dataclass(kw_only=True, frozen=True)
class WandbCfg:
    """Where and how a run is logged to Weights & Biases, beside its own files."""

    enabled: bool = key(False, "log there, too")
    entity: str | None = key(None, "team; null: your own")
    project: str = key("solo-learn", "project")
    offline: bool = key(False, "keep the log on this machine")


@dataclass(kw_only=True, frozen=True)
class TensorboardCfg:
    """Whether a run writes event files for TensorBoard, beside its own files."""

    enabled: bool = key(True, "write its files into the run's folder")
