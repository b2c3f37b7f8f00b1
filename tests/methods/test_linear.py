"""`LinearModel`."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from solo.backbones import build_backbone
from solo.errors import UserError
from solo.methods.linear import LinearModel
from solo.optim import PureExponentialLR, PureMultiStepLR


def make_linear(
    backbone: nn.Module | None = None, loss_func: Any = None, mixup_func: Any = None, **changes: Any
) -> Any:
    cfg = OmegaConf.create(
        {
            "max_epochs": 2,
            "data": {"dataset": "fashion_mnist"},
            "optimizer": {"name": "sgd", "batch_size": 8, "lr": 0.1, "weight_decay": 0},
            "scheduler": {"name": "none"},
        }
    )
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    backbone = backbone or build_backbone("resnet10", channels=1, small=True, kwargs={"width": 8})
    return LinearModel(backbone, cfg, loss_func=loss_func, mixup_func=mixup_func)


def images(batch: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 1, 12, 12), torch.arange(batch) % 10


def test_a_frozen_backbone_stays_as_it_is_batchnorm_too(ToyViews: Any, fit: Any) -> None:
    model = make_linear()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    logged = fit(model, ToyViews(views=0, levels=True), ToyViews(20, views=0, levels=True)).callback_metrics
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not model.backbone.training and model.classifier.training
    assert {"train_loss", "train_acc1", "train_acc5", "val_loss", "val_acc1", "val_acc5"} <= set(logged)
    assert logged["val_acc1"] == logged["val_acc1/class"] and "val_acc1/group" in logged


def test_finetuning_trains_the_backbone() -> None:
    model = make_linear(finetune=True).train()
    assert model.backbone.training
    model.training_step(images(), 0).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert [group["name"] for group in model.learnable_params] == ["backbone", "classifier"]


def test_only_the_classifier_gets_gradient_when_frozen() -> None:
    model = make_linear()
    model.training_step(images(), 0).backward()
    assert model.classifier.weight.grad.any() and all(p.grad is None for p in model.backbone.parameters())
    assert not model(images()[0])["feats"].requires_grad


def test_features_computed_before_are_taken_as_they_are() -> None:
    model = make_linear().eval()
    out = model(images()[0])
    assert torch.equal(model(out["feats"])["logits"], out["logits"])


def test_top5_is_clipped_with_few_classes() -> None:
    model = make_linear(data={"dataset": "mine", "num_classes": 3, "channels": 1})
    X, _ = images()
    out = model.shared_step((X, torch.zeros(6, dtype=torch.long)), 0)
    assert out["batch_size"] == 6 and out["acc5"] == 100


def test_label_smoothing_is_used_in_training_and_not_in_validation() -> None:
    X, targets = images()
    model = make_linear(label_smoothing=0.3)
    plain = nn.functional.cross_entropy(model(X)["logits"], targets)
    smooth = nn.functional.cross_entropy(model(X)["logits"], targets, label_smoothing=0.3)
    assert plain != smooth
    torch.testing.assert_close(model.train().shared_step((X, targets), 0)["loss"], smooth)
    torch.testing.assert_close(model.eval().shared_step((X, targets), 0)["loss"], plain)


def test_mixup_gives_soft_targets_to_the_loss_in_training_only() -> None:
    seen = []

    def mixup(X: Any, targets: Any) -> Any:
        seen.append(targets)
        return X, torch.full((len(X), 10), 0.1)

    model = make_linear(mixup_func=mixup, label_smoothing=0.3)
    X, targets = images()
    out = model.train().shared_step((X, model.label_paths(targets)), 0)
    assert "acc1" not in out and torch.equal(seen[0], targets)
    torch.testing.assert_close(out["loss"], -model(X)["logits"].log_softmax(1).mean())
    assert "acc1" in model.eval().shared_step((X, targets), 0) and len(seen) == 1


def test_a_loss_of_ones_own() -> None:
    model = make_linear(loss_func=lambda logits, targets: logits.sum() * 0 + 7)
    assert model.train().shared_step(images(), 0)["loss"] == 7


def test_optimizers_and_schedulers_without_a_trainer() -> None:
    model = make_linear(optimizer__exclude_bias_n_norm_wd=True, accumulate_grad_batches=2)
    groups = model.configure_optimizers().param_groups
    assert isinstance(model.configure_optimizers(), Optimizer)
    assert [group["name"] for group in groups] == ["classifier", "classifier_no_decay"]
    assert groups[0]["lr"] == pytest.approx(0.2)
    kinds = {"reduce": ReduceLROnPlateau, "step": PureMultiStepLR, "exponential": PureExponentialLR}
    for name, kind in kinds.items():
        model.scheduler = name
        assert type(model.configure_optimizers()[1][0]) is kind
    assert model.configure_optimizers()[1][0].gamma == 0.95
    model.scheduler = "random"
    with pytest.raises(ValueError, match="exponential"):
        model.configure_optimizers()
    model.optimizer = "random"
    with pytest.raises(AssertionError):
        model.configure_optimizers()


def test_reduce_watches_the_validation_loss(ToyViews: Any, fit: Any) -> None:
    model = make_linear(scheduler__name="reduce")
    trainer = fit(model, ToyViews(views=0), ToyViews(8, views=0))
    assert trainer.lr_scheduler_configs[0].monitor == "val_loss"


def test_layer_decay_lowers_the_rates_of_early_layers() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=2, in_chans=1)
    model = make_linear(vit, finetune=True, optimizer__layer_decay=0.5)
    optimizer = model.configure_optimizers()
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    layers = [vit.patch_embed.proj.weight, vit.blocks[0].mlp.fc1.weight, vit.blocks[1].mlp.fc1.weight, vit.norm.weight]
    rates = [rate[id(p)] for p in layers]
    assert rates == pytest.approx([0.1 * 0.5**depth for depth in (2, 1, 0, 0)])
    assert rate[id(model.classifier.weight)] == pytest.approx(0.1)
    assert len(rate) == len(list(model.parameters()))
    with pytest.raises(UserError, match="layer_decay"):
        make_linear(finetune=True, optimizer__layer_decay=0.5).configure_optimizers()
