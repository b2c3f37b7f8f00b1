"""Every key of a configuration that trains: its type, its default and what it does, in one sentence each.

A key without a default is `REQUIRED`; `null` means that the value is found out, its sentence says where. `parse` fills
these in, `--cfg resolved` prints the outcome. Images and views are in `data_schema`, each method's own keys in
`solo.methods.catalogue`, the commands that use a trained model in `eval_schema`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from solo.args.data_schema import AugmentationCfg, DataCfg, LinearDataCfg
from solo.args.fields import REQUIRED, Section, derived, idle, key
from solo.hex.catalogue import POLICIES, policy_facts

_Bits = Literal["auto", 16, 32, 64, "16", "32", "64", "bf16"]
_Mixed = Literal["16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true"]
Precision = Literal[_Bits, _Mixed, "transformer-engine", "transformer-engine-float16"]


class TrainerCfg(Section):
    """Keys that go to `lightning.pytorch.Trainer`, typed here so that checking them needs no Lightning.

    What a recipe leaves out stays Lightning's own default. A test compares them with the installed Lightning's.
    """

    precision: Precision | None = key(
        None, "number format of the computation; auto: half precision where device and network gain by it"
    )
    sync_batchnorm: bool = key(False, "share batch statistics among processes")
    gradient_clip_val: int | float | None = key(None, "clip gradients to this norm or value", ge=0)
    gradient_clip_algorithm: Literal["norm", "value"] | None = key(None, "what gradient_clip_val bounds")
    deterministic: bool | Literal["warn"] | None = key(None, "only deterministic algorithms")
    benchmark: bool | None = key(None, "let cuDNN search for the fastest algorithm")
    fast_dev_run: bool | int = key(False, "run this many batches only, to try things out", ge=0)
    min_epochs: int | None = key(None, "train at least so many epochs", ge=0)
    max_steps: int = key(-1, "stop after so many optimizer steps; -1: never", ge=-1)
    min_steps: int | None = key(None, "train at least so many optimizer steps", ge=0)
    max_time: str | dict[str, Any] | None = idle(None, "stop after this time, DD:HH:MM:SS")
    limit_train_batches: int | float | None = key(None, "batches of an epoch: a number, or a share of all", ge=0)
    limit_val_batches: int | float | None = key(None, "the same for validation", ge=0)
    limit_test_batches: int | float | None = key(None, "the same for testing", ge=0)
    limit_predict_batches: int | float | None = key(None, "the same for prediction", ge=0)
    overfit_batches: int | float = key(0.0, "train and validate on these batches only", ge=0)
    val_check_interval: int | float | str | dict[str, Any] | None = key(None, "validate within an epoch, too")
    check_val_every_n_epoch: int | None = key(1, "validate every so many epochs", ge=1)
    num_sanity_val_steps: int | None = idle(None, "validation batches before training starts", ge=-1)
    log_every_n_steps: int | None = idle(None, "steps between two log entries", ge=0)
    enable_progress_bar: bool | None = idle(None, "show a progress bar")
    enable_model_summary: bool | None = idle(None, "print the layers")
    inference_mode: bool = key(True, "validate in torch.inference_mode")
    use_distributed_sampler: bool = key(True, "shard the data among processes")
    reload_dataloaders_every_n_epochs: int = key(0, "make new loaders every so many epochs", ge=0)
    profiler: str | None = idle(None, "simple, advanced, pytorch or xla")
    detect_anomaly: bool = idle(False, "find the operation behind a NaN gradient; slow")
    barebones: bool = key(False, "switch off all that costs time besides training")
    plugins: str | tuple[str, ...] | None = key(None, "Lightning plug-ins by name")
    default_root_dir: str | None = idle(None, "Lightning's own folder")
    enable_autolog_hparams: bool = key(True, "log hyper-parameters by itself")
    model_registry: str | None = key(None, "where Lightning uploads checkpoints")


class OnlineCfg(Section):
    """Vital signs of the embedding while training: rank, LiDAR, alpha-ReQ, uniformity, alignment, spread, threshold."""

    enabled: bool = idle(True, "measure them at the end of an epoch, on the last training batches")
    rows: int = idle(2048, "images that are measured", ge=2)
    every: int = idle(1, "epochs between two measurements; the last epoch is always measured", ge=1)
    alarm: bool = idle(True, "say once when the embedding collapses or the loss stands still, with likely causes")
    stop_on_collapse: bool = key(False, "end the run then")
    replay: bool = idle(True, "a loss that is not finite: find where it began, keep batch and state in replay/")


class PerformanceCfg(Section):
    """What makes training faster or slower and leaves its result as it is."""

    disable_channel_last: bool = key(False, "keep images channel-first in memory")
    compile: Literal["auto"] | bool = idle(
        "auto", "compile the networks (torch.compile); auto: on a GPU, for runs of 5,000 steps and more"
    )
    grad_checkpointing: bool = idle(
        False, "compute the backbone's activations again in the backward pass: less memory, more time"
    )
    ring_loss: bool = idle(
        False,
        "several devices: keys of the contrastive loss pass from one to the next instead of being gathered by all, so "
        "that none holds more than two sets of its own rows; of methods that compare all rows of a batch",
    )
    fused_loss: bool = idle(
        False,
        "GPU: kernels compute the contrastive loss and keep no similarities in memory; of methods whose loss HEX can "
        "replace, and of HEX that weighs or drops relatives",
    )
    profile: bool = idle(False, "write profile.txt and profile.json: where the time of a step goes")


class CheckpointCfg(Section):
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


class AutoUmapCfg(Section):
    """A picture of the validation features while training, in <dir>/<method>/<run id>/."""

    enabled: bool = key(False, "draw it after each epoch's validation")
    dir: str = key("auto_umap", "parent folder of the pictures")
    frequency: int = key(1, "epochs between two pictures", ge=1)
    embedding: Literal["umap", "tsne", "pca"] = key("umap", "how features become points")


class AutoResumeCfg(Section):
    enabled: bool = key(False, "look for one in checkpoint.dir")
    max_hours: float = key(36, "ignore runs that are older", gt=0)


class WandbCfg(Section):
    enabled: bool = key(False, "log there, too")
    entity: str | None = key(None, "team; null: your own")
    project: str = key("solo-learn", "project")
    offline: bool = key(False, "keep the log on this machine")


class TensorboardCfg(Section):
    enabled: bool = key(True, "write its files into the run's folder")


class BackboneCfg(Section):
    name: str = key("resnet18", "architecture")
    kwargs: dict[str, Any] = key({}, "passed to the architecture")


class LinearBackboneCfg(BackboneCfg):
    name: str | None = key(None, "architecture; null: the checkpoint's")  # type: ignore[assignment]


class MomentumCfg(Section):
    base_tau: float = key(0.99, "share of itself that it keeps in each step, at the start", ge=0, le=1)
    final_tau: float = key(1.0, "the same at the end", ge=0, le=1)
    classifier: bool = key(False, "train an online classifier on it, too")


class HexCfg(Section):
    """Hierarchy-aware contrastive loss; these keys may also stand at the top level."""

    policy: str = key(
        "standard",
        "which negatives count as hierarchy negatives, usually written `type: HEX_adaptive`: "
        f"{', '.join(facts.shown for facts in POLICIES.values())}, or a policy of your own as module:name",
    )
    policy_kwargs: dict[str, Any] = key({}, "settings of a policy of your own, and of clusters, fnc, ring")
    positives: Literal["inside", "outside"] = key(
        "inside",
        "several positives of one anchor (of more than two views, or of labels): summed inside the log, as in "
        "solo-learn, or the mean of their logs",
    )
    variant: Literal["reweight", "relative", "release"] = key(
        "reweight",
        "the paper's loss; the same with weights relative to all negatives, so that the set weighs more as a whole; or "
        "what the public release trains",
    )
    quantile: float = key(0.99, "adaptive: threshold within each row of similarities", gt=0, le=1)
    warm_epoch: int | None = key(
        None, "epochs of the plain loss at the start; null: 10, neighbours 1, HCL, DCL, InfoNCE and coarse 0", ge=0
    )
    distance_thresh: float = key(0.9, "fixed: threshold at the start", ge=-1, le=1)
    distance_min: float = key(0.3, "fixed: threshold at the end", ge=-1, le=1)
    step_type: Literal["step", "cos"] = key("step", "fixed: how the threshold goes down")
    epoch_step: int = key(100, "fixed, step: epochs between two steps", ge=1)
    step_down: float = key(0.1, "fixed, step: height of a step", ge=0)
    similarity: Literal["row", "cosine"] = key("row", "fixed: similarities scaled per row to [0, 1], or as they are")
    beta: float = key(1.0, "how much the closest hierarchy negatives weigh more", ge=0)
    tau_plus: float = key(0.1, "expected share of false negatives among them", ge=0, lt=1)
    action: Literal["weigh", "drop", "pull", "keep"] | None = key(
        None,
        "what is done with relatives: weighed among the negatives (beta, tau_plus), dropped from them, pulled, or "
        "nothing; null: the type's own",
    )
    show: Literal["neighbours", "oracle", "shuffled", "random"] | None = key(
        None,
        "whose relatives are shown, whatever the type: the second view of an image is one of a relative, found as by "
        "that type; null: all views are the image's own, with HEX: neighbours",
    )
    show_share: float = key(0.8, "share of the second views that are a relative's", ge=0, le=1)
    denominator: Literal["own", "negatives", "all", "inside"] | None = key(
        None,
        "what a positive is measured against: itself and the negatives, these alone (decoupled), everybody, as in "
        "SupCon, or everybody, and for own views relatives only (class-conditional); null: the type's own",
    )
    share: float | None = key(
        None, "pull: of the target that relatives have; null: 0.5, for coarse labels the same for all", ge=0, le=1
    )
    softness: float | None = key(
        None, "pull: temperature of the softmax that weighs relatives; null: all the same, soft: 0.05", gt=0
    )
    confident: bool = key(False, "pull: a smaller share where these weights are spread evenly (ASCL)")
    kin: Literal["HEX_adaptive", "HEX_fixed", "superclass", "HCL"] | None = key(
        None, "pull, drop: a second type, which finds whom to weigh among the other negatives"
    )
    eye: str = key(
        "hog",
        "neighbours, clusters: what sees who is alike, before the run: hog, pixels, colour, timm/NAME, "
        "torchvision/NAME, a checkpoint, the folder of a run, a file of features, or several that agree, joined by +, "
        "among them levels of the labels; or projection: the one that is trained, anew in each epoch",
    )
    among: int = key(10, "neighbours: nearest images of the training set that count as relatives", ge=1)
    drawn: int = key(4, "neighbours: relatives of an image that are drawn of these in each step", ge=1)
    skip: int = key(0, "neighbours: the nearest ones that are left out", ge=0)
    mix: float = key(0.0, "neighbours: share of the image's own view that is mixed into each", ge=0, le=1)
    mutual: bool = key(False, "neighbours: only those that have the image among theirs, too")
    purity: float = key(1.0, "oracle: share of relatives that have the image's label", ge=0, le=1)
    alpha: float = key(0.1, "share of HEX in methods which add it to their own loss", ge=0, le=1)
    scale: float | None = key(None, "factor of HEX in those methods; null: the method's own", ge=0)
    temperature: float | None = key(None, "temperature of HEX; null: method_kwargs.temperature, else 0.1", gt=0)
    temperature_max: float | None = key(
        None, "HEX's temperature swings from hex.temperature up to this and back (2303.13664)", gt=0
    )
    temperature_period: int = key(100, "epochs from one maximum to the next", ge=1)
    named: bool = key(False, "adaptive, fixed: who shares a known label at hex.level is a hierarchy negative, too")
    level: int | str | None = key(
        None, "superclass, coarse, oracle, named: level of the tree, by name or index; null: coarsest, oracle: finest"
    )

    def warm_up(self) -> int:
        """`warm_epoch`, or what it is where it is null."""
        return policy_facts(self.policy).warm_up if self.warm_epoch is None else self.warm_epoch


class LinearOptimizerCfg(Section):
    name: Literal["sgd", "lars", "adam", "adamw"] = key(REQUIRED, "optimizer", open=True)
    batch_size: int = key(REQUIRED, "images a step, of each process", ge=1)
    lr: float = key(REQUIRED, "learning rate for a global batch of 256; scaled with the global batch", ge=0)
    lr_scaled: bool = key(False, "whether that scaling has been done")
    weight_decay: float = key(0.0, "weight decay", ge=0)
    exclude_bias_n_norm_wd: bool = key(False, "no weight decay for biases and norms")
    layer_decay: float = key(0.0, "factor of the backbone's rate from its last layer to its first; 0: none", ge=0, le=1)
    kwargs: dict[str, Any] = key({}, "passed to the optimizer")


class OptimizerCfg(LinearOptimizerCfg):
    classifier_lr: float | None = key(
        None,
        "learning rate of the online classifier, likewise; null: lr; with solo-learn's data sets scaled only if "
        "data.val_path is set, as it always was",
        ge=0,
    )


class SchedulerCfg(Section):
    name: Literal["warmup_cosine", "step", "none"] = key("warmup_cosine", "how it changes", open=True)
    min_lr: float = key(0.0, "warmup_cosine: at the end; not scaled", ge=0)
    warmup_start_lr: float = key(3e-5, "warmup_cosine: at the start; not scaled", ge=0)
    warmup_epochs: float = key(10, "warmup_cosine: epochs of linear increase", ge=0)
    lr_decay_steps: tuple[int, ...] | None = key(None, "step: epochs at which it is divided by 10", ge=1)
    interval: Literal["step", "epoch"] = key("step", "warmup_cosine: change it after each of these")


class LinearSchedulerCfg(SchedulerCfg):
    name: Literal["warmup_cosine", "step", "none", "reduce", "exponential"] = key(  # type: ignore[assignment]
        "warmup_cosine", "how it changes", open=True
    )
    gamma: float = key(0.95, "exponential: factor of each epoch", gt=0, le=1)


class KnnEvalCfg(Section):
    """Nearest-neighbour accuracy after each epoch: the training views vote on the validation images."""

    enabled: bool = key(False, "measure it after each epoch")
    k: int = key(20, "number of neighbours", ge=1)
    distance_func: Literal["euclidean", "cosine"] = key("euclidean", "how neighbours are found and weighed")


class RunCfg(Section):
    """Keys of every command that trains; Lightning's further ones are accepted beside them."""

    EXTRA: ClassVar[type] = TrainerCfg
    trainer: Mapping[str, Any] = derived()  # those of Lightning's keys that were given

    max_epochs: int = key(REQUIRED, "epochs to train", ge=1)
    accumulate_grad_batches: int = key(1, "batches for one optimizer step; scales lr, adds no negatives", ge=1)
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu", "hpu"] = key("auto", "what to compute on")
    devices: int | str | tuple[int, ...] = key(1, "how many, a list of them, or auto (-1) for all")
    num_nodes: int = key(1, "machines", ge=1)
    strategy: str | None = key(None, "how processes work together, for example ddp; null: Lightning's choice")
    seed: int = key(5, "start of all random numbers", ge=0, le=2**32 - 1)
    performance: PerformanceCfg = key(PerformanceCfg, "speed")
    checkpoint: CheckpointCfg = idle(CheckpointCfg, "files of a run")
    auto_resume: AutoResumeCfg = idle(AutoResumeCfg, "continue by itself")
    resume_from_checkpoint: str | None = idle(None, "continue this checkpoint; goes before auto_resume")
    resume_allow: tuple[str, ...] = idle(
        [], "settings (or sections) that may differ in a resumed run, e.g. [max_epochs]"
    )
    trust: list[str] = key(
        [], "modules outside of solo whose code may run where a file names it; counts on the command line only"
    )
    progress: Literal["rich", "plain", "off"] = idle("rich", "progress bar, a line an epoch, or nothing")
    logger: tuple[Literal["csv", "tensorboard", "wandb", "mlflow", "trackio"], ...] | None = idle(
        None, "where metrics go; csv is always written; null: tensorboard.enabled and wandb.enabled say it"
    )
    tensorboard: TensorboardCfg = idle(TensorboardCfg, "TensorBoard")
    wandb: WandbCfg = idle(WandbCfg, "Weights & Biases")


