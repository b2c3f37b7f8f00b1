"""What pretraining and evaluation have in common: optimizer, schedule, labels and accuracies, logging, the checkpoint.

The numbers of training steps are summed on their device, handed on once an epoch, and looked at before they do harm: no
step waits for a device or for another process to log something.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from solo import distributed, optim
from solo.args.config import to_plain
from solo.args.schema import LinearCfg, LinearSchedulerCfg, PretrainCfg
from solo.checkpoint import FORMAT
from solo.errors import NonFiniteError
from solo.eval.predictions import accuracy_at_k, mean_over_processes
from solo.methods.settings import data_facts
from solo.nn.networks import IterNorm
from solo.precision import at_least_float32


class SoloModule(pl.LightningModule):
    """A LightningModule with a config, a classifier and label levels; see `BaseMethod` and `LinearModel`."""

    _OPTIMIZERS: ClassVar[dict[str, type[Optimizer]]] = optim.OPTIMIZERS
    _SCHEDULERS: ClassVar[list[str]] = ["reduce", "warmup_cosine", "step", "exponential", "none"]
    _SCHEDULER_CHOICES: ClassVar[tuple[str, ...]] = ("warmup_cosine", "step")

    _leaf_paths: Tensor

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Modules, buffers and settings, of whatever type they are."""

    def __init__(self, cfg: DictConfig, config: PretrainCfg | LinearCfg) -> None:
        super().__init__()
        self.cfg = cfg
        self.config = config
        self.max_epochs: int = config.max_epochs
        self.accumulate_grad_batches: int = config.accumulate_grad_batches
        # One optimizer step sees this many batches, so it may be larger.
        scale = self.accumulate_grad_batches or 1
        optimizer, scheduler = config.optimizer, config.scheduler
        self.optimizer: str = optimizer.name
        self.batch_size: int = optimizer.batch_size
        self.lr: float = optimizer.lr * scale
        self.weight_decay: float = optimizer.weight_decay
        self.extra_optimizer_args: dict[str, Any] = dict(optimizer.kwargs)
        self.exclude_bias_n_norm_wd: bool = optimizer.exclude_bias_n_norm_wd
        self.scheduler: str = scheduler.name
        self.lr_decay_steps: Sequence[int] | None = scheduler.lr_decay_steps
        self.min_lr: float = scheduler.min_lr * scale
        self.warmup_start_lr: float = scheduler.warmup_start_lr * scale
        self.warmup_epochs: float = scheduler.warmup_epochs
        self.scheduler_interval: str = scheduler.interval
        self.scheduler_gamma = scheduler.gamma if isinstance(scheduler, LinearSchedulerCfg) else 1.0
        self.no_channel_last: bool = config.performance.disable_channel_last
        self.validation_step_outputs: list[dict[str, Any]] = []
        self.num_classes: int = config.data.num_classes or 0
        self._static_groups: list[int] = []
        self.classifier_loss: Tensor | None = None  # the online classifiers' part of the last step's loss
        self._counted: tuple[Tensor, int, Tensor] | None = None  # targets of a batch, their version, labelled rows
        self.all_labelled = False  # no row of the training data lacks a label: they needn't be counted in each step
        self.exact = False  # one loss over all accumulated batches
        self.frozen_layers: list[nn.Module] = []  # stay in eval mode
        self.silent = False  # log nothing
        # What steps log, by names: sums (n,), of how many (or (n,), of each), whether steps are logged, too.
        self._sums: dict[tuple[str, ...], tuple[Tensor, Tensor | int, bool]] = {}
        self._unread: list[tuple[list[str], Tensor, Any]] = []  # names, values on their way here, when they are here
        tree = config.data.resolved.taxonomy if config.data.resolved else None
        # The label tree for coarse labels and accuracies; None: the classes only.
        self.taxonomy = tree if tree and tree.num_classes == self.num_classes else None
        paths = self.taxonomy.path_table() if self.taxonomy else [(leaf,) for leaf in range(self.num_classes)]
        self._is_ragged = bool(self.taxonomy and self.taxonomy.is_ragged)
        self.register_buffer("_leaf_paths", torch.tensor(paths), persistent=False)  # (C, L)

    def train(self, mode: bool = True) -> "SoloModule":
        """As in torch, but frozen layers stay in eval mode."""
        super().train(mode)
        for layer in self.frozen_layers:
            layer.eval()
        return self

    # ---- labels ----

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the label levels, coarse first; one unnamed level without a taxonomy."""
        return self.taxonomy.levels if self.taxonomy else ("class",)

    def label_paths(self, targets: Tensor) -> Tensor:
        """Labels at every level, coarse first: (B,) leaf labels or (B, L) -> (B, L); -1 is unknown."""
        if targets.ndim == 2:
            return targets
        paths = self._leaf_paths.to(targets.device)[targets.clamp(min=0)]
        return paths.masked_fill(targets[:, None] < 0, -1)

    def leaf_labels(self, targets: Tensor) -> Tensor:
        """Classes: (B,) or labels at every level (B, L) -> (B,); -1 is unknown."""
        if targets.ndim == 1:
            return targets
        if not self._is_ragged:
            return targets[:, -1]
        same = (targets[:, None] == self._leaf_paths.to(targets.device)).all(dim=2)  # (B, C)
        return torch.where(same.any(dim=1), same.float().argmax(dim=1), -1)

    def knn_labels(self, targets: Tensor) -> Tensor:
        """Labels at every level, the class last: (B, L) where all classes end at the finest level, else (B, L + 1)."""
        labels = self.label_paths(targets)
        return torch.cat([labels, self.leaf_labels(targets)[:, None]], dim=1) if self._is_ragged else labels

    def classification_metrics(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`loss` (0 if nothing is labelled), `acc1` and `acc5` in percent, at the finest level, of logits (B, C).

        Targets are (B,) or (B, L); -1 is unknown. In training the means over processes are those of the whole batch.
        """
        labels = self.leaf_labels(targets)
        # In training DDP averages over processes, which may have differently many labels; validation sums at its end.
        labelled = self.labelled(targets) if self.training else (labels >= 0).sum().clamp(min=1)
        total = F.cross_entropy(at_least_float32(logits), labels, ignore_index=-1, reduction="sum")
        acc1, acc5 = accuracy_at_k(logits, labels, top_k=(1, 5), labelled=labelled)
        return {"loss": total / labelled, "acc1": acc1, "acc5": acc5}

    def labelled(self, targets: Tensor) -> Tensor:
        """How many rows of a batch have a class, `per_process`; asked for once for all views of a batch."""
        if self.all_labelled:
            return torch.full((), float(len(targets)), device=targets.device)
        if self._counted is None or self._counted[0] is not targets or self._counted[1] != targets._version:
            count = (self.leaf_labels(targets) >= 0).sum()
            self._counted = (targets, targets._version, distributed.per_process(count))
        return self._counted[2]

    def mean_metrics(self, logits: Sequence[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """`classification_metrics` of several views (B, C), their means."""
        views = [self.classification_metrics(view, targets) for view in logits]
        return {key: torch.stack([view[key] for view in views]).mean(dim=0) for key in views[0]}

    def log_classification(self, metrics: Mapping[str, Any], which: str = "") -> None:
        """Log `loss`, `acc1` and `acc5` of a training batch, e.g. as `train_class_loss`, `train_momentum_acc1`."""
        if not self.silent:
            before = self.classifier_loss if which and self.classifier_loss is not None else 0
            self.classifier_loss = metrics["loss"].detach() + before
        names = {"class_loss": "loss", "acc1": "acc1", "acc5": "acc5"}
        self.log_metrics({f"train_{which}{name}": metrics[key] for name, key in names.items()})

    def validation_record(self, out: Mapping[str, Tensor], targets: Tensor) -> dict[str, Any]:
        """Loss and accuracies of a batch, and of a tree's levels, and their labelled rows as `batch_size[/<name>]`.

        A coarse class has the probability of its leaves together. A level counts the rows that have a label there and a
        known class; a class that ends above it stands for itself.
        """
        known = self.leaf_labels(targets) >= 0
        record = {"batch_size": known.sum(), **{f"val_{key}": out[key] for key in ("loss", "acc1", "acc5")}}
        if len(self.levels) == 1:
            return record
        truth = self.label_paths(targets).masked_fill(~known[:, None], -1)  # (B, L)
        probabilities = out["logits"].float().softmax(dim=1)
        for level, labels, parents in zip(self.levels, truth.T, self._leaf_paths.T, strict=True):
            own = int(parents.max()) + 1 + torch.arange(len(parents), device=parents.device)
            places = torch.where(parents >= 0, parents, own)
            coarse = probabilities.new_zeros(len(labels), int(places.max()) + 1).index_add_(1, places, probabilities)
            record[f"val_acc1/{level}"] = accuracy_at_k(coarse, labels, top_k=(1,))[0]
            record[f"batch_size/val_acc1/{level}"] = (labels >= 0).sum()
        return record

    def on_validation_start(self) -> None:
        """Give all processes the running statistics of the first, whose checkpoint is kept; other buffers are equal."""
        norms = [part for part in self.modules() if isinstance(part, (_BatchNorm, IterNorm))]
        with torch.no_grad():
            for values in (value for norm in norms for value in norm.buffers(recurse=False)):
                values.copy_(distributed.of_first(values))

    def on_validation_epoch_end(self) -> None:
        """Log the means over all validation rows of all processes."""
        outputs = self.validation_step_outputs
        if outputs:
            keys = [key for key in outputs[0] if not key.startswith("batch_size")]
            sizes = {key: f"batch_size/{key}" if f"batch_size/{key}" in outputs[0] else "batch_size" for key in keys}
            self.log_metrics({key: mean_over_processes(outputs, key, size) for key, size in sizes.items()})
        self.validation_step_outputs.clear()

    # ---- optimization ----

    def configure_optimizers(self) -> Any:
        """The optimizer alone (`scheduler: none`), else `([optimizer], [scheduler])`; works without a trainer."""
        groups = self.learnable_params
        if self.exclude_bias_n_norm_wd:
            groups = optim.remove_bias_and_norm_from_weight_decay(groups)
        self._static_groups = [i for i, group in enumerate(groups) if group.pop("static_lr", False)]
        optimizer = optim.build_optimizer(self, groups)
        if self.scheduler == "none":
            return optimizer
        steps = self.trainer.estimated_stepping_batches if self.attached else None
        scheduler = optim.build_scheduler(self, optimizer, steps, self._SCHEDULER_CHOICES)
        if isinstance(scheduler, ReduceLROnPlateau) and self.attached and self.trainer.state.status == "running":
            scheduler = {"scheduler": scheduler, "monitor": "val_loss"}  # Lightning needs to be told what to watch
        return [optimizer], [scheduler]

    def keep_own_settings(self, fresh: list[dict[str, Any]]) -> None:
        """Let a resumed run follow its own settings where they differ from the stored ones; else nothing changes.

        `fresh` are the parameter groups' settings as they were before the checkpoint was loaded.
        """
        groups = self.trainer.optimizers[0].param_groups
        for group, new in zip(groups, fresh, strict=True):
            old_base, base = (float(part.get("initial_lr", part["lr"])) for part in (group, new))
            if base != old_base:
                group["lr"] = group["lr"] * (base / old_base) if old_base else base
            own = ("lr", "fused", "foreach")  # how it computes follows from where its state lies
            group.update({key: value for key, value in new.items() if key not in own})
        for scheduler in (config.scheduler for config in self.trainer.lr_scheduler_configs):
            if isinstance(scheduler, optim.PureLR):
                for index, (group, rate) in enumerate(zip(groups, scheduler.get_lr(), strict=True)):
                    if index not in self._static_groups:
                        group["lr"] = rate

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step; then groups with `static_lr` get the base rate (here: a checkpoint must not store a function)."""
        super().lr_scheduler_step(scheduler, metric)
        for index in self._static_groups:
            scheduler.optimizer.param_groups[index]["lr"] = self.lr

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Drop the gradients instead of filling them with zeros; `accumulate=exact` has some already."""
        if not self.exact:
            optimizer.zero_grad(set_to_none=True)

    # ---- logging ----

    @property
    def attached(self) -> bool:
        """Whether a trainer runs this module; without one, steps work but nothing is logged."""
        return self._trainer is not None

    def log_metrics(self, metrics: Mapping[str, Any], **kwargs: Any) -> None:
        """Log the mean over the epoch and over all processes; does nothing without a trainer.

        A step of training adds to sums on its device, which are handed on once an epoch; every `log_every_n_steps` its
        own values, of this process, are logged as `<name>_step`, unless `on_step=False`. A value may be a sum and of
        how many, (2,), where these are not the same in every step and process.
        """
        if not self.attached or self.silent or not metrics:
            return
        if not self.trainer.training:
            self.log_dict(dict(metrics), on_epoch=True, sync_dist=True, **kwargs)
            return
        names = tuple(metrics)
        values = (
            value.to(self.device) if isinstance(value, Tensor) else torch.full((), float(value), device=self.device)
            for value in metrics.values()
        )
        ratios = [value.detach().float().reshape(-1) for value in values]
        sums, numbers = torch.stack([ratio[0] for ratio in ratios]), torch.ones((), dtype=torch.long)
        if any(len(ratio) > 1 for ratio in ratios):
            numbers = torch.stack([ratio[1] if len(ratio) > 1 else torch.ones_like(ratio[0]) for ratio in ratios])
        stepped = kwargs.get("on_step", True)
        before, others, _ = self._sums.get(names, (0, 0, False))
        self._sums[names] = (sums + before, numbers + others, stepped)
        if stepped and self.trainer._logger_connector.should_update_logs:
            self.log_dict({f"{name}_step": value for name, value in zip(names, sums, strict=True)}, on_epoch=False)

    def hand_on(self) -> None:
        """Give the means of the epoch to Lightning: by one collective, before whoever reads them at its end."""
        if not self._sums:
            return
        sums, self._sums = self._sums, {}
        both = [torch.stack([total, torch.zeros_like(total) + numbers]) for total, numbers, _ in sums.values()]
        total, numbers = distributed.all_reduce_sum(torch.cat(both, dim=1))
        found = iter(total / numbers.clamp_min(1))
        for names, (_, _, stepped) in sums.items():
            mean = {name: next(found) for name in names}
            self.log_dict(mean, on_step=False, on_epoch=True, logger=False if stepped else None)
            if stepped:  # loggers know it by this name, beside that of the steps
                self.log_dict({f"{name}_epoch": value for name, value in mean.items()}, on_step=False, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        self.hand_on()  # if no callback has asked for it

    def process_state(self) -> dict[str, Any]:
        return {"sums": [[list(names), *held] for names, held in self._sums.items()]}

    def load_process_state(self, state: dict[str, Any]) -> None:
        self._sums = {tuple(names): (sums, steps, stepped) for names, sums, steps, stepped in state.get("sums", [])}

    def require_finite(self, terms: Mapping[str, Tensor]) -> None:
        """Raise a `NonFiniteError` before such a loss reaches the weights: on a CPU at once, else after `backward`."""
        values = torch.stack([value.detach().float().reshape(()) for value in terms.values()])
        event = torch.Event(values.device) if waits_for(values) and self.attached else None
        self._unread.append((list(terms), values if event is None else values.to("cpu", non_blocking=True), event))
        if event is None:
            self.read_terms()
        else:
            event.record()

    def read_terms(self) -> None:
        """Look at the terms that were copied from a device: after `backward` was launched, so that it doesn't idle."""
        unread, self._unread = self._unread, []
        for names, values, event in unread:
            if event is not None:
                event.synchronize()
            found = dict(zip(names, values.tolist(), strict=True))
            if not all(map(math.isfinite, found.values())):
                where = f"the loss is not finite in epoch {self.current_epoch}, step {self.global_step}"
                what = ", ".join(f"{name}={value}" for name, value in found.items())
                cure = "try a smaller optimizer.lr or a longer warm-up, a higher temperature, or precision=32 or"
                raise NonFiniteError(f"{where}: {what}; {cure} bf16-mixed instead of 16-mixed", found)

    def on_after_backward(self) -> None:
        self.read_terms()  # before the optimizer's step

    # ---- the rest ----

    def in_memory_format(self, X: Tensor) -> Tensor:
        """Images (B, C, H, W) in the memory format of `performance.disable_channel_last`."""
        return X if self.no_channel_last or X.ndim != 4 else X.to(memory_format=torch.channels_last)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the config and the data's facts, in plain types, so that weights-only loading works."""
        facts = data_facts(self.config, self.taxonomy)
        checkpoint["solo"] = {"format": FORMAT, "cfg": to_plain(self.cfg), "data": facts}


def waits_for(x: Tensor) -> bool:
    """Whether who reads a value of x waits until a device has done all that was asked of it."""
    return x.device.type == "cuda"
