"""`BaseMethod`: views, multicrop, online classifier and k-NN, optimizer and logging of every method; common heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import DictConfig
from torch import Tensor, nn

from solo.args.schema import PretrainCfg
from solo.backbones import BACKBONES, features_dim, find_backbone
from solo.data.views.batched import VIEW
from solo.errors import ConfigError, UserError
from solo.eval.knn import WeightedKNNClassifier
from solo.hex.objective import Hex, Step
from solo.losses.pairs import unit
from solo.methods import settings
from solo.methods.catalogue import ROWS, path_of
from solo.methods.exact import exact_step
from solo.methods.module import SoloModule
from solo.nn.memory import QueueMixin
from solo.nn.networks import freeze_layers, mlp
from solo.optim import layer_groups

Outputs = dict[str, Any]


@dataclass(frozen=True, eq=False)
class TrainStep(Step):
    """Where training is, and who is in the batch."""

    ids: Tensor  # (B,) sample ids, unique over all processes
    # (B, L) labels at every level of the tree, coarse first, -1 for unknown (or a branch that has ended)
    labels: Tensor
    targets: Tensor  # (B,) classes, -1 for unknown
    groups: Tensor  # (B,) labels at the level of `hex.level`, -1 for unknown


class BaseMethod(SoloModule):
    """A self-supervised method: a backbone, heads on it, and a loss over the views of a batch.

    A new method sets `Kwargs`, `trainable` and `metric`, and writes `build`, `heads` and `ssl_loss`; its class gets a
    `forward`, `training_step`, ... made of them (`_MADE`). The ones here know of none of these, as in solo-learn, whose
    form works as well: override `__init__`, `forward`, `learnable_params` and `training_step`, and call super.

    `cfg` is a config of pretraining, typed as a command has it, or a raw `DictConfig`, whose defaults are filled in, in
    place. The attribute `cfg` is a `DictConfig`, which may be read and extended; `config` is what the library reads.
    The `method_kwargs` are attributes, too, by their names, as in solo-learn.
    """

    config: PretrainCfg

    _BACKBONES: ClassVar[dict[str, Any]] = BACKBONES
    _SECTIONS: ClassVar[tuple[str, ...]] = ("backbone", "optimizer", "scheduler", "knn_eval", "performance", "hex")

    Kwargs: ClassVar[type | None] = None  # schema of method_kwargs; our own methods have that of their row
    trainable: ClassVar[tuple[str, ...]] = ()  # attributes that get a parameter group of their own
    group_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # what differs in one of these, e.g. `lr`
    metric: ClassVar[str] = "train_ssl_loss"  # name under which the loss is logged
    hex_scale: ClassVar[float] = 1.0  # weight of HEX in `hex.blend`

    def __init__(self, cfg: DictConfig | PretrainCfg) -> None:
        raw, config = settings.read_config(self, cfg, PretrainCfg)
        super().__init__(raw, config)
        scale = self.accumulate_grad_batches or 1
        classifier_lr = config.optimizer.classifier_lr
        self.classifier_lr: float = self.lr if classifier_lr is None else classifier_lr * scale
        self.num_large_crops: int = config.data.num_large_crops or 0
        self.num_small_crops: int = config.data.num_small_crops or 0
        self.num_crops = self.num_large_crops + self.num_small_crops
        self.multicrop = self.num_small_crops != 0
        self.backbone_name: str = config.backbone.name
        self.backbone_args = config.backbone.kwargs
        self.base_model = find_backbone(self.backbone_name, self._BACKBONES)
        self.backbone = settings.backbone_of(config, self._BACKBONES)
        layers = config.finetune_layers
        self.frozen_layers = [] if layers is None else freeze_layers(self.backbone, layers)
        self.features_dim = features_dim(self.backbone)
        self.classifier = nn.Linear(self.features_dim, self.num_classes)
        self.knn_eval: bool = config.knn_eval.enabled
        self.knn_k: int = config.knn_eval.k
        if self.knn_eval:
            self.knn = WeightedKNNClassifier(k=self.knn_k, distance_fx=config.knn_eval.distance_func)
        self.exact = config.accumulate == "exact"
        ours = type(self).view_outputs.__module__ in ("solo.methods.base", "solo.methods.momentum")
        if self.exact and not (ours and type(self).training_step is BaseMethod._step_with_loss):
            what = f"accumulate=exact runs the network twice, and method {config.method!r} has a training_step"
            cure = "write its loss as ssl_loss, or use accumulate=plain"
            raise ConfigError(f"{what}, view_outputs or no ssl_loss of its own; {cure}")
        kw = config.method_kwargs
        temperature = kw.get("temperature") if isinstance(kw, Mapping) else getattr(kw, "temperature", None)
        self.hex = Hex(config.hex, temperature, self.hex_scale, config.performance.fused_loss)
        if self.hex.bank is not None:  # a module of its own, so that checkpoints hold it
            self.hex_bank = self.hex.bank
        names, level = self.levels, config.hex.level
        if level not in (None, *names, *range(-len(names), len(names))):
            what = f"hex.level={level!r} is no level of the labels"
            raise UserError(f"{what}; choose one of {', '.join(names)}, or its index")
        self.group_level = names.index(level) if isinstance(level, str) else level or 0
        for name, value in vars(kw).items() if self.Kwargs else ():
            if not hasattr(self, name):
                setattr(self, name, value)
        self.build(kw if self.Kwargs else None)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Where a class declares heads or a loss and writes no step of its own, give it the one that uses them."""
        super().__init_subclass__(**kwargs)
        if own := ROWS.get(path_of(cls)):
            cls.Kwargs = own.kwargs
        base = cls._plain_base()
        for declared, member, made in cls._MADE if cls is not base else ():
            if getattr(cls, declared) != getattr(base, declared) and getattr(cls, member) is getattr(base, member):
                setattr(cls, member, getattr(cls, made))

    @classmethod
    def _plain_base(cls) -> type[BaseMethod]:
        """The nearest class above that knows neither heads nor a loss: `BaseMethod` or `BaseMomentumMethod`."""
        return next(base for base in cls.__mro__ if "_MADE" in vars(base))

    @classmethod
    def add_and_assert_specific_cfg(cls, cfg: DictConfig) -> DictConfig:
        """Write the defaults into a raw cfg, in place, and return it; a `ConfigError` with all that is wrong."""
        settings.complete(cfg, PretrainCfg, cls._SECTIONS, cls.Kwargs)
        return cfg

    # ---- what a method writes ----

    def build(self, kw: Any) -> None:
        """Make modules and constants from the typed `method_kwargs` (None for a class without `Kwargs`)."""

    def heads(self, feats: Tensor) -> Outputs:
        """Outputs beside `logits` and `feats`: features (B, F) -> e.g. `{"z": projections}`."""
        return {}

    def ssl_loss(self, out: Outputs, step: TrainStep) -> Tensor:
        """The method's own loss, of what `forward` returns: each value a list over the views, large ones first."""
        raise NotImplementedError

    # ---- forward ----

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """Parameter groups `backbone` (several with layer_decay) and `classifier`; fresh ones in each access."""
        return [
            *layer_groups(self.backbone, self.lr, self.weight_decay, self.config.optimizer.layer_decay),
            {"name": "classifier", "params": self.classifier.parameters(), "lr": self.classifier_lr, "weight_decay": 0},
        ]

    def forward(self, X: Tensor) -> Outputs:
        """Images (B, C, H, W) -> `logits` (B, classes) and `feats` (B, F)."""
        feats = self.backbone(self.in_memory_format(X))
        return {"logits": self.classifier(feats.detach()), "feats": feats}

    def multicrop_forward(self, X: Tensor) -> Outputs:
        """Small crops (B, C, h, w) -> `feats` (B, F)."""
        return {"feats": self.backbone(self.in_memory_format(X))}

    def _base_shared_step(self, X: Tensor, targets: Tensor) -> Outputs:
        out = self(X)
        return {**out, **self.classification_metrics(out["logits"], targets)}

    def base_training_step(self, X: Tensor, targets: Tensor) -> Outputs:
        """`forward` of one large view with the online classifier's `loss`, `acc1` and `acc5`."""
        return self._base_shared_step(X, targets)

    base_validation_step = base_training_step  # of validation images

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """One batch `[ids (B,), [view_1, ...], targets (B,) or (B, L)]` -> the outputs of `view_outputs`."""
        return BaseMethod.view_outputs(self, batch)

    # ---- the same with heads and a loss ----

    @property
    def _params_with_heads(self) -> list[dict[str, Any]]:
        found = vars(self._plain_base())["learnable_params"].fget(self)
        place = 1 + [group["name"] for group in found].index("classifier")
        heads = [(name, self.group_options.get(name, {})) for name in self.trainable]
        groups = [{"name": name, "params": getattr(self, name).parameters(), **own} for name, own in heads]
        return [*found[:place], *groups, *found[place:]]

    def _forward_with_heads(self, X: Tensor) -> Outputs:
        out = BaseMethod.forward(self, X)
        return {**out, **self.heads(out["feats"])}

    def _multicrop_with_heads(self, X: Tensor) -> Outputs:
        out = BaseMethod.multicrop_forward(self, X)
        return {**out, **self.heads(out["feats"])}

    def _step_with_loss(self, batch: Any, batch_idx: int) -> Tensor:
        if self.exact and len(batch[0]) > self.batch_size:
            return exact_step(self, batch, BaseMethod.view_outputs)
        return self.total_loss(self.view_outputs(batch), batch)

    # (what a class declares, the method that it doesn't write itself, what that is then)
    _MADE: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("trainable", "learnable_params", "_params_with_heads"),
        ("heads", "forward", "_forward_with_heads"),
        ("heads", "multicrop_forward", "_multicrop_with_heads"),
        ("ssl_loss", "training_step", "_step_with_loss"),
    )

    # ---- training ----

    def total_loss(self, out: Outputs, batch: Any) -> Tensor:
        """The method's loss and the classifier's, of the outputs of a batch; logs the former."""
        loss = self.ssl_loss(out, self.step_of(batch))
        self.require_finite({self.metric: loss, "train_class_loss": out["loss"]})
        self.log_metrics({self.metric: loss})
        hidden = ("superclass_share",) if self.config.data.no_labels else ()
        seen = {name: value for name, value in self.hex.seen.items() if name not in hidden}
        for stats in (seen, self.hex.found | self.hex.whom):
            self.log_metrics({f"hex/{name}": value for name, value in stats.items()}, on_step=False)
        return loss + out["loss"]  # type: ignore[no-any-return]

    def view_outputs(self, batch: Any) -> Outputs:
        """Outputs of all views: lists over the views, but `loss`, `acc1`, `acc5` means over the `own_views`.

        Small views are appended to the keys that `multicrop_forward` has.
        """
        _, X, targets = batch
        X = [X] if isinstance(X, Tensor) else X
        assert len(X) == self.num_crops, f"the batch has {len(X)} views, the config says {self.num_crops}"
        own = self.own_views
        large = [self.base_training_step(x, targets) for x in X[: self.num_large_crops]]
        out: Outputs = {key: [view[key] for view in large] for key in large[0]}
        for small in (self.multicrop_forward(x) for x in X[self.num_large_crops :]):
            for key, value in small.items():
                out.setdefault(key, []).append(value)
        for key in ("loss", "acc1", "acc5"):
            out[key] = sum(out[key][view] for view in own) / len(own)
        self.keep_views(out, targets)
        if not self.config.data.no_labels:
            self.log_classification(out)
        if self.knn_eval and not self.config.data.no_labels:  # its bank leaves rows without a class out
            labels = self.knn_labels(targets)
            for view in own:
                self.knn(train_features=out["feats"][view].detach().clone(), train_targets=labels)
        return out

    def keep_views(self, out: Outputs, targets: Tensor) -> None:
        """Let callbacks see the large views of this step: references, detached, until the next one."""
        labels = self.label_paths(targets)
        self.last_views: dict[str, Any] = {"labels": labels, "groups": labels[:, self.group_level]}
        for name, key in {"features": "feats", "projection": "z"}.items():
            if key in out:
                self.last_views[name] = [view.detach() for view in out[key][: self.num_large_crops]]

    def step_of(self, batch: Any) -> TrainStep:
        """Where training is and who is in a batch: what `ssl_loss` is told beside the outputs."""
        ids, _, targets = batch
        labels, when = self.label_paths(targets), (self.current_epoch, self.max_epochs)
        index = self.trainer.fit_loop.batch_idx if self.attached else None
        return TrainStep(*when, ids, labels, self.leaf_labels(targets), labels[:, self.group_level], index=index)

    # ---- online evaluation ----

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The k-NN's bank never holds views of more than one epoch, also where not every epoch is validated."""
        if self.knn_eval and batch_idx == 0:
            self.knn.reset()

    @property
    def own_views(self) -> list[int]:
        """Numbers of the large views that are certain to show the image itself, and so have its label."""
        return [view for view in range(self.num_large_crops) if self.hex.show is None or view != VIEW]

    def validation_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int | None = None, update_validation_step_outputs: bool = True
    ) -> dict[str, Any]:
        """One batch `(images, targets)` through the online classifier and into the k-NN's test set."""
        X, targets = batch
        out = self.base_validation_step(X, targets)
        if self.knn_eval and not (self.attached and self.trainer.sanity_checking):
            self.knn(test_features=out["feats"].detach(), test_targets=self.knn_labels(targets))
        metrics = {**self.validation_record(out, targets), **self.slow_record(X, targets)}
        if update_validation_step_outputs:
            self.validation_step_outputs.append(metrics)
        return metrics

    def slow_record(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        """What a slow copy adds to the record of a batch."""
        return {}

    def on_validation_epoch_end(self) -> None:
        """Log the means over all validation rows, and the k-NN's accuracies."""
        super().on_validation_epoch_end()
        if not self.knn_eval or (self.attached and self.trainer.sanity_checking):
            return
        acc1, acc5 = self.knn.compute()
        if not self.knn.level_accuracies:  # no labelled image was seen
            return
        metrics = {"val_knn_acc1": acc1, "val_knn_acc5": acc5}
        if len(self.levels) > 1:
            accuracies = zip(self.levels, self.knn.level_accuracies, strict=False)
            metrics |= {f"val_knn_acc1/{level}": accuracy for level, (accuracy, _) in accuracies}
        self.log_metrics(metrics)


class MlpHeads:
    """Mixin of the methods whose outputs are projections `z` and, where they train a predictor, predictions `p`."""

    trainable: ClassVar[tuple[str, ...]] = ("projector",)
    projector_form: ClassVar[dict[str, Any]] = {}  # options of `mlp`
    predictor_form: ClassVar[dict[str, Any]] = {}
    unit_outputs: ClassVar[bool] = False  # z has length 1; p is of z as it was
    features_dim: int
    projector: Any
    predictor: Any

    def build(self, kw: Any) -> None:
        width = kw.proj_output_dim
        self.projector = mlp(self.features_dim, kw.proj_hidden_dim, width, **self.projector_form)
        if "predictor" in self.trainable:
            self.predictor = mlp(width, kw.pred_hidden_dim, width, **self.predictor_form)

    def heads(self, feats: Tensor) -> Outputs:
        """Add `z`, the projections, and `p`, the predictions, both (B, proj_output_dim)."""
        z = self.projector(feats)
        out = {"z": unit(z) if self.unit_outputs else z}
        return {**out, "p": self.predictor(z)} if "predictor" in self.trainable else out


class QueueHeads(MlpHeads, QueueMixin):
    """Mixin of those that have a queue of projections and labels, too."""

    queue_form: ClassVar[dict[str, Any]] = {}  # options of `make_queue`

    def build(self, kw: Any) -> None:
        super().build(kw)
        self.make_queue(kw.queue_size, kw.proj_output_dim, **self.queue_form)

    def find_nn(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Place (B,) and row (B, D) of the nearest neighbour of each projection (B, D)."""
        places = self.nearest(z)[:, 0]
        return places, self.queue[places]