class PretrainCfg(RunCfg):
    name: str | None = idle(None, "name of the run; null: <method>-<data set>")
    method: str = key(REQUIRED, "self-supervised method")
    accumulate: Literal["plain", "exact"] = key(
        "plain", "accumulate_grad_batches batches: each with a loss of its own, or exact: one loss sees them all"
    )
    method_kwargs: dict[str, Any] = key({}, "the method's own settings")
    backbone: BackboneCfg = key(BackboneCfg, "network")
    finetune_from: str | None = key(
        None, "weights that the backbone starts from: timm/NAME, torchvision/NAME, a file or a run; null: random ones"
    )
    finetune_layers: tuple[str, ...] | None = key(
        None, "layers of it that are trained, the rest stays as it is, BatchNorm too; null: all"
    )
    finetune_lora: int | None = key(
        None, "rank of adapters that are trained in its attention, in place of its weights (LoRA); null: none", ge=1
    )
    verdict: bool = idle(True, "with finetune_from: compare its weights with those of the end")
    momentum: MomentumCfg = key(MomentumCfg, "slow copy")
    hex: HexCfg = key(HexCfg, "hierarchy-aware loss")
    data: DataCfg = key(DataCfg, "images")
    augmentations: tuple[AugmentationCfg, ...] = key(REQUIRED, "how views are made, one entry for each pipeline")
    debug_augmentations: bool = idle(False, "print the pipelines")
    optimizer: OptimizerCfg = key(OptimizerCfg, "optimizer")
    scheduler: SchedulerCfg = key(SchedulerCfg, "learning rate over time")
    knn_eval: KnnEvalCfg = key(KnnEvalCfg, "nearest neighbours")
    online: OnlineCfg = key(OnlineCfg, "vital signs, and who watches them")
    auto_umap: AutoUmapCfg = idle(AutoUmapCfg, "pictures of the embedding")


class LinearCfg(RunCfg):
    name: str | None = idle(None, "name of the run; null: linear-<data set>")
    pretrained_feature_extractor: str = key(
        REQUIRED, "a checkpoint (.ckpt .pth .safetensors ...) or the folder of a run"
    )
    pretrain_method: str | None = key(None, "method that trained it, where the architecture depends on it (ViT)")
    finetune: bool = key(False, "train the backbone, too")
    grid: bool = key(
        False,
        "with data.cache_features: train 24 pairs of learning rate and weight decay at once, and take the best on a "
        "tenth of the training images",
    )
    backbone: LinearBackboneCfg = key(LinearBackboneCfg, "network")
    data: LinearDataCfg = key(LinearDataCfg, "images")
    optimizer: LinearOptimizerCfg = key(LinearOptimizerCfg, "optimizer")
    scheduler: LinearSchedulerCfg = key(LinearSchedulerCfg, "learning rate over time")
    auto_augment: bool = key(False, "finetuning: RandAugment")
    label_smoothing: float = key(0.0, "move this much of each label to the other classes", ge=0, lt=1)
    mixup: float = key(0.0, "strength of mixup; 0: off", ge=0)
    cutmix: float = key(0.0, "strength of cutmix; 0: off", ge=0)
