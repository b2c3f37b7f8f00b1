"""`BaseMomentumMethod`: a method with a slow copy of its network."""

import copy
from typing import Any, ClassVar

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from solo.args.schema import PretrainCfg
from solo.losses.pairs import unit
from solo.methods import settings
from solo.methods.base import BaseMethod, Outputs
from solo.nn.networks import MomentumUpdater, initialize_momentum_params
from solo.nn.vit import PatchTokens


class BaseMomentumMethod(BaseMethod):
    """Adds `momentum_backbone`, copies of the heads named in `averaged`, and their update after each optimizer step."""

    _SECTIONS = (*BaseMethod._SECTIONS, "momentum")
    averaged: ClassVar[tuple[str, ...]] = ()  # heads `x` that get a copy `momentum_x`
    unit_targets: ClassVar[bool] = False  # the slow projections have length 1
    patch_targets: ClassVar[bool] = False  # slow outputs have `patches` (B, L, D) of the backbone, which sees all
    has_teacher = True  # `build` may say that there is no slow copy with its settings

    def __init__(self, cfg: DictConfig | PretrainCfg) -> None:
        super().__init__(cfg)
        slow = self.config.momentum
        self.momentum_classifier: nn.Linear | None = None
        if self.has_teacher:
            self.momentum_backbone = settings.backbone_of(self.config, self._BACKBONES)
            initialize_momentum_params(self.backbone, self.momentum_backbone)
            if self.patch_targets:
                self._slow_tokens = PatchTokens(self.momentum_backbone, self.backbone_name)
            for name in self.averaged:
                setattr(self, f"momentum_{name}", copy.deepcopy(getattr(self, name)).requires_grad_(False))
            if slow.classifier:
                self.momentum_classifier = nn.Linear(self.features_dim, self.num_classes)
        self.momentum_updater = MomentumUpdater(slow.base_tau, slow.final_tau)
        self.last_step = 0

    @property
    def learnable_params(self) -> list[dict[str, Any]]:
        """Adds `momentum_classifier`, if there is one."""
        groups = super().learnable_params
        if self.momentum_classifier is not None:
            own = {"name": "momentum_classifier", "params": self.momentum_classifier.parameters()}
            groups.append({**own, "lr": self.classifier_lr, "weight_decay": 0})
        return groups

    @property
    def momentum_pairs(self) -> list[tuple[Any, Any]]:
        """(online, momentum) modules: the backbones."""
        return [(self.backbone, self.momentum_backbone)]

    def momentum_heads(self, feats: Tensor) -> Outputs:
        """Outputs beside `feats` of momentum features (B, F); by default `z`, of the slow copy of the first head."""
        if not self.averaged:
            return {}
        z = getattr(self, f"momentum_{self.averaged[0]}")(feats)
        return {"z": unit(z) if self.unit_targets else z}

    @torch.no_grad()
    def momentum_forward(self, X: Tensor) -> Outputs:
        """Images (B, C, H, W) -> `feats` (B, F) of the momentum backbone."""
        return {"feats": self.momentum_backbone(self.in_memory_format(X))}

    @property
    def _pairs_with_heads(self) -> list[tuple[Any, Any]]:
        if not self.has_teacher:
            return []
        heads = [(getattr(self, name), getattr(self, f"momentum_{name}")) for name in self.averaged]
        return [(self.backbone, self.momentum_backbone), *heads]

    @torch.no_grad()
    def _momentum_with_heads(self, X: Tensor) -> Outputs:
        out = BaseMomentumMethod.momentum_forward(self, X)
        if self.patch_targets:
            out["patches"] = self._slow_tokens.take()
        return {**out, **self.momentum_heads(out["feats"])}

    _MADE: ClassVar[tuple[tuple[str, str, str], ...]] = (
        *BaseMethod._MADE,
        ("averaged", "momentum_pairs", "_pairs_with_heads"),
        ("averaged", "momentum_forward", "_momentum_with_heads"),
        ("momentum_heads", "momentum_forward", "_momentum_with_heads"),
        ("patch_targets", "momentum_forward", "_momentum_with_heads"),
    )

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return BaseMomentumMethod.view_outputs(self, batch)

    def _shared_step_momentum(self, X: Tensor, targets: Tensor) -> Outputs:
        out = self.momentum_forward(X)
        if self.momentum_classifier is not None:
            out["logits"] = self.momentum_classifier(out["feats"])
            out |= self.classification_metrics(out["logits"], targets)
        return out

    def view_outputs(self, batch: Any) -> Outputs:
        """Adds `momentum_<key>`, lists over the large views; the momentum classifier's loss is added to `loss`."""
        out = super().view_outputs(batch)
        if not self.has_teacher:
            return out
        _, X, targets = batch
        large = [X] if isinstance(X, Tensor) else X[: self.num_large_crops]
        views = [self._shared_step_momentum(x, targets) for x in large]
        out |= {f"momentum_{key}": [view[key] for view in views] for key in views[0]}
        if self.momentum_classifier is not None:
            own = self.own_views
            means = {key: sum(views[view][key] for view in own) / len(own) for key in ("loss", "acc1", "acc5")}
            self.log_classification(means, "momentum_")
            out |= {f"momentum_{key}": value for key, value in means.items()}
            out["loss"] = out["loss"] + means["loss"]
        return out

    def on_train_start(self) -> None:
        self.last_step = self.trainer.global_step  # 0, or where a resumed run is

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the momentum network once for each optimizer step."""
        step = self.trainer.global_step
        if step > self.last_step and self.has_teacher:
            total = int(self.trainer.estimated_stepping_batches)
            self.momentum_updater.update_tau(step - 1, total)
            for online, momentum in self.momentum_pairs:
                self.momentum_updater.update(online, momentum)
            self.log("tau", self.momentum_updater.cur_tau)
            self.momentum_updater.update_tau(step, total)
        self.last_step = step

    def slow_record(self, X: Tensor, targets: Tensor) -> dict[str, Any]:
        if self.momentum_classifier is None:
            return {}
        out = self._shared_step_momentum(X, targets)
        return {f"momentum_val_{key}": out[key] for key in ("loss", "acc1", "acc5")}
