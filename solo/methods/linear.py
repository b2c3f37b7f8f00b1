"""`LinearModel`: a linear classifier on a frozen backbone, or finetuning of both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig, open_dict
from torch import Tensor, nn

from solo.args.schema import LinearCfg
from solo.backbones import features_dim
from solo.losses.targets import cross_entropy_loss_func
from solo.methods import settings
from solo.methods.module import SoloModule
from solo.optim import layer_groups


class LinearModel(SoloModule):
    """A linear classifier on a backbone, which is frozen and in eval mode (BatchNorm too) unless `finetune`.

    Args:
        backbone: images -> features; has `inplanes` or `num_features`.
        cfg: config of evaluation, as in `BaseMethod`.
        loss_func: (logits, targets) -> scalar, for training; default cross entropy, smoothed by `label_smoothing`.
        mixup_func: (images, targets) -> mixed images and soft targets (B, C), for training.
    """

    _SCHEDULER_CHOICES: ClassVar[tuple[str, ...]] = ("warmup_cosine", "step", "reduce", "exponential")

    def __init__(
        self,
        backbone: nn.Module,
        cfg: DictConfig | LinearCfg,
        loss_func: Callable[[Tensor, Tensor], Tensor] | None = None,
        mixup_func: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        raw, config = settings.read_config(self, cfg, LinearCfg)
        super().__init__(raw, config)
        self.backbone = backbone
        self.finetune: bool = config.finetune
        self.layer_decay: float = config.optimizer.layer_decay
        self.mixup_func = mixup_func
        # Mixed targets are soft already; timm's Mixup smooths them itself.
        smoothing = 0.0 if mixup_func else config.label_smoothing
        self.loss_func = loss_func or partial(cross_entropy_loss_func, label_smoothing=smoothing)
        self.classifier = nn.Linear(features_dim(backbone), self.num_classes)
        if not self.finetune:
            self.frozen_layers = [backbone.requires_grad_(False).eval()]

    @classmethod
    def add_and_assert_specific_cfg(cls, cfg: DictConfig) -> DictConfig:
        """The same as in `BaseMethod`."""
        settings.complete(cfg, LinearCfg, ("backbone", "optimizer", "scheduler", "performance"))
        with open_dict(cfg):
            cfg.finetune = bool(cfg.get("finetune"))
        return cfg

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """The groups: `classifier`, when finetuning after `backbone`, or after one group for each layer's rate."""
        classifier = {"name": "classifier", "params": self.classifier.parameters()}
        if not self.finetune:
            return [classifier]
        return [*layer_groups(self.backbone, self.lr, self.weight_decay, self.layer_decay), classifier]

    def forward(self, X: Tensor) -> dict[str, Tensor]:
        """Images (B, C, H, W), or features (B, F) computed before -> `logits` (B, classes), `feats` (B, F)."""
        if X.ndim == 2:
            feats = X
        else:
            with torch.set_grad_enabled(self.finetune and torch.is_grad_enabled()):
                feats = self.backbone(self.in_memory_format(X))
        return {"logits": self.classifier(feats), "feats": feats}

    def shared_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One batch `(images, targets)` -> `batch_size`, `logits`, `loss` and, without mixup, `acc1` and `acc5`."""
        X, targets = batch
        labels, mixup = self.leaf_labels(targets), self.mixup_func if self.training else None
        if mixup is not None:
            X, labels = mixup(X, labels)
        out = {"batch_size": len(X), "logits": self(X)["logits"]}
        if mixup is None:
            out |= self.classification_metrics(out["logits"], targets)
        if self.training:
            out["loss"] = self.loss_func(out["logits"], labels)
        return out

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        out = self.shared_step(batch, batch_idx)
        self.require_finite({"train_loss": out["loss"]})
        self.log_metrics({f"train_{key}": out[key] for key in ("loss", "acc1", "acc5") if key in out})
        return out["loss"]  # type: ignore[no-any-return]

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int | None = None) -> dict[str, Any]:
        metrics = self.validation_record(self.shared_step(batch, batch_idx), batch[1])
        self.validation_step_outputs.append(metrics)
        return metrics
