"""`BaseMomentumMethod` through a toy method."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from solo.methods.base import TrainStep
from solo.methods.contrastive import SimCLR
from solo.methods.momentum import BaseMomentumMethod
from solo.nn.networks import mlp


class _Toy(BaseMomentumMethod):
    trainable = ("projector",)
    averaged = ("projector",)
    metric = "train_toy_loss"

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.taus: list[float] = []

    def build(self, kw: None) -> None:
        self.projector = mlp(self.features_dim, 8, 4)

    def heads(self, feats: Tensor) -> dict[str, Any]:
        return {"z": self.projector(feats)}

    def momentum_heads(self, feats: Tensor) -> dict[str, Any]:
        return {"z": self.momentum_projector(feats)}

    def ssl_loss(self, out: dict[str, Any], step: TrainStep) -> Tensor:
        z, target = out["z"][0], out["momentum_z"][1]
        return (z - target.detach()).square().mean()

    def on_train_batch_end(self, *args: Any) -> None:
        online = self.projector[0].weight.detach().clone()
        old = self.momentum_projector[0].weight.detach().clone()
        super().on_train_batch_end(*args)
        new = self.momentum_projector[0].weight.detach()
        moved = not torch.equal(new, old)
        self.taus.append(float(((new - online).norm() / (old - online).norm()).item()) if moved else math.nan)


@pytest.fixture
def toy(make_cfg: Any) -> Any:
    def make(**changes: Any) -> _Toy:
        return _Toy(make_cfg("toy", **changes))

    return make


def test_a_mixin_of_a_slow_copy_and_a_method_without_one_copies_no_head(make_cfg: Any) -> None:
    class Mine(SimCLR, BaseMomentumMethod):
        Kwargs = SimCLR.Kwargs

    model = Mine(make_cfg("simclr"))
    assert not [name for name in model.state_dict() if name.startswith("momentum_projector")]


def test_the_copy_starts_equal_and_gets_no_gradient(toy: Any, make_batch: Any) -> None:
    model = toy()
    assert len(model.momentum_pairs) == 2
    for online, momentum in model.momentum_pairs:
        assert all(
            torch.equal(a, b) and not b.requires_grad
            for a, b in zip(online.parameters(), momentum.parameters(), strict=True)
        )
    assert not model.momentum_forward(make_batch()[1][0])["feats"].requires_grad
    assert model.cfg.momentum.base_tau == 0.99 and model.cfg.momentum.final_tau == 1.0
    assert [group["name"] for group in model.learnable_params] == ["backbone", "classifier", "projector"]


def test_momentum_classifier_learns_and_is_validated(toy: Any, make_batch: Any, ToyViews: Any, fit: Any) -> None:
    model = toy(momentum={"classifier": True})
    assert model.learnable_params[-1]["name"] == "momentum_classifier"
    out = model.view_outputs(make_batch())
    assert {"momentum_feats", "momentum_z", "momentum_loss", "momentum_acc1", "momentum_acc5"} <= set(out)
    assert len(out["momentum_z"]) == 2
    out["loss"].backward()
    assert model.momentum_classifier.weight.grad.any() and model.classifier.weight.grad.any()
    logged = fit(model, ToyViews(), ToyViews(8, views=0), max_epochs=1).callback_metrics
    for name in (
        "train_momentum_class_loss",
        "train_momentum_acc1",
        "momentum_val_loss",
        "momentum_val_acc5",
        "val_acc1",
    ):
        assert torch.isfinite(logged[name]), name


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_moves_once_an_optimizer_step_by_the_schedules_tau(
    toy: Any, ToyViews: Any, fit: Any, accumulate: int
) -> None:
    model = toy(momentum={"base_tau": 0.5, "final_tau": 0.9})
    fit(model, ToyViews(), accumulate_grad_batches=accumulate)
    taus = [tau for tau in model.taus if not math.isnan(tau)]
    steps = 8 // accumulate  # 2 epochs of 4 batches
    expected = [0.9 - 0.4 * (math.cos(math.pi * step / steps) + 1) / 2 for step in range(steps)]
    assert len(model.taus) == 8 and taus == pytest.approx(expected, rel=1e-3)
    assert model.momentum_updater.cur_tau == pytest.approx(0.9)
